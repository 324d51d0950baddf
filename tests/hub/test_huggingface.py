import json
import logging
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoProcessor, GenerationConfig, pipeline

from omnihuman.hub.huggingface import OmniHumanForCausalLM
from omnihuman.hub.processor import OmniHumanProcessor
from omnihuman.inference.answerer import Answerer
from omnihuman.inference.question import build_question
from omnihuman.modality import View
from omnihuman.training.model_folder import load_model

VARIANTS = ("humanomni_stage3", "favchat_stage3", pytest.param("omni_emotion_recognition", marks=pytest.mark.slow))
QUESTIONS = ["What is the main emotion?", "What does this person do with both arms, and why?", "Who?"]
Folder = Callable[..., Path]


def list_clips(corpus: Path) -> list[str]:
    return sorted(str(file) for file in (corpus / "media").glob("*.mp4"))


def load_release(folder: Path) -> tuple[Any, Any]:
    return AutoModelForCausalLM.from_pretrained(folder), AutoProcessor.from_pretrained(folder)


def assert_equal(tensors: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor]) -> None:
    assert tensors.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(tensors[name], tensor), name


def remove_end(ids: torch.Tensor, model: Any) -> tuple[int, ...]:
    return tuple(token for token in ids.tolist() if token != model.llm.end_id)


@pytest.mark.parametrize("experiment", VARIANTS)
def test_weights_and_buffers_equal_those_of_the_run(experiment: str, make_run: Folder, make_release: Folder) -> None:
    _, run = load_model(make_run(experiment), merge_lora=True)
    model = AutoModelForCausalLM.from_pretrained(make_release(experiment))
    assert len(list(make_release(experiment).glob("model-*.safetensors"))) > 1
    assert_equal(model.state_dict(), run.state_dict())
    assert_equal(dict(model.named_buffers()), dict(run.named_buffers()))


@pytest.mark.parametrize("experiment", VARIANTS)
def test_answers_equal_those_of_the_run(experiment: str, make_run: Folder, make_release: Folder, corpus: Path) -> None:
    answerer = Answerer.load(make_run(experiment), merge_lora=True, device="cpu")
    model, processor = load_release(make_release(experiment))
    num_answers = 0
    for view in (None, "VAF", "VF", "A", "text"):
        for clip in list_clips(corpus)[:3]:
            try:
                prompt = answerer.build_prompt(
                    build_question({"video": clip, "instruction": QUESTIONS[0]}), view and View.parse(view)
                )
            except ValueError:  # the model does not read this modality, or the clip does not have it
                with pytest.raises(ValueError, match=r"reads|cannot|has no|no encoder"):
                    processor(text=QUESTIONS[0], video=clip, view=view)
                continue
            inputs = processor(text=QUESTIONS[0], video=clip, view=view)
            answer = answerer.answer_prompts([prompt], max_new_tokens=128)[0]
            ids = model.generate(**inputs)
            assert inputs["input_ids"].shape == (1, prompt.length)
            assert remove_end(ids[0], model) == answer.ids
            assert processor.batch_decode(ids) == [answer.text]
            num_answers += 1
    assert num_answers > 5


def test_padded_batch_gives_the_same_answers(make_run: Folder, make_release: Folder, corpus: Path) -> None:
    answerer = Answerer.load(make_run("humanomni_stage3"), device="cpu")
    model, processor = load_release(make_release("humanomni_stage3"))
    clips = list_clips(corpus)[:3]
    inputs = processor(text=QUESTIONS, video=clips)
    assert not inputs["attention_mask"][:, 0].all() and inputs["attention_mask"][:, -1].all()
    prompts = []
    for clip, text in zip(clips, QUESTIONS, strict=True):
        prompts.append(answerer.build_prompt(build_question({"video": clip, "instruction": text})))
    texts = [answer.text for answer in answerer.answer_prompts(prompts, max_new_tokens=24)]
    assert processor.batch_decode(model.generate(**inputs, max_new_tokens=24)) == texts
    sampling = GenerationConfig(do_sample=True, temperature=2.0, max_new_tokens=24)
    torch.manual_seed(1)
    assert processor.batch_decode(model.generate(**inputs, generation_config=sampling)) != texts


@pytest.mark.parametrize("experiment", VARIANTS)
def test_loss_is_the_mean_of_the_training_loss(
    experiment: str, make_run: Folder, make_release: Folder, corpus: Path
) -> None:
    model, processor = load_release(make_release(experiment))
    _, run = load_model(make_run(experiment), merge_lora=True)
    inputs = processor(text=QUESTIONS[:2], video=list_clips(corpus)[:2], answer=["happy", "she waves at a friend"])
    output = model(**inputs)
    signals = dict(inputs)
    batch, _ = model._pack(signals.pop("input_ids"), signals.pop("attention_mask"), signals.pop("labels"), signals)
    with torch.no_grad():
        expected = run(batch)
    assert torch.allclose(output.loss, expected.loss / expected.targets, atol=1e-6)
    assert torch.allclose(model(**inputs, num_items_in_batch=7).loss, expected.loss / 7, atol=1e-6)
    cross_entropy = torch.nn.functional.cross_entropy(
        output.logits[:, :-1].flatten(0, 1), inputs["labels"][:, 1:].flatten(), ignore_index=-100
    )
    assert torch.allclose(output.loss, cross_entropy, atol=1e-6)


