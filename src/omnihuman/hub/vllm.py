"""The language model of a run as a folder for vLLM, and prompts for it: text and media as embeddings."""

import base64
import io
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import GenerationConfig

from omnihuman.hub.card import write_card
from omnihuman.hub.export import MAX_NEW_TOKENS, check_out, open_folder, read_tokenizer
from omnihuman.hub.huggingface import IGNORED_GENERATION_FIELDS
from omnihuman.inference.answerer import Answerer
from omnihuman.llm.causal import CausalLM
from omnihuman.training.model_folder import load_model

SAMPLING_FIELDS = ("do_sample", "temperature", "top_p", "top_k")
"""Fields of a generation config that greedy answers do not have."""


def export_llm(
    folder: Path, out: Path, *, max_shard_size: str = "5GB", dtype: str | None = None, repository: str | None = None
) -> None:
    """Write the language model of a model folder as transformers' own class, with LoRA merged.

    Args:
        folder: of a run or a converted checkpoint.
        out: a new or empty folder.
        max_shard_size: of one file of weights: ``5GB``.
        dtype: of the parameters; ``None`` does not change it.
        repository: on the hub to which the folder goes, for its card.

    Raises:
        ValueError: ``out`` is not empty, or ``folder`` is not a model folder.
    """
    check_out(out)
    config, model = load_model(folder, merge_lora=True, dtype=dtype)
    llm = model.llm
    with open_folder(out) as staging:
        read_tokenizer(str(config.model.llm.tokenizer), llm.template).save_pretrained(staging)
        llm.model.generation_config = build_generation_config(llm)
        llm.model.save_pretrained(staging, max_shard_size=max_shard_size)
        write_card(folder, config, model, staging, repository=repository, for_vllm=True)


def build_generation_config(llm: CausalLM) -> GenerationConfig:
    """Return the options of a language model's answers, for programs that read them from its folder."""
    options = llm.model.generation_config.to_diff_dict()
    for field in (*IGNORED_GENERATION_FIELDS, *SAMPLING_FIELDS):
        options.pop(field, None)
    options |= {"do_sample": False, "max_new_tokens": MAX_NEW_TOKENS}
    return GenerationConfig(**options, eos_token_id=llm.end_ids, pad_token_id=llm.end_id)


class PromptEmbedder:
    """Encoders, projectors and fusions of a run, without the layers of its language model: question -> embeddings.

    >>> embedder = PromptEmbedder.load("runs/7b/humanomni_stage3")  # doctest: +SKIP
    >>> prompt = {"prompt_embeds": embedder.embed("What is the main emotion?", video="clip.mp4")}  # doctest: +SKIP
    >>> vllm.LLM("llm", enable_prompt_embeds=True).generate(prompt, options)  # doctest: +SKIP

    Reference: "Prompt Embedding Inputs" in vLLM's documentation.

    Args:
        answerer: the model.
    """

    def __init__(self, answerer: Answerer) -> None:
        self.answerer = answerer

    @classmethod
    def load(cls, folder: str | Path, *, device: str | None = None, **options: Any) -> "PromptEmbedder":
        """Load a model folder; of the language model, only the embeddings of the text stay in memory.

        Args:
            folder: of a run or a converted checkpoint.
            device: ``None`` for the first GPU or the CPU.
            options: of ``Answerer.load``: ``dtype``, ``faces``, ``official``.

        Raises:
            ValueError: the folder has no complete run, or an option is invalid.
        """
        answerer = Answerer.load(Path(folder).expanduser(), device="cpu", merge_lora=True, **options)
        llm = answerer.model.llm
        llm.model = _TextEmbeddings(llm.model.get_input_embeddings())
        answerer.model.to(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        return cls(answerer)

    def embed(self, instruction: str, **question: Any) -> Float[Tensor, "L D"]:
        """Return the embeddings of a question, its chat template and its media, on the CPU.

        Args:
            instruction: the question.
            question: ``video``, ``image``, ``audio``, ``view``, ``start``, ``end`` of ``Answerer.answer``.

        Raises:
            ValueError: see ``Answerer.read_question``.
        """
        prompt = self.answerer.read_question(instruction, **question)
        return self.answerer.embed_prompts([prompt])[0].cpu()


class _TextEmbeddings(nn.Module):
    """In place of a language model that is elsewhere."""

    def __init__(self, embeddings: nn.Module) -> None:
        super().__init__()
        self.embeddings = embeddings

    def get_input_embeddings(self) -> nn.Module:
        return self.embeddings


def encode_embeds(embeds: Float[Tensor, "L D"]) -> str:
    """Return embeddings as ``prompt_embeds`` of a completion of vLLM's server: torch's format in base64."""
    buffer = io.BytesIO()
    torch.save(embeds.clone(), buffer)  # a part of a larger tensor would be saved with all of it
    return base64.b64encode(buffer.getvalue()).decode()
