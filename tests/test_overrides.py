"""Overrides of every form that Hydra's grammar has."""

import random
from typing import Any

import pytest
from hydra import initialize_config_dir

from omnihuman.build import compose_config, config_dir, register_resolvers
from omnihuman.overrides import (
    expand_sweep,
    parse_override,
    parse_overrides,
    quote,
    quote_argument,
    select_keys,
    without_keys,
)


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("benchmark.path=情绪/test.json", "情绪/test.json"),
        ("tag=第 一 次", "第 一 次"),
        ("options=[高兴, very sad,[平静,0.5]]", ["高兴", "very sad", ["平静", 0.5]]),
        ("options={0: 高兴,1: sad}", {0: "高兴", 1: "sad"}),
        ("options=['高兴',\"难过\"]", ["高兴", "难过"]),
        ("tag=http://例", "http://例"),
    ],
)
def test_values_in_any_script_are_quoted(argument: str, value: Any) -> None:
    parsed = parse_override(quote_argument(argument, (), ()))
    assert parsed._parsed.value() == value


def test_sweeps_in_any_script_are_sweeps() -> None:
    assert parse_override(quote_argument("tag=一,two", (), ())).choices == ["'一'", "two"]
    with pytest.raises(ValueError, match=r"高兴 .* ASCII"):
        quote_argument("labels={高兴: [开心]}", (), ())


@pytest.mark.parametrize(
    ("text", "name", "key", "value"),
    [
        ("seed=1", "seed", "seed", "1"),
        ("+a.b=", "a.b", "a.b", ""),
        ("++a.b=null", "a.b", "a.b", "null"),
        ("~a.b", "a.b", "a.b", ""),
        ("~a=b", "a", "a", "b"),
        ("model=favchat", "model", "model", "favchat"),
        ("fusion@model.fusions.gate=moe", "fusion", "model.fusions.gate", "moe"),
        ("+metric@validation.metrics.face=choice", "metric", "validation.metrics.face", "choice"),
        ("hydra/launcher=joblib", "hydra/launcher", "hydra.launcher", "joblib"),
        ("encoder/siglip@model.encoders.video=7b", "encoder/siglip", "model.encoders.video", "7b"),
        ("run='x/seed=1'", "run", "run", "'x/seed=1'"),
        ("data.tasks=[a,b]", "data.tasks", "data.tasks", "[a,b]"),
        ("llm.lora={r: 2, names: all-linear}", "llm.lora", "llm.lora", "{r: 2, names: all-linear}"),
    ],
)
def test_an_override_has_a_name_a_key_and_a_value(text: str, name: str, key: str, value: str) -> None:
    override = parse_override(text)
    assert (override.name, override.key, override.value, str(override)) == (name, key, value, text)
    assert override.is_delete == text.startswith("~") and not override.is_sweep
    assert override.split_sweep() == [text]


def test_root_is_the_first_part_of_the_name() -> None:
    texts = ["+trainer.max_steps=2", "hydra/launcher=x", "fusion@model.fusions.gate=moe", "~model.fusions.gate"]
    assert [override.root for override in parse_overrides(texts)] == ["trainer", "hydra", "fusion", "model"]


@pytest.mark.parametrize(
    ("text", "choices"),
    [
        ("cell=full,without_moe", ["full", "without_moe"]),
        ("cell=choice(a,b)", ["a", "b"]),
        ("seed=range(3)", ["0", "1", "2"]),
        ("frames=4", ["4"]),
        ("cell='a,b'", ["a,b"]),
        ("data.tasks=[a,b],[c]", ["[a,b]", "[c]"]),
        ("x={a: 1},{b: 2}", ["{a:1}", "{b:2}"]),
        ("cell=", [""]),
    ],
)
def test_choices_are_the_values_of_a_sweep(text: str, choices: list[str]) -> None:
    assert parse_override(text).choices == choices


def test_invalid_override_raises() -> None:
    with pytest.raises(ValueError, match=r"'x=a=b' is no Hydra override"):
        parse_override("x=a=b")


def test_keys_are_selected_with_what_is_below_them() -> None:
    texts = ["+experiment=x", "variant=a", "trainer=fsdp", "+trainer.devices=2", "trainers=1", "m@model.drop=b"]
    assert without_keys(texts, "variant", "trainer") == ["+experiment=x", "trainers=1", "m@model.drop=b"]
    assert [str(override) for override in select_keys(texts, "trainer", "model.drop")] == [
        "trainer=fsdp",
        "+trainer.devices=2",
        "m@model.drop=b",
    ]


def expand(*overrides: str, is_multirun: bool = True) -> list[list[str]]:
    register_resolvers()
    with initialize_config_dir(config_dir(), version_base="1.3"):
        return expand_sweep(overrides, is_multirun)


def test_a_sweep_is_every_combination() -> None:
    cells = expand("+experiment=a", "frames=8,16", "seed=range(3)", "recipe.lr=choice(1,2)")
    assert len(cells) == 12 and cells[0] == ["+experiment=a", "frames=8", "seed=0", "recipe.lr=1"]
    assert len({tuple(cell) for cell in cells}) == 12
    assert expand("data.tasks=[a,b]", "~x.y", is_multirun=False) == [["data.tasks=[a,b]", "~x.y"]]
    assert len(expand("projector@model.projectors.face=glob(mlp*)")) == 2


@pytest.mark.parametrize(
    ("override", "is_multirun", "cure"), [("a=1,2", False, "add -m"), ("a=interval(0,1)", True, r"interval.*values")]
)
def test_override_that_is_no_list_of_cells_raises(override: str, is_multirun: bool, cure: str) -> None:
    with pytest.raises(ValueError, match=cure):
        expand(override, is_multirun=is_multirun)


def test_quoted_text_is_parsed_to_itself() -> None:
    generator = random.Random(0)
    for _ in range(200):
        text = "".join(generator.choice("ab\\'\" [{=,\n") for _ in range(6))
        assert parse_override(f"a={quote(text)}").choices == [text]


def test_quoted_interpolation_stays_text() -> None:
    text = "it's ${seed}, [really]"
    assert compose_config([f"variant={quote(text)}"]).variant == text


def test_paths_with_an_equals_sign_are_quoted() -> None:
    paths = ("run", "variant")
    assert quote_argument("run=runs/nano/x/base=y", (), paths) == "run='runs/nano/x/base=y'"
    assert quote_argument("variant=base=y", (), paths) == "variant='base=y'"
    assert quote_argument("run='a=b'", (), paths) == "run='a=b'"
    for plain in ("run=a,b", "recipe.lr=1", "--help", "run="):
        assert quote_argument(plain, ("lr",), paths) == plain