def test_padding_on_either_side_gives_the_same_logits(make_release: Folder, corpus: Path) -> None:
    model, processor = load_release(make_release("humanomni_stage3"))
    inputs = processor(text=QUESTIONS, video=list_clips(corpus)[:3])
    right_padded = dict(inputs)
    lengths = inputs["attention_mask"].sum(dim=1).tolist()
    for key in ("input_ids", "attention_mask"):
        samples = [sample.roll(length) for sample, length in zip(inputs[key], lengths, strict=True)]
        right_padded[key] = torch.stack(samples)
    with torch.no_grad():
        left, right = model(**inputs).logits, model(**right_padded).logits
    assert torch.equal(left[inputs["attention_mask"].bool()], right[right_padded["attention_mask"].bool()])
    assert not left[~inputs["attention_mask"].bool()].any()


def test_training_reduces_the_loss(make_release: Folder, corpus: Path) -> None:
    model, processor = load_release(make_release("humanomni_stage3"))
    inputs = processor(text=QUESTIONS[0], video=list_clips(corpus)[0], answer="happy")
    model.train()
    model.gradient_checkpointing_enable()
    optimizer, losses = torch.optim.AdamW(model.parameters(), lr=1e-3), []
    for _ in range(3):
        loss = model(**inputs).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[2] < losses[0]
    for part in (model.projectors, model.fusions, model.llm):
        assert any(parameter.grad is not None and parameter.grad.any() for parameter in part.parameters())


def test_saved_copy_gives_the_same_answers(make_release: Folder, corpus: Path, tmp_path: Path) -> None:
    model, processor = load_release(make_release("humanomni_stage3"))
    model.save_pretrained(tmp_path / "copy", max_shard_size="3MB")
    processor.save_pretrained(tmp_path / "copy")
    model_copy, processor_copy = load_release(tmp_path / "copy")
    clip = list_clips(corpus)[0]
    inputs = processor_copy(text=QUESTIONS[0], video=clip)
    assert_equal(inputs, processor(text=QUESTIONS[0], video=clip))
    assert torch.equal(model_copy.generate(**inputs), model.generate(**inputs))
    assert "released" not in (tmp_path / "copy" / "processor_config.json").read_text()  # the folder of the release


def test_half_precision_and_device_map(make_release: Folder, corpus: Path) -> None:
    folder = make_release("humanomni_stage3")
    half = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16, device_map="cpu")
    full = AutoModelForCausalLM.from_pretrained(folder)
    assert {parameter.dtype for parameter in half.parameters()} == {torch.bfloat16}
    processor = AutoProcessor.from_pretrained(folder)
    inputs = processor(text=QUESTIONS[0], video=list_clips(corpus)[0]).to("cpu", torch.bfloat16)
    assert inputs["audio_values"].dtype == torch.bfloat16 and inputs["video_values"].dtype == torch.uint8
    with torch.no_grad():
        logits, expected = half(**inputs).logits.float(), full.to("cpu")(**inputs).logits
    assert torch.nn.functional.cosine_similarity(logits.flatten(), expected.flatten(), dim=0) > 0.99
    half.generate(**inputs, max_new_tokens=4)


def test_missing_parameter_raises(make_release: Folder, tmp_path: Path) -> None:
    folder = shutil.copytree(make_release("favchat_stage3"), tmp_path / "cut")
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    name = next(name for name in index["weight_map"] if name.startswith("projectors."))
    file = folder / index["weight_map"].pop(name)
    state = load_file(file)
    del state[name]
    save_file(state, file, {"format": "pt"})
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match=rf"\b1 missing .*{name}"):
        AutoModelForCausalLM.from_pretrained(folder)


def test_parameter_that_is_not_finite_raises(make_release: Folder, tmp_path: Path) -> None:
    folder = shutil.copytree(make_release("favchat_stage3"), tmp_path / "spoiled")
    index = json.loads((folder / "model.safetensors.index.json").read_text())["weight_map"]
    name = next(name for name in index if name.startswith("projectors."))
    state = load_file(folder / index[name])
    state[name].view(-1)[0] = float("nan")
    save_file(state, folder / index[name], {"format": "pt"})
    with pytest.raises(ValueError, match=rf"spoiled: {name}"):
        AutoModelForCausalLM.from_pretrained(folder)


