import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoProcessor, GenerationConfig, pipeline

from omnihuman.evaluation.answerer import Answerer
from omnihuman.generate import record_of
from omnihuman.release.hub.huggingface import OmniHumanForCausalLM
from omnihuman.release.hub.processor import OmniHumanProcessor
from omnihuman.training.finished import load_model

VARIANTS = ("humanomni_stage3", "omni_emotion_recognition", "favchat_stage3")
QUESTIONS = ["What is the main emotion?", "What does this person do with both arms, and why?", "Who?"]
Folder = Callable[..., Path]


def clips(corpus: Path) -> list[str]:
    return sorted(str(file) for file in (corpus / "media").glob("*.mp4"))


def opened(folder: Path) -> tuple[Any, Any]:
    return AutoModelForCausalLM.from_pretrained(folder), AutoProcessor.from_pretrained(folder)


@pytest.mark.parametrize("experiment", VARIANTS)
def test_weights_and_computed_buffers_are_those_of_the_run_bit_for_bit(
    experiment: str, run_of: Folder, released: Folder
) -> None:
    _, run = load_model(run_of(experiment), merge_lora=True)
    model = AutoModelForCausalLM.from_pretrained(released(experiment))
    assert len(list(released(experiment).glob("model-*.safetensors"))) > 1
    for ours, theirs in (
        (run.state_dict(), model.state_dict()),
        (dict(run.named_buffers()), dict(model.named_buffers())),
    ):
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize("experiment", VARIANTS)
def test_answers_equal_those_of_the_run_token_by_token(
    experiment: str, run_of: Folder, released: Folder, corpus: Path
) -> None:
    answerer = Answerer.of_run(run_of(experiment), merge_lora=True, device="cpu")
    model, processor = opened(released(experiment))
    files, asked = clips(corpus), 0
    for modal in (None, "video_audio", "video", "audio", "text"):
        for file in files[:3]:
            try:
                prompt = answerer.prompt(record_of({"video": file, "instruction": QUESTIONS[0]}), modal)
            except ValueError:  # the model reads no such thing, or the file has none
                with pytest.raises(ValueError, match=r"reads|cannot|has no|no encoder"):
                    processor(text=QUESTIONS[0], video=file, modal=modal)
                continue
            inputs = processor(text=QUESTIONS[0], video=file, modal=modal)
            answer = answerer.ask([prompt], max_new_tokens=128)[0]
            ids = model.generate(**inputs)
            assert inputs["input_ids"].shape == (1, prompt.length)
            assert (*(token for token in ids[0].tolist() if token != model.llm.end_id),) == answer.ids
            assert processor.batch_decode(ids) == [answer.text]
            asked += 1
    assert asked > 5


def test_a_batch_of_questions_is_padded_on_the_left_and_answers_the_same(
    run_of: Folder, released: Folder, corpus: Path
) -> None:
    answerer = Answerer.of_run(run_of("humanomni_stage3"), device="cpu")
    model, processor = opened(released("humanomni_stage3"))
    files = clips(corpus)[:3]
    inputs = processor(text=QUESTIONS, video=files)
    assert not inputs["attention_mask"][:, 0].all() and inputs["attention_mask"][:, -1].all()
    prompts = [
        answerer.prompt(record_of({"video": file, "instruction": text}))
        for file, text in zip(files, QUESTIONS, strict=True)
    ]
    texts = [answer.text for answer in answerer.ask(prompts, max_new_tokens=24)]
    assert processor.batch_decode(model.generate(**inputs, max_new_tokens=24)) == texts
    sampled = GenerationConfig(do_sample=True, temperature=2.0, max_new_tokens=24)
    torch.manual_seed(1)
    assert processor.batch_decode(model.generate(**inputs, generation_config=sampled)) != texts


