"""From an official checkpoint to the last stage of each paper, in one command."""

from collections.abc import Callable
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import load_file

from omnihuman.build import compose_config
from omnihuman.official.conversion import Request, convert
from omnihuman.training.chain import Chain, resolve_chain
from omnihuman.training.run_search import read_config
from tests.official import layouts
from tests.official.folders import write_official
from tests.programs import run_program

PARENTS = {
    "humanomni": {
        "humanomni_stage3": ["base", "humanomni_stage2"],
        "humanomni_stage2": ["base"],
    },
    "llava_onevision": {
        "omni_emotion_recognition": ["base", "omni_emotion_stage3"],
        "omni_emotion_stage3": ["base", "omni_emotion_stage1", "omni_emotion_stage2"],
        "omni_emotion_stage2": ["base"],
        "omni_emotion_stage1": ["base"],
    },
    "videochat2": {
        "favchat_stage3": ["base", "favchat_stage2"],
        "favchat_stage2": ["base", "favchat_stage1"],
        "favchat_stage1": ["base"],
    },
}
"""Official checkpoint -> every stage that is trained from it, the last one first, with its parents."""

TAKEN = {
    "humanomni": ["encoders.video", "encoders.instruction", "projectors.body", "fusions.gate", "llm"],
    "llava_onevision": ["encoders.video", "projectors.video", "fusions.newline", "llm"],
    "videochat2": ["encoders.video", "encoders.instruction", "projectors.general", "llm"],
}
"""Parts of the last stage that are the checkpoint's."""


@pytest.fixture(scope="module")
def make_base(tmp_path_factory: pytest.TempPathFactory, tokenizer_folder: str) -> Callable[[str], Path]:
    """Return a function that converts a tiny official checkpoint."""
    folders = dict[str, Path]()

    def make(official: str) -> Path:
        if official not in folders:
            root = tmp_path_factory.mktemp(official)
            folders[official] = convert(write_request(official, root, tokenizer_folder))
        return folders[official]

    return make


def write_request(official: str, root: Path, tokenizer: str) -> Request:
    """Write a tiny official checkpoint; HumanOmni-Video has no audio, VideoChat2 is that of the third stage."""
    if official == "humanomni":
        folder = write_official(root, "0_5b", has_audio=False, frames=4)
        return Request(official, str(folder.folder), root / "base", folder.options)
    if official == "llava_onevision":
        layouts.write_tower(root / "tower", "siglip", num_hidden_layers=layouts.VISION["num_hidden_layers"] + 1)
        layouts.write_llava_onevision(root / "official", "original", tokenizer)
        return Request(official, str(root / "official"), root / "base", {"vision_tower": str(root / "tower")})
    layouts.write_tower(root / "mistral", "mistral", rms_norm_eps=1e-5, sliding_window=None)
    layouts.write_mistral_tokenizer(tokenizer, root / "mistral")
    layouts.write_videochat2(root / "stage3.pth", 3)
    options = {"language_model": str(root / "mistral"), "instruction_encoder": tokenizer}
    return Request(official, str(root / "stage3.pth"), root / "base", options)


def list_runs(chain: Chain) -> dict[str, Chain]:
    """Return the runs that are trained, by experiment."""
    runs = {str(chain.config.name): chain}
    for parent in chain.parents:
        if parent.overrides:
            runs |= list_runs(parent)
    return runs


@pytest.mark.parametrize(
    "official",
    ["videochat2", *(pytest.param(name, marks=pytest.mark.slow) for name in ("humanomni", "llava_onevision"))],
)
def test_every_stage_has_its_own_recipe(official: str, make_base: Callable[[str], Path]) -> None:
    last = next(iter(PARENTS[official]))
    base = make_base(official)
    command_line = [f"+experiment={last}", f"base={base}", "size=7b"]
    runs = list_runs(resolve_chain(compose_config(command_line), command_line))
    assert list(runs) == list(dict.fromkeys(runs)) and set(runs) == set(PARENTS[official])
    for name, run in runs.items():
        parents = [parent.config.name if parent.overrides else parent.run.folder.name for parent in run.parents]
        assert parents == PARENTS[official][name]
        plain = compose_config([f"+experiment={name}", "size=7b"])
        for key in ("trainable", "recipe", "data", "frames", "validation", "optimizer"):
            assert run.config[key] == plain[key], f"{name}: {key}"
        assert run.config.model.drop == plain.model.drop
        lora = run.config.model.llm.lora
        assert lora == plain.model.llm.lora or official == "videochat2", (
            "VideoChat2's language model is one with adapters"
        )
    model, source = runs[last].config.model, read_config(base).model
    for part in TAKEN[official]:
        node, expected = OmegaConf.select(model, part), OmegaConf.select(source, part)
        for key in set(node) - {
            "inputs",
            "output",
            "condition",
            "activation_checkpointing",
            "compile",
            "lora",
            "dtype",
        }:
            assert node[key] == expected[key], f"{part}.{key}"


@pytest.mark.slow
@pytest.mark.parametrize("official", PARENTS)
def test_whole_chain_trains_from_a_checkpoint(
    official: str, make_base: Callable[[str], Path], corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    base = make_base(official)
    last = next(iter(PARENTS[official]))
    arguments = [
        f"+experiment={last}",
        f"base={base}",
        "size=nano",
        "trainer=smoke",
        f"data.root={corpus}",
        "data.num_workers=0",
    ]
    if official == "videochat2":  # its queries are as many as FaVChat's at 7b, and fewer in a tiny checkpoint
        arguments += [
            f"model.projectors.facial.{key}={layouts.QFORMER[key]}" for key in ("num_queries", "extra_queries")
        ]
    output = run_program("omnihuman.train", *arguments, "validation.views=[]", "validate_first=false")
    assert output.returncode == 0, output.stderr[-3000:]
    official_weights = load_file(base / "weights.safetensors")
    for name in PARENTS[official]:
        (run,) = Path("runs/nano", name).glob("*base*/")
        config: Any = OmegaConf.load(run / "config.yaml")
        weights = load_file(run / "weights.safetensors")
        frozen = [key for key in official_weights if key in weights and not is_trained(key, config.trainable)]
        assert frozen, name
        if name in list(PARENTS[official])[-1:]:
            for key in frozen:
                assert torch.equal(weights[key], official_weights[key].to(weights[key].dtype)), f"{name}: {key}"
        trained = [key for key in weights if is_trained(key, config.trainable)]
        changed = [
            key
            for key in trained
            if key not in official_weights or not torch.equal(weights[key], official_weights[key])
        ]
        assert changed, name


def is_trained(name: str, trainable: Any) -> bool:
    return any(rate is not None and fnmatchcase(name, pattern) for pattern, rate in trainable.items())