def test_unknown_signal_raises(make_release: Folder, corpus: Path) -> None:
    model, processor = load_release(make_release("favchat_stage3"))
    inputs = processor(text=QUESTIONS[0], video=list_clips(corpus)[0])
    with pytest.raises(ValueError, match=r"unknown .*\baudio_values; .*\['video_values'"):
        model(**inputs, audio_values=torch.zeros(1, 6, 80))


def test_config_without_a_folder_raises(make_release: Folder) -> None:
    config = AutoConfig.from_pretrained(make_release("favchat_stage3"))
    assert config.architectures == ["OmniHumanForCausalLM"]
    with pytest.raises(ValueError, match="from_pretrained"):
        OmniHumanForCausalLM(type(config)(graph=config.graph))


def test_text_alone_works_in_pipelines(make_release: Folder) -> None:
    model, processor = load_release(make_release("humanomni_stage3"))
    chat = [{"role": "user", "content": "What is a smile?"}]
    (answer,) = processor.batch_decode(model.generate(**processor(text="What is a smile?"), max_new_tokens=6))
    generator = pipeline("text-generation", model=model, tokenizer=processor.tokenizer)
    messages = generator(chat, max_new_tokens=6, do_sample=False)[0]["generated_text"]
    assert messages[:1] == chat and messages[1]["content"].strip() == answer != ""
    ids = processor.tokenizer(["Hello"], return_tensors="pt").input_ids
    sequences = model.generate(ids, max_new_tokens=3, do_sample=True, num_return_sequences=2)
    assert sequences[:, : ids.shape[1]].tolist() == ids.tolist() * 2


def test_slots_without_signals_raise(make_release: Folder, corpus: Path) -> None:
    model, processor = load_release(make_release("humanomni_stage3"))
    with pytest.raises(ValueError, match=r"slots of .*video"):
        model.generate(processor(video=list_clips(corpus)[0], text="What?")["input_ids"])


def test_repository_of_the_hub_is_downloaded(make_release: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, calls = make_release("favchat_stage3"), list[dict[str, Any]]()

    def download(name: str, **options: Any) -> str:
        calls.append({"name": name, **options})
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    config = AutoConfig.from_pretrained(folder)
    config.name_or_path = "me/model"  # as the Auto class passes it on
    assert OmniHumanForCausalLM.from_pretrained("me/model", revision="v1", token=False, config=config)
    assert OmniHumanProcessor.from_pretrained("me/model", revision="v1", token=False)
    assert calls == [{"name": "me/model", "revision": "v1", "token": False}] * 2


def test_push_uploads_the_tokenizers(make_release: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers.utils import hub

    class Api:
        def create_repo(self, name: str, **_: Any) -> Any:
            return type("Repo", (), {"repo_id": name})

    class Card:
        def save(self, file: str) -> None:
            Path(file).write_text("")

    uploads = list[set[str]]()

    def upload(folder: Any, *_: Any, **__: Any) -> None:
        uploads.append({str(path.relative_to(folder)) for path in Path(folder).rglob("*")})

    monkeypatch.setattr(hub, "hf_api", Api)
    monkeypatch.setattr(hub, "create_and_tag_model_card", lambda *_, **__: Card())
    for component in load_release(make_release("humanomni_stage3")):
        monkeypatch.setattr(component, "_upload_modified_files", upload)
        component.push_to_hub("me/model")
    assert uploads[0] >= {"config.json", "model.safetensors", "tokenizer.json"}
    assert uploads[1] >= {"processor_config.json", "tokenizer.json", "instruction_tokenizer/tokenizer.json"}


def test_lora_adapter_gives_the_merged_logits(make_release: Folder, corpus: Path) -> None:
    from peft import PeftModel

    folder = make_release("favchat_stage3", "adapter")
    merged = AutoModelForCausalLM.from_pretrained(make_release("favchat_stage3"))
    inputs = AutoProcessor.from_pretrained(folder)(text=QUESTIONS[0], video=list_clips(corpus)[0])
    with torch.no_grad():
        expected = merged(**inputs).logits
        model = AutoModelForCausalLM.from_pretrained(folder)
        assert not torch.allclose(model(**inputs).logits, expected, atol=1e-2)
        model.llm.model.load_adapter(str(folder / "adapter"))
        assert torch.allclose(model(**inputs).logits, expected, atol=1e-4)
        model = AutoModelForCausalLM.from_pretrained(folder)
        PeftModel.from_pretrained(model.llm.model, str(folder / "adapter"))
        assert torch.allclose(model(**inputs).logits, expected, atol=1e-4)
    assert torch.equal(model.generate(**inputs), merged.generate(**inputs))


def test_loading_logs_no_warnings(caplog: pytest.LogCaptureFixture, make_release: Folder) -> None:
    with caplog.at_level(logging.WARNING, logger="transformers"):
        AutoModelForCausalLM.from_pretrained(make_release("favchat_stage3"))
    assert not caplog.records