@pytest.mark.parametrize("experiment", VARIANTS)
def test_the_loss_is_the_mean_that_training_sums(
    experiment: str, run_of: Folder, released: Folder, corpus: Path
) -> None:
    model, processor = opened(released(experiment))
    _, run = load_model(run_of(experiment), merge_lora=True)
    inputs = processor(text=QUESTIONS[:2], video=clips(corpus)[:2], answer=["happy", "she waves at a friend"])
    out = model(**inputs)
    batch, _ = model._batch(
        inputs["input_ids"],
        inputs["attention_mask"],
        inputs["labels"],
        {key: value for key, value in inputs.items() if key.endswith(("_values", "_mask")) and key != "attention_mask"},
    )
    with torch.no_grad():
        ours = run(batch)
    assert torch.allclose(out.loss, ours.loss / ours.targets, atol=1e-6)
    assert torch.allclose(model(**inputs, num_items_in_batch=7).loss, ours.loss / 7, atol=1e-6)
    shifted = torch.nn.functional.cross_entropy(
        out.logits[:, :-1].flatten(0, 1), inputs["labels"][:, 1:].flatten(), ignore_index=-100
    )
    assert torch.allclose(out.loss, shifted, atol=1e-6)


def test_padding_on_either_side_gives_the_same_logits(released: Folder, corpus: Path) -> None:
    model, processor = opened(released("humanomni_stage3"))
    inputs = processor(text=QUESTIONS, video=clips(corpus)[:3])
    rolled = dict(inputs)
    for key in ("input_ids", "attention_mask"):
        lengths = inputs["attention_mask"].sum(dim=1).tolist()
        rolled[key] = torch.stack([row.roll(length) for row, length in zip(inputs[key], lengths, strict=True)])
    with torch.no_grad():
        left, right = model(**inputs).logits, model(**rolled).logits
    assert torch.equal(left[inputs["attention_mask"].bool()], right[rolled["attention_mask"].bool()])
    assert not left[~inputs["attention_mask"].bool()].any()


def test_it_learns_as_models_of_transformers_do(released: Folder, corpus: Path) -> None:
    model, processor = opened(released("humanomni_stage3"))
    inputs = processor(text=QUESTIONS[0], video=clips(corpus)[0], answer="happy")
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


def test_saving_what_was_loaded_gives_a_folder_of_its_own(released: Folder, corpus: Path, tmp_path: Path) -> None:
    model, processor = opened(released("humanomni_stage3"))
    model.save_pretrained(tmp_path / "again", max_shard_size="3MB")
    processor.save_pretrained(tmp_path / "again")
    again, reader = opened(tmp_path / "again")
    inputs = reader(text=QUESTIONS[0], video=clips(corpus)[0])
    assert all(
        torch.equal(value, inputs[key]) for key, value in processor(text=QUESTIONS[0], video=clips(corpus)[0]).items()
    )
    assert torch.equal(again.generate(**inputs), model.generate(**inputs))
    assert "released" not in (tmp_path / "again" / "processor_config.json").read_text()  # no place of this machine


def test_half_precision_and_placement(released: Folder, corpus: Path) -> None:
    folder = released("humanomni_stage3")
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16, device_map="cpu")
    whole = AutoModelForCausalLM.from_pretrained(folder)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    inputs = AutoProcessor.from_pretrained(folder)(text=QUESTIONS[0], video=clips(corpus)[0]).to("cpu", torch.bfloat16)
    assert inputs["audio_values"].dtype == torch.bfloat16 and inputs["video_values"].dtype == torch.uint8
    with torch.no_grad():
        near, exact = model(**inputs).logits.float(), whole.to("cpu")(**inputs).logits
    assert torch.nn.functional.cosine_similarity(near.flatten(), exact.flatten(), dim=0) > 0.99
    model.generate(**inputs, max_new_tokens=4)


def test_weights_that_lack_a_parameter_are_refused(released: Folder, tmp_path: Path) -> None:
    folder = shutil.copytree(released("favchat_stage3"), tmp_path / "cut")
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    name = next(name for name in index["weight_map"] if name.startswith("projectors."))
    file = folder / index["weight_map"].pop(name)
    save_file({key: value for key, value in load_file(file).items() if key != name}, file, {"format": "pt"})
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match=f"1 missing .such as {name}"):
        AutoModelForCausalLM.from_pretrained(folder)


def test_what_it_cannot_do_is_said(released: Folder, corpus: Path) -> None:
    folder = released("favchat_stage3")
    model, processor = opened(folder)
    inputs = processor(text=QUESTIONS[0], video=clips(corpus)[0])
    with pytest.raises(ValueError, match=r"takes no audio_values: its signals are \['video_values'"):
        model(**inputs, audio_values=torch.zeros(1, 6, 80))
    with pytest.raises(ValueError, match="from_pretrained"):
        OmniHumanForCausalLM(type(model.config)(graph=model.config.graph))
    assert AutoConfig.from_pretrained(folder).architectures == ["OmniHumanForCausalLM"]


