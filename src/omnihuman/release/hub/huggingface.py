"""The model as transformers knows models: built from a released folder, called with plain tensors."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from jaxtyping import Int
from torch import Tensor
from transformers.generation import GenerationConfig, GenerationMixin
from transformers.modeling_outputs import CausalLMOutput
from transformers.modeling_utils import PreTrainedModel

from omnihuman.release.hub.configuration import OmniHumanConfig
from omnihuman.types import IGNORE_INDEX, SLOTS, Batch, Signal

if TYPE_CHECKING:
    from omnihuman.model.omni import OmniModel

DOWNLOAD = ("cache_dir", "force_download", "local_files_only", "token", "revision")
"""Options of ``from_pretrained`` that say how a folder comes from the hub."""

OWN = ("eos_token_id", "pad_token_id", "transformers_version", "_from_model_config")
"""Fields of a generation config that the language model knows by itself, or that say nothing about generation."""


class OmniHumanForCausalLM(PreTrainedModel, GenerationMixin):
    """What ``OmniHumanProcessor`` gives -> loss and logits, or the ids of answers.

    Its parameters have the names that they have in ``OmniModel``.
    Differs from other models of transformers: ``generate`` returns the new ids only, as the places of media in the
    prompt have no ids that a tokenizer knows; and ``forward`` has no cache, which ``generate`` has.

    Args:
        config: of a released folder.
        omni: the model, where it is there already; its weights are taken as they are.

    Raises:
        ValueError: the graph in the config is not one of ours, or the config comes from no folder.
    """

    config_class = OmniHumanConfig
    main_input_name = "input_ids"
    supports_gradient_checkpointing = True
    _supports_sdpa = True

    def __init__(self, config: OmniHumanConfig, omni: "OmniModel | None" = None) -> None:
        super().__init__(config)
        if omni is None:
            from omnihuman.build import build  # here: what it imports imports the Auto class that registers us
            from omnihuman.release.hub.graph import opened

            graph = opened(config.graph, _folder(config))
            graph["llm"]["dtype"] = str(torch.get_default_dtype()).removeprefix(
                "torch."
            )  # as from_pretrained has set it
            omni = build(graph)
        self._omni = (omni,)  # its parts hang below this module, under the names that they have there
        for name, part in omni.named_children():
            self.add_module(name, part)
        inner: PreTrainedModel = omni.llm.model
        self._tied_weights_keys = {f"llm.model.{a}": f"llm.model.{b}" for a, b in inner.all_tied_weights_keys.items()}
        config.tie_word_embeddings = bool(self._tied_weights_keys)
        self._keep_in_fp32_modules = inner._keep_in_fp32_modules
        self.post_init()
        self._computed = {name: buffer.clone() for name, buffer in self.named_non_persistent_buffers()}

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
        """Logits ``[B L V]``, 0 where the mask is, and the mean cross-entropy of the labelled tokens.

        Args:
            input_ids: padded on either side; places of media hold the ids of ``SLOTS``.
            attention_mask: 1 where a token is real; ``None``: everywhere.
            labels: the id AT each position, -100 where none is wanted.
            num_items_in_batch: divide the summed loss by this number of tokens instead of the labels' own.
            signals: ``<encoder>_values`` and ``<encoder>_mask`` of every encoder.
        """
        from omnihuman.model.splice import shortened

        signals = {key: value for key, value in signals.items() if key not in ("return_dict", "use_cache")}
        batch, places = self._batch(input_ids, attention_mask, labels, signals)
        whole = len(batch.signals) == len(self.encoders)  # every part runs, as ranks that train together need it
        slots = {slot for slot, number in SLOTS.items() if bool((batch.input_ids == number).any())}
        embeds, kept, _ = self.omni.embedded(batch, None if whole else self.omni.parts_for(slots))
        bounds, positions, (embeds, following) = shortened(kept, batch.bounds.tolist(), embeds, batch.labels)
        logits = self.llm.model(
            inputs_embeds=embeds, position_ids=positions, use_cache=False, bounds=tuple(bounds)
        ).logits[0]
        loss = None
        if labels is not None:
            following = following[0].roll(-1)
            following[torch.tensor(bounds[1:], device=following.device) - 1] = IGNORE_INDEX
            loss = F.cross_entropy(logits.float(), following, reduction="sum")
            count = (following != IGNORE_INDEX).sum().clamp(min=1)
            loss = loss / (count if num_items_in_batch is None else num_items_in_batch)
        spread = logits.new_zeros(input_ids.numel(), logits.shape[-1]).index_copy(0, places[kept], logits)
        return CausalLMOutput(loss=loss, logits=spread.view(*input_ids.shape, -1))

    @torch.no_grad()
    def generate(
        self,
        input_ids: Int[Tensor, "B L"],
        generation_config: GenerationConfig | None = None,
        *,
        attention_mask: Int[Tensor, "B L"] | None = None,
        **options: Any,
    ) -> Any:
        """The ids of the answers ``[B new]``, without the prompts; only the parts that these need are run.

        Without signals, which the processor gives for words alone as well, it is called as any language model, by
        transformers' pipelines for one: then the prompts stand before the answers, as these expect it.

        Args:
            input_ids: the prompts, as for ``forward``.
            generation_config: in the place of the folder's.
            attention_mask: as for ``forward``.
            options: signals, as for ``forward``, and what transformers' ``generate`` takes.
        """
        names = self._signal_names()
        signals = {key: options.pop(key) for key in list(options) if key in names}
        said = (generation_config or self.generation_config).to_diff_dict()
        how = {key: value for key, value in said.items() if key not in OWN}
        batch, _ = self._batch(input_ids, attention_mask, None, signals)
        made: Any = self.omni.answer_ids(batch, frugal=True, **how | options)
        if signals:
            return made
        new = made if isinstance(made, Tensor) else made.sequences
        ids = torch.cat([input_ids.repeat_interleave(len(new) // len(input_ids), dim=0), new], dim=1)
        if isinstance(made, Tensor):
            return ids
        made.sequences = ids
        return made

    def _signal_names(self) -> list[str]:
        return [f"{name}_{what}" for name in self.encoders for what in ("values", "mask")]

    def _batch(
        self, input_ids: Tensor, attention_mask: Tensor | None, labels: Tensor | None, signals: Mapping[str, Tensor]
    ) -> tuple[Batch, Int[Tensor, " L"]]:
        """The padded rows as one packed row, and the places in the rows that its positions have.

        Raises:
            ValueError: there is no encoder for a signal, or a slot in the text has no signal.
        """
        if foreign := sorted(signals.keys() - {*self._signal_names()}):
            raise ValueError(f"the model takes no {', '.join(foreign)}: its signals are {self._signal_names()}.")
        lacks = {slot for slot, number in SLOTS.items() if not signals and bool((input_ids == number).any())}
        if lacks:
            raise ValueError(
                f"the ids have places of {' and '.join(sorted(lacks))}: call with all that the processor gives."
            )
        real = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        lengths, places = real.sum(dim=1), real.flatten().nonzero().squeeze(-1)
        labels = torch.full_like(input_ids, IGNORE_INDEX) if labels is None else labels
        batch = Batch(
            signals={
                name: Signal(signals[f"{name}_values"], signals[f"{name}_mask"].bool(), part.reads == "faces")
                for name, part in self.encoders.items()
                if f"{name}_values" in signals
            },
            input_ids=input_ids.flatten()[places][None],
            labels=labels.flatten()[places][None],
            position_ids=torch.cat([torch.arange(length, device=real.device) for length in lengths.tolist()])[None],
            bounds=F.pad(lengths.cumsum(0), (1, 0)),
            step_targets=0,
        )
        return batch, places

    def train(self, mode: bool = True) -> "OmniHumanForCausalLM":
        """As usual, but what is frozen stays in eval mode."""
        super().train(mode)
        self.omni.train(mode)
        return self

    def get_input_embeddings(self) -> Any:
        """Of the language model."""
        return self.llm.model.get_input_embeddings()

    def get_output_embeddings(self) -> Any:
        """Of the language model."""
        return self.llm.model.get_output_embeddings()

    def init_weights(self) -> None:
        """Nothing but ties: every part has drawn its weights when it was built."""
        self.tie_weights()

    def _init_weights(self, module: Any) -> None:
        pass

    @classmethod
    def get_init_context(cls, *args: Any, **kwargs: Any) -> list[Any]:
        """Parameters are built without memory, as in every model; buffers are computed, which no weights hold."""
        from accelerate import init_empty_weights

        contexts = super().get_init_context(*args, **kwargs)
        meta = torch.device("meta")
        return [init_empty_weights(include_buffers=False) if context == meta else context for context in contexts]

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: Any, *args: Any, output_loading_info: bool = False, **kwargs: Any
    ) -> Any:
        """The model of a released folder, or of a repository on the hub that holds one.

        Raises:
            ValueError: the weights lack parameters, or hold others; or the graph is not one of ours.
        """
        folder = local_folder(pretrained_model_name_or_path, kwargs)
        model, info = super().from_pretrained(folder, *args, output_loading_info=True, **kwargs)
        wrong = {kind: sorted(map(str, info[f"{kind}_keys"])) for kind in ("missing", "unexpected", "mismatched")}
        if found := [f"{len(keys)} {kind} (such as {keys[0]})" for kind, keys in wrong.items() if keys]:
            raise ValueError(f"{folder}: the weights do not fit config.json: {', '.join(found)}.")
        for name, computed in model._computed.items():  # which transformers has emptied
            model.get_buffer(name).copy_(computed)
        return (model, info) if output_loading_info else model

    def save_pretrained(self, save_directory: Any, *args: Any, push_to_hub: bool = False, **kwargs: Any) -> None:
        """As usual, and the tokenizer, without which the model is not built; the processor saves the rest."""
        if push_to_hub:
            self.push_to_hub(kwargs.pop("repo_id", Path(save_directory).name), **kwargs)
        super().save_pretrained(save_directory, *args, **kwargs)
        self.llm.tokenizer.save_pretrained(save_directory)


def local_folder(name: Any, options: dict[str, Any]) -> Path:
    """A folder as it is; a repository of the hub downloaded, by those of the options that say how."""
    download = {key: options.pop(key) for key in DOWNLOAD if key in options}
    if Path(name).is_dir():
        return Path(name)
    from huggingface_hub import snapshot_download

    return Path(snapshot_download(str(name), **download))


def _folder(config: OmniHumanConfig) -> Path:
    """Where a config was read.

    Raises:
        ValueError: nowhere.
    """
    folder = Path(config.name_or_path or "")
    if not config.name_or_path or not folder.is_dir():
        raise ValueError(
            "an omnihuman model is built from a folder, which holds its tokenizers: use from_pretrained(folder)."
        )
    return folder
