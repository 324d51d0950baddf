"""A mistake in a study is one line before the first training."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from omegaconf import DictConfig, OmegaConf

from omnihuman.studies.cell import build_chain
from omnihuman.studies.check import check_study
from omnihuman.studies.config import compose_study

LINEAR = "projector@model.projectors.face=linear_half"


def build_study(folder: Path, corpus: Path, **changes: Any) -> DictConfig:
    """Return a study of two cells, with some of its keys changed."""
    evaluation = ["benchmark=sample", "benchmark.split=val", f"benchmark.root={corpus}"]
    sweep: Mapping[str, Any] = {
        "defaults": ["study", "_self_"],
        "experiment": "humanomni_stage1_face",
        "cells": {"mlp": {}, "linear": {"train": [LINEAR]}},
        "evaluations": {"emotion": evaluation},
        "scores": {"emotion/war": "WAR"},
        "claims": [{"text": "depth helps", "better": "mlp", "worse": "linear", "score": "emotion/war"}],
        "runs": str(folder / "runs"),
    }
    (folder / "mine").mkdir()
    OmegaConf.save(OmegaConf.create({**sweep, **changes}), folder / "mine" / "sweep.yaml")
    return compose_study(str(folder / "mine"))


def test_a_study_without_mistakes_passes(tmp_path: Path, corpus: Path) -> None:
    check_study(build_study(tmp_path, corpus, seeds=[1, 2]))
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"experiment": "humanomni_stage11"},
            r"study mine, cell mlp: experiment=humanomni_stage11: .*humanomni_stage1",
        ),
        ({"cells": {}}, r"study mine .*no cells.*grid"),
        ({"cells": {"a": {"train": ["recipe.lrr=1"]}}, "claims": []}, r"cell a: .*recipe\.lrr"),
        ({"cells": {"a": {"train": ["recipe.lr=fast"]}}, "claims": []}, r"cell a: recipe\.lr=fast: .*number"),
        ({"cells": {"a": {"train": ["model.drop=[projectors.nose]"]}}, "claims": []}, r"cell a: .*projectors\.nose"),
        (
            {"cells": {"a": {"train": ["+trainable={nose: 1}"]}}, "claims": []},
            r"cell a: .*nose",
        ),
        ({"cells": {"a": {"train": ["seed=3"]}}, "claims": []}, r"cell a: seed=3: .*seeds=\[1,2,3\]"),
        ({"common": ["base=nowhere"]}, "cell mlp: nowhere"),
        ({"baseline": "sum"}, r"unknown cells \['sum'\].*mlp, linear"),
        ({"claims": [{"text": "x", "better": "mlp", "worse": "sum", "score": "emotion/war"}]}, r"\['sum'\]"),
        ({"claims": [{"text": "x", "better": "mlp", "worse": "linear", "score": "e/war"}]}, "'e/war'.*emotion/war"),
        ({"scores": {"war": "WAR"}, "claims": []}, r"'war' .*emotion"),
        ({"seeds": [1, 1]}, r"seeds=\[1, 1\]"),
        ({"parent_seeds": "none"}, "parent_seeds=none: .*shared, own"),
    ],
    ids=lambda value: re.sub(r"\W+", " ", str(value))[:40],
)
def test_a_mistake_is_named(tmp_path: Path, corpus: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        check_study(build_study(tmp_path, corpus, **changes))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("evaluation", "scores", "message"),
    [
        ("benchmark=samples", "emotion/war", r"study mine, evaluation emotion: .*benchmark=samples"),
        ("benchmark.task=moods", "emotion/war", r"evaluation emotion: .*moods"),
        ("batch_size=few", "emotion/war", r"evaluation emotion: batch_size=few: .*number"),
        ("view=V", "emotion/wer", r"evaluation emotion: .*emotion/wer; .*emotion/uar,.* emotion/war"),
    ],
)
def test_a_mistake_of_an_evaluation_is_named(
    tmp_path: Path, corpus: Path, evaluation: str, scores: str, message: str
) -> None:
    config = build_study(tmp_path, corpus, scores={scores: "score"}, claims=[])
    config.evaluations.emotion.append(evaluation)
    with pytest.raises(ValueError, match=message):
        check_study(config)


def test_a_folder_with_a_run_of_another_config_is_named(tmp_path: Path, corpus: Path) -> None:
    config = build_study(tmp_path, corpus)
    run = build_chain(config, "linear", 42).run
    run.open(OmegaConf.create({}))
    run.weights.touch()
    run.finish()
    check_study(config)
    config.extra_overrides = ["recipe.lr=0.5"]
    with pytest.raises(ValueError, match=r"cell linear: .*mine\.linear,seed=42 holds another run.*study=.*overwrite"):
        check_study(config)
    config.overwrite = True
    check_study(config)