def test_words_alone_are_continued_as_pipelines_expect(released: Folder, corpus: Path) -> None:
    model, processor = opened(released("humanomni_stage3"))
    chat = [{"role": "user", "content": "What is a smile?"}]
    (answer,) = processor.batch_decode(model.generate(**processor(text="What is a smile?"), max_new_tokens=6))
    asked = pipeline("text-generation", model=model, tokenizer=processor.tokenizer)
    said = asked(chat, max_new_tokens=6, do_sample=False)[0]["generated_text"]
    assert said[:1] == chat and said[1]["content"].strip() == answer != ""
    ids = processor.tokenizer(["Hello"], return_tensors="pt").input_ids
    made = model.generate(ids, max_new_tokens=3, do_sample=True, num_return_sequences=2)
    assert made[:, : ids.shape[1]].tolist() == ids.tolist() * 2
    with pytest.raises(ValueError, match=r"places of .*video"):
        model.generate(processor(video=clips(corpus)[0], text="What?")["input_ids"])


def test_a_repository_of_the_hub_is_a_folder_once_it_is_here(released: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, asked = released("favchat_stage3"), list[dict[str, Any]]()

    def download(name: str, **how: Any) -> str:
        asked.append({"name": name, **how})
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    config = AutoConfig.from_pretrained(folder)
    config.name_or_path = "me/model"  # as the Auto class hands it on
    for each, how in ((OmniHumanForCausalLM, {"config": config}), (OmniHumanProcessor, {})):
        assert each.from_pretrained("me/model", revision="v1", token=False, **how)
    assert asked == [{"name": "me/model", "revision": "v1", "token": False}] * 2


def test_pushing_uploads_the_tokenizers_too(released: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers.utils import hub

    class Api:
        def create_repo(self, name: str, **_: Any) -> Any:
            return type("Repo", (), {"repo_id": name})

    class Card:
        def save(self, file: str) -> None:
            Path(file).write_text("")

    uploaded = list[list[str]]()
    monkeypatch.setattr(hub, "hf_api", Api)
    monkeypatch.setattr(hub, "create_and_tag_model_card", lambda *_, **__: Card())
    model, processor = opened(released("humanomni_stage3"))
    for each in (model, processor):
        upload = lambda folder, *_, **__: uploaded.append(  # noqa: E731
            sorted(str(path.relative_to(folder)) for path in Path(folder).rglob("*"))
        )
        monkeypatch.setattr(each, "_upload_modified_files", upload)
        each.push_to_hub("me/model")
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= {*uploaded[0]}
    assert {"processor_config.json", "tokenizer.json", "instruction_tokenizer/tokenizer.json"} <= {*uploaded[1]}


def test_lora_beside_the_bare_model(run_of: Folder, released: Folder, corpus: Path) -> None:
    from peft import PeftModel

    folder = released("favchat_stage3", "adapter")
    merged = AutoModelForCausalLM.from_pretrained(released("favchat_stage3"))
    inputs = AutoProcessor.from_pretrained(folder)(text=QUESTIONS[0], video=clips(corpus)[0])
    logits = dict[str, torch.Tensor]()
    with torch.no_grad():
        logits["merged"] = merged(**inputs).logits
        bare = AutoModelForCausalLM.from_pretrained(folder)
        logits["bare"] = bare(**inputs).logits
        bare.llm.model.load_adapter(str(folder / "adapter"))
        logits["transformers"] = bare(**inputs).logits
        other = AutoModelForCausalLM.from_pretrained(folder)
        PeftModel.from_pretrained(other.llm.model, str(folder / "adapter"))
        logits["peft"] = other(**inputs).logits
    assert not torch.allclose(logits["bare"], logits["merged"], atol=1e-2)
    for name in ("transformers", "peft"):
        assert torch.allclose(logits[name], logits["merged"], atol=1e-4), name
    assert torch.equal(other.generate(**inputs), merged.generate(**inputs))


def test_quiet_import(caplog: pytest.LogCaptureFixture, released: Folder) -> None:
    with caplog.at_level(logging.WARNING, logger="transformers"):
        AutoModelForCausalLM.from_pretrained(released("favchat_stage3"))
    assert not caplog.records
