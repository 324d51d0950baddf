"""Any causal language model of transformers, on embeddings of packed samples."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from omnihuman.llm import packed
from omnihuman.llm.blocks import check_share, set_blocks
from omnihuman.nn.deferred import load_pretrained
from omnihuman.nn.finite import check_parameters
from omnihuman.template import build_template
from omnihuman.types import IGNORE_INDEX

UNSAFE_FIELDS = ("auto_map", "attn_implementation", "experts_implementation", "quantization_config", "kernel_config")
"""Fields of a language model's configuration that refer to code or files elsewhere."""

UNSAFE_LORA_FIELDS = ("auto_mapping", "megatron_config", "megatron_core")
"""Fields of peft's ``LoraConfig`` that name modules to import."""


def check_fields(location: str, fields: Mapping[str, Any], unsafe: Sequence[str]) -> None:
    """Check that a configuration, which may come from a folder of somebody else, has none of the unsafe fields.

    Raises:
        ValueError: it has one.
    """
    present = sorted(name for name in unsafe if fields.get(name) is not None)
    if present:
        raise ValueError(f"{location} has {', '.join(present)}, which no model of omnihuman needs; remove the keys.")


class CausalLM(nn.Module):
    """Embeddings of a packed sequence ``[1 L D]`` -> log-probabilities of its supervised tokens, or generated texts.

    Reference: the decoder of HumanOmni is Qwen2.5; its trainer pads batches, while samples are packed here.

    Args:
        tokenizer: folder or hub id of a tokenizer with the special tokens of the template.
        template: keys of a chat template, as in ``conf/llm/template/chatml.yaml``, or ``{name: tokenizer}`` for the
            tokenizer's own; ``system`` is the system prompt.
        weights: folder or hub id of a model; ``null`` initializes ``architecture`` at random.
        architecture: fields of transformers' config of the model, including ``model_type``.
        lora: fields of a peft ``LoraConfig``; ``null`` adds no adapters.
        activation_checkpointing: recompute blocks in the backward pass instead of storing their activations: all, or
            a share of them, such as 0.5; fewer need more memory and less time. ``auto`` is set by a training, see
            ``recompute``.
        compile: backend of ``torch.compile`` for the blocks, such as ``inductor``; ``null`` compiles nothing.
        dtype: of the parameters, ``float32`` or ``bfloat16``.
        generation: fields of transformers' generation config, such as ``repetition_penalty``; ``null`` uses that of the
            weights.

    Raises:
        ValueError: neither weights nor an architecture is set, the weights are not finite, the vocabulary is too small
            for the tokenizer, the template, the share or the backend is invalid.
    """

    def __init__(
        self,
        tokenizer: str,
        *,
        template: Mapping[str, Any],
        weights: str | None = None,
        architecture: Mapping[str, Any] | None = None,
        lora: Mapping[str, Any] | None = None,
        activation_checkpointing: Any = False,
        compile: str | None = None,
        dtype: str = "float32",
        generation: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        packed.register()
        check_fields("llm.architecture", architecture or {}, UNSAFE_FIELDS)
        check_fields("llm.lora", lora or {}, UNSAFE_LORA_FIELDS)
        self.tokenizer = AutoTokenizer.from_pretrained(tokenizer, trust_remote_code=False)
        self.template = build_template(template, self.tokenizer)
        options = {"attn_implementation": packed.NAME, "dtype": getattr(torch, dtype), "trust_remote_code": False}
        if weights is not None:
            self.model = load_pretrained(AutoModelForCausalLM.from_pretrained, weights, **options)
            check_parameters(weights, self.model)
        elif architecture is not None:
            config = AutoConfig.for_model(**{"vocab_size": len(self.tokenizer)} | dict(architecture))
            self.model = AutoModelForCausalLM.from_config(config, **options)
        else:
            raise ValueError("llm: set `weights` (folder or hub id) or `architecture` (random initialization).")
        if generation is not None:
            self.model.generation_config = GenerationConfig(**generation)
        self.hidden_size: int = self.model.config.hidden_size
        vocab_size = self.model.get_input_embeddings().num_embeddings
        if len(self.tokenizer) > vocab_size:
            raise ValueError(
                f"llm: tokenizer {tokenizer!r} has {len(self.tokenizer)} entries, but the model's vocabulary only "
                f"{vocab_size}; choose the tokenizer of the model."
            )
        if lora is not None:
            from peft import LoraConfig, inject_adapter_in_model

            self.model = inject_adapter_in_model(LoraConfig(**lora), self.model)
        self.backend = compile
        self.recompute(check_share(activation_checkpointing))

    def recompute(self, share: float) -> None:
        """Recompute a share of the blocks in the backward pass."""
        set_blocks(self.model, share, self.backend)

    @property
    def end_id(self) -> int:
        """Id of the template's end-of-turn token."""
        token = self.tokenizer.convert_tokens_to_ids(self.template.end_of_turn)
        assert isinstance(token, int)
        return token

    @property
    def end_ids(self) -> list[int]:
        """Ids that end an answer: the end-of-turn token, and the end tokens of the weights' generation config.

        Ids that are no special tokens of this tokenizer are ignored: the weights may come with another vocabulary.
        """
        configured = self.model.generation_config.eos_token_id
        if not isinstance(configured, list):
            configured = [configured]
        special = {*configured} & {*self.tokenizer.all_special_ids}
        return [self.end_id, *sorted(special - {self.end_id})]

    def embed(self, input_ids: Int[Tensor, "1 L"]) -> Float[Tensor, "1 L D"]:
        """Return the embeddings of the text; those of slot ids are placeholders that ``splice`` overwrites."""
        embedded = self.model.get_input_embeddings()(input_ids.clamp(min=0))
        assert isinstance(embedded, Tensor)
        return embedded

    def forward(
        self,
        embeds: Float[Tensor, "1 L D"],
        labels: Int[Tensor, "1 L"],
        position_ids: Int[Tensor, "1 L"],
        bounds: Sequence[int],
    ) -> tuple[Float[Tensor, "S"], Int[Tensor, "S"]]:
        """Return the log-probabilities of the S supervised tokens, and their positions in the packed sequence.

        Logits are computed only at positions whose next token is supervised: with a vocabulary of 152k they need most
        of the memory otherwise. The first token of a sample is never supervised.
        """
        segments = packed.Segments(bounds, labels.device)
        next_labels = labels[0].roll(-1)
        # after the roll, the last position of a sample has the first label of the next sample
        next_labels[segments.positions[1:] - 1] = IGNORE_INDEX
        supervised = (next_labels != IGNORE_INDEX).nonzero().squeeze(-1)
        logits = self.model(
            inputs_embeds=embeds,
            position_ids=position_ids,
            use_cache=False,
            logits_to_keep=supervised,
            segments=segments,
        ).logits
        log_probs = -F.cross_entropy(_at_least_float32(logits[0]), next_labels[supervised], reduction="none")
        return log_probs, supervised + 1

    def generate(self, embeds: Float[Tensor, "1 L D"], bounds: Sequence[int], **generation_kwargs: Any) -> list[str]:
        """Return the answers to the packed prompts, one per sample; greedy by default."""
        return self.decode(self.generate_ids(embeds, bounds, **generation_kwargs))

    def decode(self, ids: Any) -> list[str]:
        """Decode generated ids, one text per sequence, without special tokens."""
        return [text.strip() for text in self.tokenizer.batch_decode(ids, skip_special_tokens=True)]

    @torch.no_grad()
    def generate_ids(
        self, embeds: Float[Tensor, "1 L D"], bounds: Sequence[int], **generation_kwargs: Any
    ) -> Int[Tensor, "B new"]:
        """Return the ids that follow the packed prompts, as transformers' ``generate`` does."""
        padded, mask = _pad_left(embeds, bounds)
        defaults = {
            "do_sample": False,
            "max_new_tokens": 64,
            "use_cache": True,
            "eos_token_id": self.end_ids,
            "pad_token_id": self.end_id,
        }
        with self._padded_attention():
            ids: Tensor = self.model.generate(
                inputs_embeds=padded, attention_mask=mask.long(), **defaults | generation_kwargs
            )
        return ids

    @torch.no_grad()
    def compute_log_probs(
        self, embeds: Float[Tensor, "1 L D"], bounds: Sequence[int], options: Sequence[Sequence[str]]
    ) -> list[tuple[float, ...]]:
        """Return the log-probability of each option as the beginning of the answer to its prompt."""
        log_probs = []
        for (start, end), texts in zip(itertools.pairwise(bounds), options, strict=True):
            prompt = embeds[0, start:end]
            log_probs.append(tuple(self._compute_log_prob(prompt, text) for text in texts))
        return log_probs

    def _compute_log_prob(self, prompt: Float[Tensor, "L D"], text: str) -> float:
        ids = torch.tensor(self.tokenizer.encode(text, add_special_tokens=False), device=prompt.device)
        sequence = torch.cat([prompt, self.embed(ids[None])[0]])
        positions = torch.arange(len(sequence), device=prompt.device)
        logits = self.model(
            inputs_embeds=sequence[None],
            position_ids=positions[None],
            use_cache=False,
            logits_to_keep=positions[len(prompt) - 1 : -1],
            segments=packed.Segments((0, len(sequence)), sequence.device),
        ).logits
        return float(_at_least_float32(logits[0]).log_softmax(dim=-1).gather(1, ids[:, None]).sum())

    def merge_lora(self) -> None:
        """Merge the adapters into the weights that they adapt, so that they cost nothing in inference."""
        from peft.tuners.lora import LoraLayer

        adapted = [(name, part) for name, part in self.model.named_modules() if isinstance(part, LoraLayer)]
        for name, part in adapted:
            part.merge(safe_merge=True)
            self.model.set_submodule(name, part.get_base_layer())

    @contextmanager
    def _padded_attention(self) -> Iterator[None]:
        """Switch to transformers' attention: generation uses a padded batch and a cache, which packing does not."""
        self.model.set_attn_implementation("sdpa")
        training = self.model.training
        self.model.eval()
        try:
            yield
        finally:
            self.model.set_attn_implementation(packed.NAME)
            self.model.train(training)


def _at_least_float32(tensor: Tensor) -> Tensor:
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def _pad_left(
    embeds: Float[Tensor, "1 L D"], bounds: Sequence[int]
) -> tuple[Float[Tensor, "B P D"], Bool[Tensor, "B P"]]:
    """Unpack samples into a batch, padded on the left, so that every prompt ends where generation starts."""
    samples = [embeds[0, start:end] for start, end in itertools.pairwise(bounds)]
    longest = max(map(len, samples))
    padded = torch.stack([F.pad(sample, (0, 0, longest - len(sample), 0)) for sample in samples])
    starts = torch.tensor([longest - len(sample) for sample in samples], device=embeds.device)
    return padded, torch.arange(longest, device=embeds.device) >= starts[:, None]
