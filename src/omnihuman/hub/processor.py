"""Video, image, audio and text -> the inputs of a released model."""

import json
import logging
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AutoTokenizer
from transformers.feature_extraction_utils import BatchFeature
from transformers.processing_utils import ProcessorMixin

from omnihuman.hub.huggingface import find_local_folder
from omnihuman.modality import ROWS, TILINGS, View
from omnihuman.types import IGNORE_INDEX, Batch

if TYPE_CHECKING:
    from omnihuman.data.collate import Packable
    from omnihuman.data.dataset import Samples
    from omnihuman.data.module import OmniData

log = logging.getLogger(__name__)

DATA_OPTIONS = (
    "num_frames",
    "sampling",
    "face",
    "missing",
    "long_audio",
    "max_length",
    "max_tokens",
    "markers",
    "separator",
    "supervise_newline",
    "time_instruction",
    "tiles",
    "instruction",
    "timeout",
)
"""Options of ``OmniData`` that decide the inputs of a model; the others choose the data and its order."""

FACE_REGIONS = ("boxes", "whole", "none")
FACE_OPTIONS = ("region", "margin")
"""Options of ``FaceInput`` that are released; a detector is a separate file."""


class OmniHumanProcessor(ProcessorMixin):
    """Media and questions -> tensors, by the data path that the model was trained with.

    Args:
        tokenizer: of the language model.
        graph: of the model, as in its config; it determines image sizes, mel bins, and the tokens of each medium.
        data: options of the data path: frames, markers, separator, faces.
        folder: of the instruction tokenizer.
        chat_template: for text alone; the data path inserts media.
    """

    def __init__(
        self,
        tokenizer: Any,
        graph: Mapping[str, Any] | None = None,
        data: Mapping[str, Any] | None = None,
        folder: str | None = None,
        chat_template: str | None = None,
    ) -> None:
        super().__init__(tokenizer, chat_template=chat_template)
        self.graph, self.data = dict(graph or {}), dict(data or {})
        self._folder = Path(folder or "")

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any) -> "OmniHumanProcessor":
        """Load the processor of a released folder, or of a repository on the hub that is one.

        Raises:
            ValueError: the folder has no processor of ours.
        """
        folder = find_local_folder(pretrained_model_name_or_path, kwargs)
        file = folder / "processor_config.json"
        config = json.loads(file.read_text()) if file.is_file() else {}
        if "graph" not in config or "data" not in config:
            raise ValueError(f"{file} has no graph and data: it was not written by omnihuman export.")
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        return cls(tokenizer, config["graph"], config["data"], str(folder), tokenizer.chat_template)

    def __call__(
        self,
        text: str | Sequence[str],
        *,
        video: Any = None,
        audio: Any = None,
        image: Any = None,
        view: str | None = None,
        answer: str | Sequence[str] | None = None,
        faces: Any = None,
        start: float | None = None,
        end: float | None = None,
        return_tensors: str = "pt",
        padding: bool | str = True,
    ) -> BatchFeature:
        """Encode one question or several, each about its media; a single medium is used for all questions.

        Args:
            text: the question.
            video: path of a clip with its audio track. A separate ``audio`` replaces the audio track. In a list,
                ``None`` stands for a question without video.
            audio: path of an audio file, or ``{"array", "sampling_rate"}``.
            image: path of an image, a PIL image, or a list of them for one question.
            view: modalities to use: ``VAF``, ``VA``, ``V``, ``A``, ``text`` ...; ``None`` for all.
            answer: the reference answer; adds ``labels`` for training.
            faces: bounding boxes as in records (``[{"time", "box"}]`` or one box a frame); or ``whole`` frames,
                ``none``, or ``boxes``.
            start: of the clip, in seconds.
            end: of the clip, in seconds.
            return_tensors: ``pt``, the only format.
            padding: accepted for compatibility; several questions are always padded, on the left.

        Returns:
            ``input_ids``, ``attention_mask`` (padded on the left), values and mask of every encoder, and, where a
            question has several images or one is in tiles, their rows and tilings.

        Raises:
            ValueError: a medium is missing or invalid, or the model cannot read it.
        """
        texts = [text] if isinstance(text, str) else list(text)
        if isinstance(text, str) and isinstance(image, list | tuple):
            image = [image]
        media: dict[str, list[Any]] = {}
        for kind, value in (("video", video), ("image", image), ("audio", audio)):
            if value is not None:
                media[kind] = _repeat(value, len(texts), kind)
        answers = _repeat(answer, len(texts), "answer")
        chats = []
        for index, question in enumerate(texts):
            content = []
            for kind, values in media.items():
                value = values[index]
                files = value if kind == "image" and isinstance(value, list | tuple) else [value]
                content += [{"type": kind, "url": file} for file in files if file is not None]
            content.append({"type": "text", "text": question})
            chat: list[dict[str, Any]] = [{"role": "user", "content": content}]
            if answers[index] is not None:
                chat.append({"role": "assistant", "content": answers[index]})
            chats.append(chat)
        return self._encode(chats, view, faces, start=start, end=end)

    def apply_chat_template(  # type: ignore[override]
        self, conversation: Any, chat_template: str | None = None, *, tokenize: bool = False, **kwargs: Any
    ) -> Any:
        """Encode messages with media in their content, as a call does; without ``tokenize`` return the text alone.

        Args:
            conversation: ``[{"role", "content": text or [{"type": "video", "url": path}, {"type": "text", "text"}]}]``
                or a list of such.
            chat_template: another template, for text alone.
            tokenize: read the media and return tensors.
            kwargs: of the tokenizer's method.
        """
        if not tokenize:
            return self.tokenizer.apply_chat_template(conversation, chat_template, tokenize=False, **kwargs)
        chats = [conversation] if isinstance(conversation[0], Mapping) else conversation
        return self._encode(chats, kwargs.get("view"), kwargs.get("faces"))

    def batch_decode(self, ids: Any, skip_special_tokens: bool = True, **kwargs: Any) -> list[str]:
        """Return the answers of ids from ``generate``; slots of media in a prompt are skipped."""
        samples = ids.tolist() if isinstance(ids, Tensor) else ids
        samples = [_remove_slots(sample) for sample in samples]
        texts = self.tokenizer.batch_decode(samples, skip_special_tokens=skip_special_tokens, **kwargs)
        return [text.strip() for text in texts]

    def decode(self, ids: Any, skip_special_tokens: bool = True, **kwargs: Any) -> str:
        """Return the answer of one sample's ids."""
        sample = ids.tolist() if isinstance(ids, Tensor) else list(ids)
        return self.batch_decode([sample], skip_special_tokens, **kwargs)[0]

    @property
    def model_input_names(self) -> list[str]:
        """The names of the tensors that a call returns."""
        names = ["input_ids", "attention_mask"]
        for encoder in self.graph.get("encoders", []):
            names += [f"{encoder['name']}_values", f"{encoder['name']}_mask"]
        return names

    def save_pretrained(self, save_directory: Any, push_to_hub: bool = False, **kwargs: Any) -> Any:
        """Save the processor and the instruction tokenizer."""
        from omnihuman.hub.graph import INSTRUCTION_TOKENIZER

        source, target = self._folder / INSTRUCTION_TOKENIZER, Path(save_directory) / INSTRUCTION_TOKENIZER
        if source.is_dir() and source.resolve() != target.resolve():
            shutil.copytree(source, target, dirs_exist_ok=True)
        if push_to_hub:
            self.push_to_hub(kwargs.pop("repo_id", Path(save_directory).name), **kwargs)
        return super().save_pretrained(save_directory)

    @cached_property
    def _data_path(self) -> tuple["OmniData", View]:
        """The data path, connected to a model without weights; and the modalities that the model reads."""
        from accelerate import init_empty_weights

        from omnihuman.build import build
        from omnihuman.data.face import FaceInput
        from omnihuman.data.module import OmniData
        from omnihuman.hub.graph import parse_graph

        with init_empty_weights():
            model = build(parse_graph(self.graph, self._folder))
        options = check_data_options(self.data, self._folder)
        options["face"] = FaceInput(**options["face"])
        data = OmniData(records=[], root=".", batch_size=1, num_workers=0, **options)
        data.connect(model.transforms, model.count_tokens, self.tokenizer, model.llm.template)
        return data, View.of_fields(field for field, _ in model.transforms.values())

    def __getstate__(self) -> dict[str, Any]:
        # Data loader workers get a copy of the processor; each connects its own data path.
        return {key: value for key, value in self.__dict__.items() if key != "_data_path"}

    def _encode(self, chats: Sequence[Any], view: str | None = None, faces: Any = None, **extra: Any) -> BatchFeature:
        """Encode conversations; media that are not files are written to a temporary folder."""
        from omnihuman.data.collate import pack

        data, model_view = self._data_path
        requested = None if view is None else View.parse(view)
        if isinstance(faces, str):
            data = _replace_face_region(data, faces)
        else:
            extra["faces"] = faces
        extra = {key: value for key, value in extra.items() if value is not None}
        packables = []
        with tempfile.TemporaryDirectory() as folder:
            for index, chat in enumerate(chats):
                samples, packable = self._encode_chat(data, model_view, chat, requested, extra, Path(folder), index)
                packables.append(packable)
        batch = pack(packables, samples.blanks, step_targets=0)
        has_labels = any(chat[-1]["role"] == "assistant" for chat in chats)
        return BatchFeature(pad_batch(batch, self.tokenizer, has_labels))

    def _encode_chat(
        self,
        data: "OmniData",
        model_view: View,
        chat: Sequence[Mapping[str, Any]],
        view: View | None,
        extra: Mapping[str, Any],
        folder: Path,
        index: int,
    ) -> tuple["Samples", "Packable"]:
        """Encode one conversation; only the media that the model reads are decoded."""
        from omnihuman.data.chat import read_texts
        from omnihuman.data.messages import build_record

        has_answer = chat[-1]["role"] == "assistant"
        question = chat[:-1] if has_answer else chat
        record = build_record(question, f"question_{index}", f"question {index}", folder, extra)
        record, unread = record.prepare(view, model_view, "the model")
        samples = data.plan_question(record)
        planned = samples.planned[0]
        unused = sorted({*record.slots, *unread} - {*planned.record.slots})
        if unused:
            log.warning("question %d: answered without %s, which is missing or not read", index, " and ".join(unused))
        if samples.num_unlocated:
            log.warning("question %d: no bounding boxes of faces: give faces=<boxes> or faces=whole", index)
        packable = samples.to_packable(planned, samples.sample(planned))
        if not has_answer:
            return samples, packable
        messages = (*planned.record.messages[:-1], ("assistant", str(chat[-1]["content"])))
        ids, labels = samples.chat.encode(messages, planned.counts, **read_texts(planned.record.meta))
        return samples, replace(packable, input_ids=ids, labels=labels)


