"""A transformers model around our models: built from a released folder, called with plain tensors."""

from collections.abc import Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from jaxtyping import Int
from torch import Tensor
from transformers.generation import GenerationConfig, GenerationMixin
from transformers.modeling_outputs import CausalLMOutput
from transformers.modeling_utils import PreTrainedModel

from omnihuman.build import build
from omnihuman.hub.configuration import OmniHumanConfig
from omnihuman.hub.graph import parse_graph
from omnihuman.modality import FIELDS_WITH_GAPS, ROWS, SLOTS, TILINGS
from omnihuman.nn.finite import check_parameters
from omnihuman.training.safetensors_writer import apply_umask
from omnihuman.types import IGNORE_INDEX, Batch, Signal

if TYPE_CHECKING:
    from omnihuman.model.omni import OmniModel

DOWNLOAD_OPTIONS = ("cache_dir", "force_download", "local_files_only", "token", "revision")
"""Options of ``from_pretrained`` for the download from the hub."""

IGNORED_GENERATION_FIELDS = ("eos_token_id", "pad_token_id", "transformers_version", "_from_model_config")
"""Fields of a generation config that the language model sets itself, or that do not affect generation."""


class OmniHumanForCausalLM(PreTrainedModel, GenerationMixin):
    """Causal language model on the output of ``OmniHumanProcessor``: loss and logits, or the ids of answers.

    Its parameters have the same names as in ``OmniModel``.
    Differs from other models of transformers: ``generate`` returns the new ids only, as the slots of media in the
    prompt have ids that no tokenizer can decode; and ``forward`` has no cache, which ``generate`` has.

    Args:
        config: of a released folder.
        omni: the model if it is built already; its weights are used as they are.

    Raises:
        ValueError: the graph in the config is invalid, or the config was not read from a folder.
    """

    config_class = OmniHumanConfig
    main_input_name = "input_ids"
    supports_gradient_checkpointing = True
    _supports_sdpa = True

    def __init__(self, config: OmniHumanConfig, omni: "OmniModel | None" = None) -> None:
        super().__init__(config)
        if omni is None:
            graph = parse_graph(config.graph, _config_folder(config))
            dtype = torch.get_default_dtype()  # set by from_pretrained
            graph["llm"]["dtype"] = str(dtype).removeprefix("torch.")
            omni = build(graph)
        self._omni = (omni,)  # in a tuple, so that it is not a submodule: its parts are, under their own names
        for name, part in omni.named_children():
            self.add_module(name, part)
        llm: PreTrainedModel = omni.llm.model
        self._tied_weights_keys = {f"llm.model.{a}": f"llm.model.{b}" for a, b in llm.all_tied_weights_keys.items()}
        config.tie_word_embeddings = bool(self._tied_weights_keys)
        self._keep_in_fp32_modules = llm._keep_in_fp32_modules
        self.post_init()
        self._computed_buffers = {name: buffer.clone() for name, buffer in self.named_non_persistent_buffers()}

    @property
    def omni(self) -> "OmniModel":
        """The same model with our own interface."""
        return self._omni[0]

    def forward(
        self,
        input_ids: Int[Tensor, "B L"],
        attention_mask: Int[Tensor, "B L"] | None = None,
        labels: Int[Tensor, "B L"] | None = None,
        num_items_in_batch: int | Tensor | None = None,
        **signals: Any,
    ) -> CausalLMOutput:
        """Return logits ``[B L V]``, 0 at padding, and the mean cross-entropy of the labelled tokens.

        Args:
            input_ids: padded on either side; slots of media have the ids of ``SLOTS``.
            attention_mask: 1 for valid tokens, 0 for padding; ``None``: all are valid.
            labels: the id AT each position, -100 at unlabelled ones.
            num_items_in_batch: divide the summed loss by this number of tokens instead of the number of labels.
            signals: ``<encoder>_values`` and ``<encoder>_mask`` of every encoder, and what else the processor returns.
        """
        from omnihuman.llm.packed import Segments
        from omnihuman.model.splice import drop_positions

        for option in ("return_dict", "use_cache"):
            signals.pop(option, None)
        batch, positions = self._pack(input_ids, attention_mask, labels, signals)
        parts = None  # all parts run if all signals are there: ranks that train together must run the same parts
        if len(batch.signals) != len(self.encoders):
            parts = self.omni.select_parts(
                {slot for slot, number in SLOTS.items() if (batch.input_ids == number).any()}
            )
        embeds, mask, _ = self.omni.embed(batch, parts)
        bounds, position_ids, (embeds, targets) = drop_positions(mask, batch.bounds, embeds, batch.labels)
        logits = self.llm.model(
            inputs_embeds=embeds,
            position_ids=position_ids,
            use_cache=False,
            segments=Segments(bounds, embeds.device),
        ).logits[0]
        loss = None
        if labels is not None:
            loss = _cross_entropy(logits, targets[0], bounds, num_items_in_batch)
        # Masked and padded positions keep zero logits.
        padded = logits.new_zeros(input_ids.numel(), logits.shape[-1]).index_copy(0, positions[mask], logits)
        return CausalLMOutput(loss=loss, logits=padded.view(*input_ids.shape, -1))

    @torch.no_grad()
    def generate(
        self,
        input_ids: Int[Tensor, "B L"],
        generation_config: GenerationConfig | None = None,
        *,
        attention_mask: Int[Tensor, "B L"] | None = None,
        **options: Any,
    ) -> Any:
        """Return the ids of the answers ``[B new]``, without the prompts; only the necessary parts run.

        Without signals, which the processor returns for text alone as well, the caller is a text generation pipeline
        of transformers: then the prompts precede the answers, as such a pipeline expects.

        Args:
            input_ids: the prompts, as for ``forward``.
            generation_config: replaces that of the folder.
            attention_mask: as for ``forward``.
            options: signals, as for ``forward``, and options of transformers' ``generate``.
        """
        names = self._signal_names()
        signals = {key: options.pop(key) for key in list(options) if key in names}
        generation_kwargs = (generation_config or self.generation_config).to_diff_dict()
        for field in IGNORED_GENERATION_FIELDS:
            generation_kwargs.pop(field, None)
        batch, _ = self._pack(input_ids, attention_mask, None, signals)
        output: Any = self.omni.answer_ids(batch, frugal=True, **{**generation_kwargs, **options})
        if signals:
            return output
        answers = output if isinstance(output, Tensor) else output.sequences
        prompts = input_ids.repeat_interleave(len(answers) // len(input_ids), dim=0)
        sequences = torch.cat([prompts, answers], dim=1)
        if isinstance(output, Tensor):
            return sequences
        output.sequences = sequences
        return output

    def _signal_names(self) -> list[str]:
        names = []
        for encoder in self.encoders:
            names += [f"{encoder}_values", f"{encoder}_mask"]
        return [*names, ROWS, TILINGS]

    def _pack(
        self, input_ids: Tensor, attention_mask: Tensor | None, labels: Tensor | None, signals: Mapping[str, Tensor]
    ) -> tuple[Batch, Int[Tensor, " L"]]:
        """Return the samples as one packed sequence, and its positions in the flattened ``input_ids``.

        Raises:
            ValueError: a signal has no encoder, or a slot in the text has no signal.
        """
        unknown = sorted(signals.keys() - {*self._signal_names()})
        if unknown:
            raise ValueError(f"unknown arguments {', '.join(unknown)}; the model's signals are {self._signal_names()}.")
        if not signals:
            slots = sorted(slot for slot, number in SLOTS.items() if (input_ids == number).any())
            if slots:
                raise ValueError(
                    f"the ids have slots of {' and '.join(slots)}, but there are no signals: pass all outputs of the "
                    "processor."
                )
        if attention_mask is None:
            attention_mask = torch.ones_like(input_ids)
        if labels is None:
            labels = torch.full_like(input_ids, IGNORE_INDEX)
        lengths = attention_mask.sum(dim=1).tolist()
        positions = attention_mask.flatten().nonzero().squeeze(-1)
        position_ids = [torch.arange(length, device=input_ids.device) for length in lengths]
        batch = Batch(
            signals=self._select_signals(signals),
            input_ids=input_ids.flatten()[positions][None],
            labels=labels.flatten()[positions][None],
            position_ids=torch.cat(position_ids)[None],
            bounds=(0, *accumulate(lengths)),
            step_targets=0,
            rows=tuple(signals[ROWS].tolist()) if ROWS in signals else (),
            tilings=signals.get(TILINGS),
        )
        return batch, positions

    def _select_signals(self, tensors: Mapping[str, Tensor]) -> dict[str, Signal]:
        signals = {}
        for name, field in self.omni.reads.items():
            if f"{name}_values" in tensors:
                mask = tensors[f"{name}_mask"].bool()
                signals[name] = Signal(tensors[f"{name}_values"], mask, field in FIELDS_WITH_GAPS)
        return signals

    def train(self, mode: bool = True) -> "OmniHumanForCausalLM":
        """Set the mode of all parts; frozen parts stay in eval mode."""
        super().train(mode)
        self.omni.train(mode)
        return self

    def get_input_embeddings(self) -> Any:
        """Return those of the language model."""
        return self.llm.model.get_input_embeddings()

    def get_output_embeddings(self) -> Any:
        """Return those of the language model."""
        return self.llm.model.get_output_embeddings()

    def init_weights(self) -> None:
        """Tie the weights; every part was initialized when it was built."""
        self.tie_weights()

    def _init_weights(self, module: Any) -> None:
        pass

    @classmethod
    def get_init_context(cls, *args: Any, **kwargs: Any) -> list[Any]:
        """Return contexts that build parameters on the meta device, but compute buffers, which no file contains."""
        from accelerate import init_empty_weights

        contexts = []
        for context in super().get_init_context(*args, **kwargs):
            is_meta = context == torch.device("meta")
            contexts.append(init_empty_weights(include_buffers=False) if is_meta else context)
        return contexts

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: Any, *args: Any, output_loading_info: bool = False, **kwargs: Any
    ) -> Any:
        """Load the model of a released folder, or of a repository on the hub that is one.

        Raises:
            ValueError: parameters are missing, unexpected or not finite, or the graph is invalid.
        """
        folder = find_local_folder(pretrained_model_name_or_path, kwargs)
        model, info = super().from_pretrained(folder, *args, output_loading_info=True, **kwargs)
        problems = []
        for kind in ("missing", "unexpected", "mismatched"):
            keys = sorted(map(str, info[f"{kind}_keys"]))
            if keys:
                problems.append(f"{len(keys)} {kind} (such as {keys[0]})")
        if problems:
            raise ValueError(f"{folder}: the weights do not fit config.json: {', '.join(problems)}.")
        check_parameters(folder, model)
        for name, buffer in model._computed_buffers.items():  # transformers has emptied non-persistent buffers
            model.get_buffer(name).copy_(buffer)
        return (model, info) if output_loading_info else model

    def save_pretrained(self, save_directory: Any, *args: Any, push_to_hub: bool = False, **kwargs: Any) -> None:
        """Save the model and its tokenizer, which building the model needs; the processor saves the rest."""
        if push_to_hub:
            self.push_to_hub(kwargs.pop("repo_id", Path(save_directory).name), **kwargs)
        super().save_pretrained(save_directory, *args, **kwargs)
        apply_umask(Path(save_directory))
        self.llm.tokenizer.save_pretrained(save_directory)


