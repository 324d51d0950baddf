"""Clips, stills, sounds and words -> what a released model is called with."""

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

from omnihuman.release.hub.huggingface import local_folder
from omnihuman.types import IGNORE_INDEX, Batch

if TYPE_CHECKING:
    from omnihuman.data.collate import Packable
    from omnihuman.data.dataset import Samples
    from omnihuman.data.module import OmniData

log = logging.getLogger(__name__)

DATA = (
    "num_frames", "face", "missing", "max_length", "max_tokens", "markers", "separator", "supervise_newline", "timeout",
)  # fmt: skip
"""Options of ``OmniData`` that decide what a model is given; the others say which data and in what order."""

SEEN = ("boxes", "whole", "none")
FACE = ("source", "margin")
"""Options of ``FaceInput`` that travel; a detector is a file of somebody else's."""


class OmniHumanProcessor(ProcessorMixin):
    """Media and questions -> tensors, by the data path that the model was trained with.

    Args:
        tokenizer: of the language model.
        graph: of the model, as in its config: it says pixels, mel bins, and how many tokens each medium takes.
        data: how media are read and prompts are put: frames, markers, separator, faces.
        folder: where the tokenizer of the instruction lies.
        chat_template: for text alone; media are put in their places by the data path.
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
        """The processor of a released folder, or of a repository on the hub that holds one.

        Raises:
            ValueError: the folder holds none of ours.
        """
        folder = local_folder(pretrained_model_name_or_path, kwargs)
        file = folder / "processor_config.json"
        said = json.loads(file.read_text()) if file.is_file() else {}
        if "graph" not in said or "data" not in said:
            raise ValueError(f"{file} says no graph and data: it was not written by python -m omnihuman.export.")
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        return cls(tokenizer, said["graph"], said["data"], str(folder), tokenizer.chat_template)

    def __call__(
        self,
        text: str | Sequence[str],
        *,
        video: Any = None,
        audio: Any = None,
        image: Any = None,
        modal: str | None = None,
        answer: str | Sequence[str] | None = None,
        faces: Any = None,
        start: float | None = None,
        end: float | None = None,
        return_tensors: str = "pt",
        padding: bool | str = True,
    ) -> BatchFeature:
        """One question or several, each about its medium; one medium is for all.

        Args:
            text: the user's words.
            video: path of a clip; it is seen and heard. Sound given beside it takes the place of its own. In a list,
                ``None`` stands for a question without one.
            audio: path of a sound, or ``{"array", "sampling_rate"}``.
            image: path of a still, or a PIL image.
            modal: what of it is used: ``video_audio``, ``video``, ``audio``, ``text`` ...; ``None`` for all.
            answer: what is to be answered; then the conversations are whole, with ``labels``.
            faces: where they are, as records say it (``[{"time", "box"}]`` or one box a frame); or ``whole`` frames,
                ``none``, or ``boxes``.
            start: second at which the clip begins.
            end: second at which it ends.
            return_tensors: ``pt``, the only kind there is.
            padding: what transformers' processors are told; several questions always are padded, on the left.

        Returns:
            ``input_ids``, ``attention_mask`` (padded on the left) and of every encoder its values and mask.

        Raises:
            ValueError: a medium is missing, cannot be used, or the model cannot read it.
        """
        texts = [text] if isinstance(text, str) else list(text)
        given = {
            kind: value for kind, value in (("video", video), ("image", image), ("audio", audio)) if value is not None
        }
        media = {kind: _several(value, len(texts), kind) for kind, value in given.items()}
        answers = [None] * len(texts) if answer is None else _several(answer, len(texts), "answer")
        turns = [
            [{"type": kind, "url": values[row]} for kind, values in media.items() if values[row] is not None]
            + [{"type": "text", "text": words}]
            for row, words in enumerate(texts)
        ]
        chats = [
            [{"role": "user", "content": turn}, *([] if said is None else [{"role": "assistant", "content": said}])]
            for turn, said in zip(turns, answers, strict=True)
        ]
        return self._batch(chats, modal, faces, start=start, end=end)

    def apply_chat_template(  # type: ignore[override]
        self, conversation: Any, chat_template: str | None = None, *, tokenize: bool = False, **kwargs: Any
    ) -> Any:
        """Messages with media in their content -> the same tensors as a call; without ``tokenize`` the text alone.

        Args:
            conversation: ``[{"role", "content": words or [{"type": "video", "url": path}, {"type": "text", "text"}]}]``
                or a list of such.
            chat_template: another template, for text alone.
            tokenize: read the media and make tensors.
            kwargs: of the tokenizer's own method.
        """
        if not tokenize:
            return self.tokenizer.apply_chat_template(conversation, chat_template, tokenize=False, **kwargs)
        several = [conversation] if isinstance(conversation[0], Mapping) else conversation
        return self._batch(several, kwargs.get("modal"), kwargs.get("faces"))

    def batch_decode(self, ids: Any, skip_special_tokens: bool = True, **kwargs: Any) -> list[str]:
        """Ids, as ``generate`` returns them, -> the answers; places of media in a prompt are left out."""
        rows = [[token for token in row if token >= 0] for row in (ids.tolist() if isinstance(ids, Tensor) else ids)]
        texts = self.tokenizer.batch_decode(rows, skip_special_tokens=skip_special_tokens, **kwargs)
        return [text.strip() for text in texts]

    def decode(self, ids: Any, skip_special_tokens: bool = True, **kwargs: Any) -> str:
        """One row of ids -> its answer."""
        row = ids.tolist() if isinstance(ids, Tensor) else list(ids)
        return self.batch_decode([row], skip_special_tokens, **kwargs)[0]

    @property
    def model_input_names(self) -> list[str]:
        """Of what a call returns."""
        signals = [f"{part['name']}_{what}" for part in self.graph.get("encoders", []) for what in ("values", "mask")]
        return ["input_ids", "attention_mask", *signals]

    def save_pretrained(self, save_directory: Any, push_to_hub: bool = False, **kwargs: Any) -> Any:
        """As usual, and the tokenizer of the instruction."""
        from omnihuman.release.hub.graph import WORDS

        if (source := self._folder / WORDS).is_dir() and source.resolve() != (Path(save_directory) / WORDS).resolve():
            shutil.copytree(source, Path(save_directory) / WORDS, dirs_exist_ok=True)
        if push_to_hub:
            self.push_to_hub(kwargs.pop("repo_id", Path(save_directory).name), **kwargs)
        return super().save_pretrained(save_directory)

    @cached_property
    def _path(self) -> tuple[Any, set[str]]:
        """The data path, connected to a model without weights; and the slots that the model fills."""
        from accelerate import init_empty_weights

        from omnihuman.build import build
        from omnihuman.data.face import FaceInput
        from omnihuman.data.module import OmniData
        from omnihuman.release.hub.graph import opened

        with init_empty_weights():
            model = build(opened(self.graph, self._folder))
        options = checked_data(self.data, self._folder)
        options["face"] = FaceInput(**options["face"])
        data = OmniData(records=[], root=".", batch_size=1, num_workers=0, **options)
        data.connect(model.transforms, model.layouts, self.tokenizer, model.llm.chat)
        reads = {"frames": "video", "faces": "video", "waveform": "audio"}
        return data, {reads[what] for what, _ in model.transforms.values() if what in reads}

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "_path"}  # crosses to workers

    def _batch(self, chats: Sequence[Any], modal: str | None = None, faces: Any = None, **extra: Any) -> BatchFeature:
        """Conversations -> tensors; what is not a file yet lives in a folder of its own for so long."""
        from omnihuman.data.collate import pack

        data, slots = self._path
        if isinstance(faces, str):
            if faces not in SEEN:
                raise ValueError(f"faces={faces}: choose from {', '.join(SEEN)}, or give boxes.")
            data = copy(data)
            data.options = {**data.options, "face": replace(data.options["face"], source=faces)}
        extra = {key: value for key, value in {**extra, "faces": faces}.items() if not isinstance(value, str | None)}
        with tempfile.TemporaryDirectory() as folder:
            made = [self._asked(data, slots, chat, modal, extra, Path(folder), row) for row, chat in enumerate(chats)]
        batch = pack([packable for _, packable in made], made[0][0].blanks, step_targets=0)
        return BatchFeature(padded(batch, self.tokenizer, any(chat[-1]["role"] == "assistant" for chat in chats)))

    def _asked(
        self, data: "OmniData", slots: set[str], chat: Sequence[Mapping[str, Any]], modal: str | None,
        extra: Mapping[str, Any], folder: Path, row: int,
    ) -> tuple["Samples", "Packable"]:  # fmt: skip
        """One conversation, its media decoded as far as the model reads them."""
        from omnihuman.data.messages import record_of

        answered = chat[-1]["role"] == "assistant"
        record = record_of(chat[:-1] if answered else chat, f"question_{row}", f"question {row}", folder, extra)
        asked, unread = record.asked(modal, slots, "the model")
        samples = data.question(asked)
        planned = samples.planned[0]
        if lost := sorted({*asked.slots, *unread} - {*planned.record.slots}):
            log.warning("question %d: answered without %s, which is not there or not read", row, " and ".join(lost))
        if samples.without_boxes:
            log.warning("question %d: nothing says where the faces are: give faces, boxes or the word whole", row)
        made = samples.packable(planned, samples.sample(planned, {reads for reads, _ in samples.transforms.values()}))
        if not answered:
            return samples, made
        said = (*planned.record.messages[:-1], ("assistant", str(chat[-1]["content"])))
        ids, labels = samples.chat.encode(said, planned.counts)
        return samples, replace(made, input_ids=ids, labels=labels)


def checked_data(data: Any, folder: Path) -> dict[str, Any]:
    """The data options that a folder's processor says, as a stranger's: those that there are, and plain values.

    Raises:
        ValueError: there is anything else.
    """
    from omnihuman.release.hub.graph import check_plain

    if not isinstance(data, dict) or not isinstance(data.get("face") or {}, dict):
        raise ValueError(f"{folder / 'processor_config.json'} says no data: it was not written by omnihuman.export.")
    face = data.get("face") or {}
    if foreign := sorted({*data} - {*DATA} | {*face} - {*FACE}):
        raise ValueError(f"{folder}: the processor's data has no {', '.join(foreign)}; remove the keys.")
    check_plain(f"{folder / 'processor_config.json'}: data", data)
    return {**data, "face": face}


def padded(batch: Batch, tokenizer: Any, labelled: bool = False) -> dict[str, Tensor]:
    """A packed row -> its samples as rows ``[B L]``, padded on the left, beside the signals."""
    lengths = batch.bounds.diff().tolist()
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id or 0

    def rows(packed: Tensor, fill: int) -> Tensor:
        pieces = torch.split(packed[0], lengths)
        return torch.stack([F.pad(row, (max(lengths) - len(row), 0), value=fill) for row in pieces])

    signals = {
        f"{name}_{what}": value
        for name, signal in batch.signals.items()
        for what, value in (("values", signal.values), ("mask", signal.mask))
    }
    labels = {"labels": rows(batch.labels, IGNORE_INDEX)} if labelled else {}
    return {
        "input_ids": rows(batch.input_ids, pad),
        "attention_mask": rows(torch.ones_like(batch.input_ids), 0),
        **labels,
        **signals,
    }


def _several(value: Any, count: int, what: str) -> list[Any]:
    """One value for each question.

    Raises:
        ValueError: there are some, but not as many.
    """
    values = list(value) if isinstance(value, list | tuple) else [value] * count
    if len(values) != count:
        raise ValueError(f"{what}: {len(values)} for {count} questions; give one for all, or one for each.")
    return values
