"""Any causal language model of transformers, fed with embeddings of packed samples."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from omnihuman.llm import packed
from omnihuman.types import IGNORE_INDEX, TEMPLATES


class CausalLM(nn.Module):
    """Embeddings of a packed row ``[1 L D]`` -> summed loss over the supervised tokens, or generated texts.

    Reference: the decoder of HumanOmni is Qwen2.5; its trainer pads a batch where this packs it.

    Args:
        tokenizer: folder or hub id of a tokenizer with the template's marks.
        template: how the model is spoken to, ``chatml`` or ``mistral``.
        system: the system text, ``None`` for none.
        weights: folder or hub id of a model; ``null`` builds ``architecture`` at random.
        architecture: fields of the model's own configuration, ``model_type`` among them.
        lora: fields of a peft ``LoraConfig``; ``null`` leaves the model as it is.
        activation_checkpointing: recompute every block in the backward pass instead of keeping its activations.
        dtype: of the parameters, ``float32`` or ``bfloat16``.
        generation: fields of its own generation config, such as ``repetition_penalty``; ``null`` leaves what comes with
            the weights.

    Raises:
        ValueError: neither weights nor an architecture is given, or the vocabulary is too small for the tokenizer.
    """

    def __init__(
        self,
        tokenizer: str,
        *,
        template: str = "chatml",
        system: str | None = None,
        weights: str | None = None,
        architecture: Mapping[str, Any] | None = None,
        lora: Mapping[str, Any] | None = None,
        activation_checkpointing: bool = False,
        dtype: str = "float32",
        generation: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        packed.register()
        self.tokenizer = AutoTokenizer.from_pretrained(tokenizer)
        self.chat: dict[str, Any] = {"template": template, "system": system}
        options = {"attn_implementation": packed.NAME, "dtype": getattr(torch, dtype)}
        if weights is not None:
            self.model = AutoModelForCausalLM.from_pretrained(weights, **options)
        elif architecture is not None:
            config = AutoConfig.for_model(**{"vocab_size": len(self.tokenizer)} | dict(architecture))
            self.model = AutoModelForCausalLM.from_config(config, **options)
        else:
            raise ValueError("llm: give `weights` (a folder or hub id) or `architecture` (to build it at random).")
        if generation is not None:
            self.model.generation_config = GenerationConfig(**generation)
        self.hidden_size: int = self.model.config.hidden_size
        if len(self.tokenizer) > (vocabulary := self.model.get_input_embeddings().num_embeddings):
            raise ValueError(
                f"llm: tokenizer {tokenizer!r} has {len(self.tokenizer)} entries, the model only {vocabulary}: "
                "they do not belong together."
            )
        if lora is not None:
            from peft import LoraConfig, inject_adapter_in_model

            self.model = inject_adapter_in_model(LoraConfig(**lora), self.model)
        if activation_checkpointing:
            enable = getattr(self.model, "activation_checkpointing_enable", None)  # its name since transformers 5.23
            (enable or self.model.gradient_checkpointing_enable)()

    @property
    def end_id(self) -> int:
        """Id of the mark that ends an answer."""
        token = self.tokenizer.convert_tokens_to_ids(TEMPLATES[self.chat["template"]].end)
        assert isinstance(token, int)
        return token

    @property
    def end_ids(self) -> list[int]:
        """Ids at which an answer ends: the template's mark, and other marks that the weights' own config names."""
        said = self.model.generation_config.eos_token_id
        others = said if isinstance(said, list) else [said]
        return [self.end_id, *sorted({*others} & {*self.tokenizer.all_special_ids} - {self.end_id})]

    def embed(self, input_ids: Int[Tensor, "1 L"]) -> Float[Tensor, "1 L D"]:
        """Embeddings of the text; a slot's id gives a placeholder that ``splice`` overwrites."""
        embedded = self.model.get_input_embeddings()(input_ids.clamp(min=0))
        assert isinstance(embedded, Tensor)
        return embedded

    def forward(
        self,
        embeds: Float[Tensor, "1 L D"],
        labels: Int[Tensor, "1 L"],
        position_ids: Int[Tensor, "1 L"],
        bounds: Sequence[int],
    ) -> tuple[Float[Tensor, ""], int]:
        """Cross-entropy summed over the supervised tokens, and their number.

        Logits exist only for positions whose next token is supervised; the first token of a sample never is.
        """
        following = labels[0].roll(-1)
        following[torch.tensor(bounds[1:], device=labels.device) - 1] = IGNORE_INDEX
        places = (following != IGNORE_INDEX).nonzero().squeeze(-1)
        logits = self.model(
            inputs_embeds=embeds,
            position_ids=position_ids,
            use_cache=False,
            logits_to_keep=places,
            bounds=tuple(bounds),
        ).logits
        return F.cross_entropy(logits[0].float(), following[places], reduction="sum"), len(places)

    def generate(self, embeds: Float[Tensor, "1 L D"], bounds: Sequence[int], **options: Any) -> list[str]:
        """The answers to the packed prompts, one per sample; greedy unless ``options`` (of transformers) say else."""
        return self.texts(self.answer_ids(embeds, bounds, **options))

    def texts(self, ids: Any) -> list[str]:
        """Generated ids as answers."""
        return [text.strip() for text in self.tokenizer.batch_decode(ids, skip_special_tokens=True)]

    @torch.no_grad()
    def answer_ids(self, embeds: Float[Tensor, "1 L D"], bounds: Sequence[int], **options: Any) -> Int[Tensor, "B new"]:
        """The ids that follow the packed prompts, as transformers' ``generate`` returns them."""
        rows = [embeds[0, start:end] for start, end in itertools.pairwise(bounds)]
        longest = max(len(row) for row in rows)
        padded = torch.stack([F.pad(row, (0, 0, longest - len(row), 0)) for row in rows])
        starts = torch.tensor([longest - len(row) for row in rows], device=embeds.device)
        mask = torch.arange(longest, device=embeds.device) >= starts[:, None]
        ends = {"eos_token_id": self.end_ids, "pad_token_id": self.end_id}
        options = {"do_sample": False, "max_new_tokens": 64, "use_cache": True} | ends | options
        with self._ordinary_attention():
            ids: Tensor = self.model.generate(
                inputs_embeds=padded,
                attention_mask=mask.long(),
                **options,
            )
        return ids

    @torch.no_grad()
    def log_probs(
        self, embeds: Float[Tensor, "1 L D"], bounds: Sequence[int], options: Sequence[Sequence[str]]
    ) -> list[tuple[float, ...]]:
        """The log-probability of each option as the beginning of the answer to its prompt."""
        prompts = [embeds[0, start:end] for start, end in itertools.pairwise(bounds)]
        found = []
        for prompt, texts in zip(prompts, options, strict=True):
            values = []
            for text in texts:
                ids = torch.tensor(self.tokenizer.encode(text, add_special_tokens=False), device=embeds.device)
                row = torch.cat([prompt, self.embed(ids[None])[0]])
                places = torch.arange(len(row), device=embeds.device)
                logits = self.model(
                    inputs_embeds=row[None],
                    position_ids=places[None],
                    use_cache=False,
                    logits_to_keep=places[len(prompt) - 1 : -1],
                    bounds=(0, len(row)),
                ).logits
                values.append(float(logits[0].float().log_softmax(dim=-1).gather(1, ids[:, None]).sum()))
            found.append(tuple(values))
        return found

    def merge_lora(self) -> None:
        """Fold the adapters into the weights that they adapt: the same model at the price of none."""
        from peft.tuners.lora import LoraLayer

        adapted = [(name, part) for name, part in self.model.named_modules() if isinstance(part, LoraLayer)]
        for name, part in adapted:
            part.merge(safe_merge=True)
            self.model.set_submodule(name, part.get_base_layer())

    @contextmanager
    def _ordinary_attention(self) -> Iterator[None]:
        """Generation works on a padded batch with a cache, which packed attention refuses."""
        self.model.set_attn_implementation("sdpa")
        training = self.model.training
        self.model.eval()
        try:
            yield
        finally:
            self.model.set_attn_implementation(packed.NAME)
            self.model.train(training)