def _cross_entropy(
    logits: Tensor, targets: Tensor, bounds: Sequence[int], num_items_in_batch: int | Tensor | None
) -> Tensor:
    """Return the next-token loss of a packed sequence; no sample predicts the first token of the next one."""
    targets = targets.roll(-1)
    targets[torch.tensor(bounds[1:], device=targets.device) - 1] = IGNORE_INDEX
    loss = F.cross_entropy(logits.float(), targets, reduction="sum")
    if num_items_in_batch is None:
        return loss / (targets != IGNORE_INDEX).sum().clamp(min=1)
    return loss / num_items_in_batch


def find_local_folder(name: Any, options: dict[str, Any]) -> Path:
    """Return the folder of that name, or the download of a repository; the options of the download are removed."""
    download = {key: options.pop(key) for key in DOWNLOAD_OPTIONS if key in options}
    if Path(name).is_dir():
        return Path(name)
    from huggingface_hub import snapshot_download

    return Path(snapshot_download(str(name), **download))


def _config_folder(config: OmniHumanConfig) -> Path:
    """Return the folder that a config was read from.

    Raises:
        ValueError: it was not read from a folder.
    """
    folder = Path(config.name_or_path or "")
    if not config.name_or_path or not folder.is_dir():
        raise ValueError(
            "an omnihuman model is built from a folder, which contains its tokenizers: use from_pretrained(folder)."
        )
    return folder
