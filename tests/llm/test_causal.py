"""Packed equals unpacked; generation equals a plain greedy loop."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from transformers import AutoModelForCausalLM

from omnihuman.llm.causal import CausalLM
from omnihuman.types import IGNORE_INDEX

ARCHITECTURES = {
    "qwen2": {"num_key_value_heads": 2},
    "mistral": {"num_key_value_heads": 2, "sliding_window": None, "head_dim": 8},
}


@pytest.fixture(params=ARCHITECTURES)
def llm(request: pytest.FixtureRequest, tokenizer_folder: str) -> CausalLM:
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    return CausalLM(
        tokenizer_folder,
        architecture={"model_type": request.param, "initializer_range": 0.3, **sizes, **ARCHITECTURES[request.param]},
    )


def samples(llm: CausalLM, lengths: tuple[int, ...]) -> list[tuple[torch.Tensor, torch.Tensor]]:
    torch.manual_seed(1)
    made = []
    for length in lengths:
        labels = torch.randint(5, 50, (1, length))
        labels[:, : length // 2] = IGNORE_INDEX
        made.append((torch.randn(1, length, llm.hidden_size), labels))
    return made


def pack(parts: list[tuple[torch.Tensor, torch.Tensor]]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, list[int]]:
    bounds = [0]
    for embeds, _ in parts:
        bounds.append(bounds[-1] + embeds.shape[1])
    positions = torch.cat([torch.arange(embeds.shape[1]) for embeds, _ in parts])[None]
    return torch.cat([e for e, _ in parts], 1), torch.cat([y for _, y in parts], 1), positions, bounds


def test_packed_loss_and_gradients_equal_the_plain_model_one_by_one(llm: CausalLM) -> None:
    parts = samples(llm, (7, 12, 3))
    plain = AutoModelForCausalLM.from_config(llm.model.config, attn_implementation="eager")
    plain.load_state_dict(llm.model.state_dict())
    total = torch.zeros(())
    for embeds, labels in parts:
        logits = plain(inputs_embeds=embeds, use_cache=False).logits[0, :-1]
        total = total + F.cross_entropy(logits, labels[0, 1:], ignore_index=IGNORE_INDEX, reduction="sum")
    total.backward()
    loss, targets = llm(*pack(parts))
    loss.backward()
    assert targets == sum(int((labels[0, 1:] != IGNORE_INDEX).sum()) for _, labels in parts)
    torch.testing.assert_close(loss, total, atol=1e-5, rtol=1e-5)
    for (name, ours), (_, theirs) in zip(llm.model.named_parameters(), plain.named_parameters(), strict=True):
        if theirs.grad is not None:
            torch.testing.assert_close(ours.grad, theirs.grad, atol=1e-5, rtol=1e-5, msg=name)


def test_a_sample_does_not_see_its_neighbours(llm: CausalLM) -> None:
    parts = samples(llm, (7, 12))
    other = [(torch.randn_like(parts[0][0]), torch.full_like(parts[0][1], IGNORE_INDEX)), parts[1]]
    alone, _ = llm(*pack(parts[1:]))
    torch.testing.assert_close(llm(*pack(other))[0], alone)


def test_logits_exist_only_where_the_next_token_is_supervised(llm: CausalLM) -> None:
    seen: list[int] = []
    llm.model.lm_head.register_forward_hook(lambda module, inputs, output: seen.append(output.shape[1]))
    _, targets = llm(*pack(samples(llm, (8, 6))))
    assert seen == [targets]


def test_a_row_without_targets_has_a_zero_loss_and_zero_gradients(llm: CausalLM) -> None:
    embeds = torch.randn(1, 4, llm.hidden_size, requires_grad=True)
    loss, targets = llm(embeds, torch.full((1, 4), IGNORE_INDEX), torch.arange(4)[None], [0, 4])
    loss.backward()
    assert (float(loss.detach()), targets) == (0.0, 0)
    assert embeds.grad is not None and not embeds.grad.any()
    assert all(p.grad is not None for p in llm.model.lm_head.parameters())


def test_batched_generation_equals_one_by_one(llm: CausalLM) -> None:
    embeds, _, _, bounds = pack(samples(llm, (4, 9, 6)))
    together = llm.generate(embeds, bounds, max_new_tokens=6)
    alone = [llm.generate(embeds[:, a:b], [0, b - a], max_new_tokens=6)[0] for a, b in itertools.pairwise(bounds)]
    assert together == alone and len(set(together)) > 1
    llm(*pack(samples(llm, (4, 3))))  # packed attention is back


def test_packed_attention_refuses_a_call_without_bounds(llm: CausalLM) -> None:
    with pytest.raises(ValueError, match="bounds"):
        llm.model(inputs_embeds=torch.randn(1, 4, 32), use_cache=False)


def test_a_tokenizer_larger_than_the_vocabulary_is_refused(tokenizer_folder: str) -> None:
    with pytest.raises(ValueError, match="do not belong together"):
        CausalLM(tokenizer_folder, architecture={"model_type": "qwen2", "vocab_size": 8, "hidden_size": 32,
                 "num_hidden_layers": 1, "num_attention_heads": 4, "num_key_value_heads": 2})  # fmt: skip


def test_lora_adds_trainable_names_and_starts_as_the_same_model(tokenizer_folder: str) -> None:
    sizes = {"model_type": "qwen2", "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4,
             "num_key_value_heads": 2, "intermediate_size": 64}  # fmt: skip
    torch.manual_seed(0)
    plain = CausalLM(tokenizer_folder, architecture=sizes)
    torch.manual_seed(0)
    adapted = CausalLM(tokenizer_folder, architecture=sizes, lora={"r": 2, "target_modules": "all-linear"})
    assert [n for n, _ in adapted.named_parameters() if "lora_" in n]
    parts = samples(plain, (5,))
    adapted.eval()
    torch.testing.assert_close(adapted(*pack(parts))[0], plain(*pack(parts))[0])


def test_merged_adapters_leave_the_same_model_without_them(tokenizer_folder: str) -> None:
    sizes = {"model_type": "qwen2", "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4,
             "num_key_value_heads": 2, "intermediate_size": 64}  # fmt: skip
    lora = {"r": 2, "lora_alpha": 8, "target_modules": "all-linear"}
    made = CausalLM(tokenizer_folder, architecture=sizes, lora=lora)
    before = {name for name, _ in CausalLM(tokenizer_folder, architecture=sizes).named_parameters()}
    parts = samples(made, (5,))
    with torch.no_grad():
        fresh = made.eval()(*pack(parts))[0]
        for name, parameter in made.named_parameters():
            if "lora_B" in name:  # begins at zero
                parameter.normal_()
        learned = made(*pack(parts))[0]
        assert not torch.allclose(learned, fresh)
        made.merge_lora()
        torch.testing.assert_close(made(*pack(parts))[0], learned, rtol=1e-5, atol=1e-5)
    assert {name for name, _ in made.named_parameters()} == before


def test_what_the_weights_say_about_generating_holds(tokenizer_folder: str) -> None:
    sizes = {"model_type": "qwen2", "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4,
             "num_key_value_heads": 2, "intermediate_size": 64, "initializer_range": 0.3}  # fmt: skip
    plain = CausalLM(tokenizer_folder, architecture=sizes)
    other = plain.tokenizer.convert_tokens_to_ids("<|endoftext|>")
    said = {"repetition_penalty": 1.5, "eos_token_id": [plain.end_id, other, 77]}
    told = CausalLM(tokenizer_folder, architecture=sizes, generation=said)
    told.load_state_dict(plain.state_dict())
    assert (plain.end_ids, told.end_ids) == ([plain.end_id], [plain.end_id, other])  # 77 is a word, no mark
    embeds = torch.randn(1, 6, 32)
    free, held = (llm.answer_ids(embeds, [0, 6], max_new_tokens=24)[0].tolist() for llm in (plain, told))
    assert len(set(held)) > len(set(free)) and free[0] == held[0]
