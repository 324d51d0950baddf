import json
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from accelerate import init_empty_weights

from omnihuman.build import build
from omnihuman.release.hub.graph import opened
from omnihuman.training.finished import load_model

Folder = Callable[..., Path]


def graph_in(folder: Path) -> dict[str, Any]:
    graph: dict[str, Any] = json.loads((folder / "config.json").read_text())["graph"]
    return graph


def test_the_graph_makes_the_model_again_without_naming_weights_or_places(run_of: Folder, released: Folder) -> None:
    folder = released("humanomni_stage3")
    _, run = load_model(run_of("humanomni_stage3"))
    with init_empty_weights():
        again = build(opened(graph_in(folder), folder))
    assert {name: tensor.shape for name, tensor in again.state_dict().items()} == {
        name: tensor.shape for name, tensor in run.state_dict().items()
    }
    text = json.dumps(graph_in(folder))
    assert '"weights"' not in text and "/" not in text
    assert [part["name"] for part in graph_in(folder)["fusions"]] == ["gate", "compress"]  # they run in this order


def at(path: str, value: Any) -> Callable[[dict[str, Any]], None]:
    """A change of the graph: ``encoders.video.weights`` becomes the value."""

    def change(graph: dict[str, Any]) -> None:
        node: Any = graph
        *steps, last = path.split(".")
        for step in steps:
            node = next(part for part in node if part["name"] == step) if isinstance(node, list) else node[step]
        node[last] = value

    return change


HOSTILE = {
    "another function": at("llm._target_", "os.system"),
    "a function of the package": at("_target_", "omnihuman.build.build"),
    "torch": at("encoders.video._target_", "torch.optim.AdamW"),
    "a dotted way out": at("encoders.video._target_", "omnihuman.encoder.siglip.torch.load"),
    "a class imported there": at("encoders.video._target_", "omnihuman.encoder.siglip.SquareFrames"),
    "its base class": at("encoders.video._target_", "omnihuman.encoder.siglip.Encoder"),
    "no such module": at("encoders.video._target_", "omnihuman.encoder.nowhere.Encoder"),
    "a part of another kind": at("projectors.audio._target_", "omnihuman.encoder.bert.Bert"),
    "a node within a part": at("encoders.video.aspect", {"_target_": "os.system", "command": "true"}),
    "a node in a list": at("fusions.gate.inputs", [{"_target_": "os.system"}]),
    "arguments by place": at("llm._args_", ["echo"]),
    "a loose part": at("encoders.video._partial_", True),
    "an interpolation": at("llm.system", "${oc.env:HOME}"),
    "an unknown option": at("encoders.video.hook", "x"),
    "weights": at("encoders.video.weights", "somebody/else"),
    "weights of the language model": at("llm.weights", "/etc"),
    "a tokenizer elsewhere": at("llm.tokenizer", "../../etc"),
    "a tokenizer at an absolute path": at("encoders.instruction.tokenizer", "/etc"),
    "a tokenizer of the hub": at("llm.tokenizer", "somebody/else"),
    "code beside the configuration": at("llm.architecture.auto_map", {"AutoModelForCausalLM": "evil.Model"}),
    "kernels of the hub": at("llm.architecture.attn_implementation", "somebody/kernel"),
    "a private field": at("llm.architecture._attn_implementation", "somebody/kernel"),
    "no language model": at("llm.architecture.model_type", "siglip"),
    "itself within itself": at("llm.architecture.model_type", "omnihuman"),
    "a name that is none": at("encoders.video.name", "../video"),
    "two of a name": at("encoders.video.name", "audio"),
    "parts by name": at("fusions", {"gate": {}}),
    "a part that is a word": at("fusions", ["gate"]),
    "no language model at all": at("llm", None),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_strangers_graph_builds_nothing_else(kind: str, released: Folder) -> None:
    folder = released("humanomni_stage3")
    graph = deepcopy(graph_in(folder))
    HOSTILE[kind](graph)
    with pytest.raises(ValueError, match=r"config\.json: graph"):
        opened(graph, folder)


def test_what_no_dict_is_no_graph(tmp_path: Path) -> None:
    for graph in (None, [], "x", {}):
        with pytest.raises(ValueError, match=r"omnihuman\.export"):
            opened(graph, tmp_path)
