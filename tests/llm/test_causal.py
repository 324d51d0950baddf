"""Packed samples equal single ones, and generation equals a plain greedy loop."""

import itertools
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AutoModelForCausalLM

from omnihuman.build import compose_part
from omnihuman.llm.causal import CausalLM
from omnihuman.types import IGNORE_INDEX

SIZES: dict[str, Any] = {
    "model_type": "qwen2",
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 64,
}
ARCHITECTURES = {
    "qwen2": {"num_hidden_layers": 2, "initializer_range": 0.3},
    "mistral": {
        "model_type": "mistral",
        "num_hidden_layers": 2,
        "initializer_range": 0.3,
        "sliding_window": None,
        "head_dim": 8,
    },
}
Parts = list[tuple[Tensor, Tensor]]
"""Embeddings and labels of each sample."""


def build_llm(tokenizer: str, **options: Any) -> CausalLM:
    return CausalLM(tokenizer, template=compose_part("llm/template", "chatml"), **options)


@pytest.fixture(params=ARCHITECTURES)
def llm(request: pytest.FixtureRequest, tokenizer_folder: str) -> CausalLM:
    torch.manual_seed(0)
    return build_llm(tokenizer_folder, architecture=SIZES | ARCHITECTURES[request.param])


def draw_samples(llm: CausalLM, *lengths: int) -> Parts:
    torch.manual_seed(1)
    samples = []
    for length in lengths:
        labels = torch.randint(5, 50, (1, length))
        labels[:, : length // 2] = IGNORE_INDEX
        samples.append((torch.randn(1, length, llm.hidden_size), labels))
    return samples


def pack(samples: Parts) -> tuple[Tensor, Tensor, Tensor, list[int]]:
    lengths = [embeds.shape[1] for embeds, _ in samples]
    positions = torch.cat([torch.arange(length) for length in lengths])[None]
    embeds, labels = zip(*samples, strict=True)
    return torch.cat(embeds, 1), torch.cat(labels, 1), positions, [0, *itertools.accumulate(lengths)]


def test_packed_loss_and_gradients_equal_single_samples(llm: CausalLM) -> None:
    samples = draw_samples(llm, 7, 12, 3)
    plain = AutoModelForCausalLM.from_config(llm.model.config, attn_implementation="eager")
    plain.load_state_dict(llm.model.state_dict())
    total, supervised = torch.zeros(()), 0
    for embeds, labels in samples:
        logits = plain(inputs_embeds=embeds, use_cache=False).logits[0, :-1]
        total = total + F.cross_entropy(logits, labels[0, 1:], ignore_index=IGNORE_INDEX, reduction="sum")
        supervised += int((labels[0, 1:] != IGNORE_INDEX).sum())
    total.backward()
    log_probs, positions = llm(*pack(samples))
    loss = -log_probs.sum()
    loss.backward()
    assert len(log_probs) == supervised
    labels = pack(samples)[1][0]
    assert (labels[positions] != IGNORE_INDEX).all()
    torch.testing.assert_close(loss, total, atol=1e-5, rtol=1e-5)
    for (name, parameter), expected in zip(llm.model.named_parameters(), plain.parameters(), strict=True):
        if expected.grad is not None:
            torch.testing.assert_close(parameter.grad, expected.grad, atol=1e-5, rtol=1e-5, msg=name)


def test_samples_do_not_attend_to_each_other(llm: CausalLM) -> None:
    first, second = draw_samples(llm, 7, 12)
    other = (torch.randn_like(first[0]), torch.full_like(first[1], IGNORE_INDEX))
    alone = llm(*pack([second]))[0]
    torch.testing.assert_close(llm(*pack([other, second]))[0], alone)


def test_logits_exist_only_before_supervised_tokens(llm: CausalLM) -> None:
    counts: list[int] = []
    llm.model.lm_head.register_forward_hook(lambda module, inputs, output: counts.append(output.shape[1]))
    log_probs, _ = llm(*pack(draw_samples(llm, 8, 6)))
    assert counts == [len(log_probs)]


def test_sequence_without_targets_has_zero_loss_and_gradients(llm: CausalLM) -> None:
    embeds = torch.randn(1, 4, llm.hidden_size, requires_grad=True)
    log_probs, _ = llm(embeds, torch.full((1, 4), IGNORE_INDEX), torch.arange(4)[None], [0, 4])
    log_probs.sum().backward()
    assert len(log_probs) == 0
    assert embeds.grad is not None and not embeds.grad.any()
    assert all(p.grad is not None for p in llm.model.lm_head.parameters())


def test_batched_generation_equals_single_samples(llm: CausalLM) -> None:
    embeds, _, _, bounds = pack(draw_samples(llm, 4, 9, 6))
    together = llm.generate(embeds, bounds, max_new_tokens=6)
    alone = []
    for start, end in itertools.pairwise(bounds):
        alone += llm.generate(embeds[:, start:end], [0, end - start], max_new_tokens=6)
    assert together == alone and len(set(together)) > 1
    llm(*pack(draw_samples(llm, 4, 3)))  # packed attention is restored


def test_packed_attention_without_bounds_raises(llm: CausalLM) -> None:
    with pytest.raises(ValueError, match=r"segments .*no attention_mask"):
        llm.model(inputs_embeds=torch.randn(1, 4, 32), use_cache=False)


def test_tokenizer_larger_than_the_vocabulary_raises(tokenizer_folder: str) -> None:
    with pytest.raises(ValueError, match=r"llm: tokenizer .*vocabulary .*\b8\b"):
        build_llm(tokenizer_folder, architecture=SIZES | {"vocab_size": 8})


def test_missing_weights_and_architecture_raise(tokenizer_folder: str) -> None:
    with pytest.raises(ValueError, match=r"set `weights` .* or `architecture`"):
        build_llm(tokenizer_folder)


def test_lora_adds_parameters_and_starts_as_the_same_model(tokenizer_folder: str) -> None:
    torch.manual_seed(0)
    plain = build_llm(tokenizer_folder, architecture=SIZES)
    torch.manual_seed(0)
    adapted = build_llm(tokenizer_folder, architecture=SIZES, lora={"r": 2, "target_modules": "all-linear"})
    assert [name for name, _ in adapted.named_parameters() if "lora_" in name]
    samples = draw_samples(plain, 5)
    adapted.eval()
    torch.testing.assert_close(adapted(*pack(samples))[0], plain(*pack(samples))[0])


def test_merged_adapters_leave_the_same_model(tokenizer_folder: str) -> None:
    lora = {"r": 2, "lora_alpha": 8, "target_modules": "all-linear"}
    llm = build_llm(tokenizer_folder, architecture=SIZES, lora=lora).eval()
    plain_names = {name for name, _ in build_llm(tokenizer_folder, architecture=SIZES).named_parameters()}
    samples = draw_samples(llm, 5)
    with torch.no_grad():
        initial = llm(*pack(samples))[0]
        for name, parameter in llm.named_parameters():
            if "lora_B" in name:  # starts at zero
                parameter.normal_()
        trained = llm(*pack(samples))[0]
        assert not torch.allclose(trained, initial)
        llm.merge_lora()
        torch.testing.assert_close(llm(*pack(samples))[0], trained, rtol=1e-5, atol=1e-5)
    assert {name for name, _ in llm.named_parameters()} == plain_names


def test_generation_config_is_used(tokenizer_folder: str) -> None:
    torch.manual_seed(0)
    architecture = SIZES | {"initializer_range": 0.3}
    plain = build_llm(tokenizer_folder, architecture=architecture)
    end_of_text = plain.tokenizer.convert_tokens_to_ids("<|endoftext|>")
    # 77 is no special token
    generation = {"repetition_penalty": 1.5, "eos_token_id": [plain.end_id, end_of_text, 77]}
    penalized = build_llm(tokenizer_folder, architecture=architecture, generation=generation)
    penalized.load_state_dict(plain.state_dict())
    assert (plain.end_ids, penalized.end_ids) == ([plain.end_id], [plain.end_id, end_of_text])
    embeds = torch.randn(1, 6, 32)
    ids = plain.generate_ids(embeds, [0, 6], max_new_tokens=24)[0].tolist()
    penalized_ids = penalized.generate_ids(embeds, [0, 6], max_new_tokens=24)[0].tolist()
    assert len(set(penalized_ids)) > len(set(ids)) and ids[0] == penalized_ids[0]