def _replace_face_region(data: "OmniData", region: str) -> "OmniData":
    if region not in FACE_REGIONS:
        raise ValueError(f"faces={region}: choose from {', '.join(FACE_REGIONS)}, or give boxes.")
    data = copy(data)
    data.options = {**data.options, "face": replace(data.options["face"], region=region)}
    return data


def _remove_slots(ids: Sequence[int]) -> list[int]:
    return [token for token in ids if token >= 0]


def check_data_options(data: Any, folder: Path) -> dict[str, Any]:
    """Return the data options of a released folder, after a check: they are untrusted input.

    Raises:
        ValueError: an option is unknown, or not a plain value.
    """
    from omnihuman.gate import check_config

    file = folder / "processor_config.json"
    if not isinstance(data, dict) or not isinstance(data.get("face") or {}, dict):
        raise ValueError(f"{file} has no data: it was not written by omnihuman export.")
    face = data.get("face") or {}
    unknown = sorted({*data} - {*DATA_OPTIONS} | {*face} - {*FACE_OPTIONS})
    if unknown:
        raise ValueError(f"{file}: unknown data options {', '.join(unknown)}; remove the keys.")
    check_config(f"{file}: data", data)
    return {**data, "face": face}


def pad_batch(batch: Batch, tokenizer: Any, has_labels: bool = False) -> dict[str, Tensor]:
    """Return the samples of a packed sequence as ``[B L]``, padded on the left, and the signals."""
    lengths = batch.lengths
    pad_id = tokenizer.pad_token_id
    if pad_id is None:
        pad_id = tokenizer.eos_token_id or 0

    def unpack(packed: Tensor, fill: int) -> Tensor:
        samples = torch.split(packed[0], lengths)
        return torch.stack([F.pad(sample, (max(lengths) - len(sample), 0), value=fill) for sample in samples])

    tensors = {
        "input_ids": unpack(batch.input_ids, pad_id),
        "attention_mask": unpack(torch.ones_like(batch.input_ids), 0),
    }
    if has_labels:
        tensors["labels"] = unpack(batch.labels, IGNORE_INDEX)
    for name, signal in batch.signals.items():
        tensors[f"{name}_values"] = signal.values
        tensors[f"{name}_mask"] = signal.mask
    if batch.rows:
        tensors[ROWS] = torch.tensor(batch.rows)
    if batch.tilings is not None:
        tensors[TILINGS] = batch.tilings
    return tensors


def _repeat(value: Any, count: int, name: str) -> list[Any]:
    """Return one value for each question.

    Raises:
        ValueError: a list has another length.
    """
    values = list(value) if isinstance(value, list | tuple) else [value] * count
    if len(values) != count:
        raise ValueError(f"{name}: {len(values)} values for {count} questions; give one for all, or one for each.")
    return values
