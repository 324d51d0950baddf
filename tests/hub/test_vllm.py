"""The folder and the prompts for vLLM, with transformers' own classes in its place."""

import base64
import io
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from omnihuman.hub.vllm import PromptEmbedder, build_generation_config, encode_embeds, export_llm
from omnihuman.inference.answerer import Answerer
from tests.llm.test_causal import SIZES, build_llm

SLOW_VARIANTS = ("omni_emotion_recognition", "favchat_stage3")
VARIANTS = ("humanomni_stage3", *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW_VARIANTS))
VIEWS = ("VAF", "VA", "VF", "V", "A", "F", "text")
QUESTION = "What is the main emotion?"
Folder = Callable[[str], Path]


@pytest.fixture(scope="module")
def make_llm(make_run: Folder, tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """The language model of an experiment's run, as it is exported for vLLM."""
    folders = dict[str, Path]()

    def make(experiment: str) -> Path:
        if experiment not in folders:
            folders[experiment] = tmp_path_factory.mktemp("vllm") / experiment
            export_llm(make_run(experiment), folders[experiment], max_shard_size="5MB")
        return folders[experiment]

    return make


def list_clips(corpus: Path) -> list[Path]:
    return [min((corpus / "media").glob(f"train_{kind}*.mp4")) for kind in ("talk", "act")]


def generate(model: Any, embeds: torch.Tensor) -> tuple[int, ...]:
    """Return the ids of the answer; all options come from the folder."""
    mask = torch.ones(1, len(embeds), dtype=torch.long)
    ids = model.generate(inputs_embeds=embeds[None], attention_mask=mask)[0].tolist()
    return tuple(token for token in ids if token not in model.generation_config.eos_token_id)


@pytest.mark.parametrize("experiment", VARIANTS)
def test_answers_equal_those_of_the_run(experiment: str, make_run: Folder, make_llm: Folder, corpus: Path) -> None:
    answerer = Answerer.load(make_run(experiment), device="cpu")
    embedder = PromptEmbedder.load(make_run(experiment), device="cpu")
    model = AutoModelForCausalLM.from_pretrained(make_llm(experiment))
    tokenizer = AutoTokenizer.from_pretrained(make_llm(experiment))
    assert type(model).__module__.startswith("transformers.models.")
    answered = set()
    for view in VIEWS:
        for clip in list_clips(corpus):
            question = {"video": None if view == "text" else clip, "view": view}
            try:
                answer = answerer.answer(QUESTION, **question)
            except ValueError:  # the model does not read this view, or the clip does not have it
                with pytest.raises(ValueError, match=r"reads|has no"):
                    embedder.embed(QUESTION, **question)
                continue
            embeds = embedder.embed(QUESTION, **question)
            assert len(embeds) <= answer.prompt_tokens  # slots of faces that were not found are dropped
            ids = generate(model, embeds)
            assert ids == answer.ids
            assert tokenizer.decode(ids, skip_special_tokens=True).strip() == answer.text
            answered.add(view)
    assert {"text", "V"} < answered and len(answered) > 2


@pytest.mark.slow
def test_folder_loads_without_omnihuman(make_run: Folder, make_llm: Folder, corpus: Path, tmp_path: Path) -> None:
    embeds = PromptEmbedder.load(make_run("favchat_stage3"), device="cpu").embed(QUESTION, video=list_clips(corpus)[0])
    save_file({"embeds": embeds.contiguous()}, tmp_path / "prompt.safetensors")
    code = (
        "import sys; from safetensors.torch import load_file; from transformers import AutoModelForCausalLM\n"
        f"model = AutoModelForCausalLM.from_pretrained({str(make_llm('favchat_stage3'))!r})\n"
        f"embeds = load_file({str(tmp_path / 'prompt.safetensors')!r})['embeds']\n"
        "print(model.generate(inputs_embeds=embeds[None], max_new_tokens=8)[0].tolist())\n"
        "assert not any(name.startswith('omnihuman') for name in sys.modules)"
    )
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr
    answer = Answerer.load(make_run("favchat_stage3"), device="cpu").answer(
        QUESTION, video=list_clips(corpus)[0], max_new_tokens=8
    )
    assert tuple(json.loads(process.stdout.splitlines()[-1])[: answer.tokens]) == answer.ids


def test_files_of_the_folder(make_llm: Folder) -> None:
    folder = make_llm("humanomni_stage3")
    config = json.loads((folder / "config.json").read_text())
    assert config["architectures"] == ["Qwen2ForCausalLM"] and "auto_map" not in config
    generation = json.loads((folder / "generation_config.json").read_text())
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.convert_tokens_to_ids("<|im_end|>") in generation["eos_token_id"]
    assert "temperature" not in generation and generation["do_sample"] is False
    assert "What" in tokenizer.apply_chat_template([{"role": "user", "content": "What?"}], tokenize=False)
    card = (folder / "README.md").read_text()
    assert "enable_prompt_embeds" in card and "pipeline_tag: text-generation" in card and "register()" not in card
    for file in folder.rglob("*.json"):
        assert str(Path.home()) not in file.read_text() and str(folder.parent) not in file.read_text(), file
    assert not list(folder.parent.glob("*.partial"))


def test_options_of_the_weights_stay_but_answers_are_greedy(tokenizer_folder: str) -> None:
    generation = {"repetition_penalty": 1.1, "do_sample": True, "temperature": 0.7, "top_p": 0.8, "top_k": 20}
    llm = build_llm(tokenizer_folder, architecture=SIZES, generation=generation)
    options = build_generation_config(llm).to_diff_dict()
    assert options["repetition_penalty"] == 1.1 and options["eos_token_id"] == [llm.end_id]
    assert not options.keys() & {"temperature", "top_p", "top_k"} and options["do_sample"] is False


def test_only_the_embeddings_of_the_text_stay_in_memory(make_run: Folder) -> None:
    embedder = PromptEmbedder.load(make_run("humanomni_stage3"), device="cpu")
    names = [name for name, _ in embedder.answerer.model.llm.named_parameters()]
    assert names == ["model.embeddings.weight"]


def test_encoded_embeds_are_a_tensor_of_torch_alone() -> None:
    packed = torch.randn(1, 100, 8)
    data = base64.b64decode(encode_embeds(packed[0, 2:5]), validate=True)
    assert torch.equal(torch.load(io.BytesIO(data), weights_only=True), packed[0, 2:5])
    assert len(data) < packed.nbytes


def test_folder_in_use_raises(make_run: Folder, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("")
    with pytest.raises(ValueError, match=r"out=.*not empty"):
        export_llm(make_run("favchat_stage3"), tmp_path)
