import json
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from accelerate import init_empty_weights

from omnihuman.build import build
from omnihuman.hub.graph import parse_graph
from omnihuman.training.model_folder import load_model

Folder = Callable[..., Path]


def read_graph(folder: Path) -> dict[str, Any]:
    graph: dict[str, Any] = json.loads((folder / "config.json").read_text())["graph"]
    return graph


def test_graph_builds_the_same_model(make_run: Folder, make_release: Folder) -> None:
    folder = make_release("humanomni_stage3")
    _, model = load_model(make_run("humanomni_stage3"))
    with init_empty_weights():
        rebuilt = build(parse_graph(read_graph(folder), folder))
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
    assert {name: tensor.shape for name, tensor in rebuilt.state_dict().items()} == shapes


def test_graph_has_no_weights_and_no_paths(make_release: Folder) -> None:
    graph = read_graph(make_release("humanomni_stage3"))
    text = json.dumps(graph)
    assert '"weights"' not in text and "/" not in text
    assert [part["name"] for part in graph["fusions"]] == ["gate", "compress"]  # they run in this order


def set_value(path: str, value: Any) -> Callable[[dict[str, Any]], None]:
    """Return a change of the graph: the entry of a dotted path gets the value."""

    def change(graph: dict[str, Any]) -> None:
        node: Any = graph
        *keys, last = path.split(".")
        for key in keys:
            if isinstance(node, list):
                node = {part["name"]: part for part in node}
            node = node[key]
        node[last] = value

    return change


UNTRUSTED = {
    "another function": set_value("llm._target_", "os.system"),
    "a function of the package": set_value("_target_", "omnihuman.build.build"),
    "torch": set_value("encoders.video._target_", "torch.optim.AdamW"),
    "a dotted path out": set_value("encoders.video._target_", "omnihuman.encoder.siglip.torch.load"),
    "a class imported there": set_value("encoders.video._target_", "omnihuman.encoder.siglip.SquareFrames"),
    "its base class": set_value("encoders.video._target_", "omnihuman.encoder.siglip.Encoder"),
    "no such module": set_value("encoders.video._target_", "omnihuman.encoder.nowhere.Encoder"),
    "a part of another kind": set_value("projectors.audio._target_", "omnihuman.encoder.bert.Bert"),
    "a node within a part": set_value("encoders.video.aspect", {"_target_": "os.system", "command": "true"}),
    "a node in a list": set_value("fusions.gate.inputs", [{"_target_": "os.system"}]),
    "positional arguments": set_value("llm._args_", ["echo"]),
    "a partial part": set_value("encoders.video._partial_", True),
    "an interpolation": set_value("llm.template.system", "${oc.env:HOME}"),
    "the tokenizer's own template": set_value("llm.template", {"name": "tokenizer", "system": None}),
    "a template without an end-of-turn token": set_value("llm.template.special_tokens", []),
    "an unknown key of a template": set_value("llm.template.file", "x"),
    "a name of a template": set_value("llm.template", "chatml"),
    "an unknown option": set_value("encoders.video.hook", "x"),
    "weights": set_value("encoders.video.weights", "somebody/else"),
    "weights of the language model": set_value("llm.weights", "/etc"),
    "a tokenizer elsewhere": set_value("llm.tokenizer", "../../etc"),
    "a tokenizer at an absolute path": set_value("encoders.instruction.tokenizer", "/etc"),
    "a tokenizer of the hub": set_value("llm.tokenizer", "somebody/else"),
    "code beside the configuration": set_value("llm.architecture.auto_map", {"AutoModelForCausalLM": "evil.Model"}),
    "kernels of the hub": set_value("llm.architecture.attn_implementation", "somebody/kernel"),
    "a private field": set_value("llm.architecture._attn_implementation", "somebody/kernel"),
    "another kind of model": set_value("llm.architecture.model_type", "siglip"),
    "a nested model": set_value("llm.architecture.model_type", "omnihuman"),
    "an invalid name": set_value("encoders.video.name", "../video"),
    "a duplicate name": set_value("encoders.video.name", "audio"),
    "parts by name": set_value("fusions", {"gate": {}}),
    "a part that is a string": set_value("fusions", ["gate"]),
    "no language model": set_value("llm", None),
}


@pytest.mark.parametrize("case", UNTRUSTED)
def test_untrusted_graph_raises(case: str, make_release: Folder) -> None:
    folder = make_release("humanomni_stage3")
    graph = deepcopy(read_graph(folder))
    UNTRUSTED[case](graph)
    with pytest.raises(ValueError, match=r"config\.json: graph"):
        parse_graph(graph, folder)


def test_value_that_is_no_graph_raises(tmp_path: Path) -> None:
    for graph in (None, [], "x", {}):
        with pytest.raises(ValueError, match=r"omnihuman export"):
            parse_graph(graph, tmp_path)
