"""Help of the verbs: an example first, every key with its comment, only the groups that a verb reads."""

from pathlib import Path

import pytest
from omegaconf import DictConfig

from omnihuman.build import compose_config
from omnihuman.config_files import config_dir, list_choices, list_defaults, list_studies, read_file
from omnihuman.usage import WIDTH, format_usage, list_entries

VERBS = sorted(path.stem for path in Path(config_dir()).glob("*.yaml"))

every_verb = pytest.mark.parametrize("verb", VERBS)


def list_keys(node: DictConfig) -> set[str]:
    return {str(key) for key in node}


@every_verb
def test_help_begins_with_an_example_and_is_narrow(verb: str) -> None:
    lines = format_usage(verb, f"Does it: omnihuman {verb}").splitlines()
    assert lines[0].startswith(f"omnihuman {verb} ") and "Does it." in lines
    assert [line for line in lines if len(line) > WIDTH] == []


@every_verb
def test_every_key_of_a_verb_has_a_comment(verb: str) -> None:
    keys = []
    for entry in read_file(verb).entries:
        if not (entry.comment or entry.title or entry.key.startswith("max_media.")):
            keys.append(entry.key)
    assert set(keys) <= {"end", "top_p", "top_k", "num_beams", "repetition_penalty", "seed"}


@every_verb
def test_keys_and_groups_are_those_that_hydra_composes(verb: str) -> None:
    keys = set()
    for name in (verb, *read_file(verb).bases):
        keys |= {entry.key.partition(".")[0] for entry in read_file(name).entries}
    groups = {entry.package.partition(".")[0] for entry in list_defaults(verb)}
    selected = {entry.package.partition(".")[0] for entry in list_defaults(verb) if entry.choice not in ("null", "[]")}
    composed = list_keys(compose_config([], verb))
    assert composed - {"frames", "data"} <= keys | groups  # a size sets both
    assert keys | selected <= composed


def test_keys_of_a_part_are_those_that_hydra_composes() -> None:
    for default in list_defaults("train"):
        if "@model." in default.key and "/" not in default.group:
            node = compose_config([f"+{default.group}={default.choice}", "+size=7b", "+random_weights=true"], None)
            keys = {entry.key.partition(".")[0] for entry in list_entries(f"{default.group}/{default.choice}")}
            assert keys - {"_target_", "_partial_"} == list_keys(node[default.group]) - {
                "_target_",
                "_partial_",
                "template",
            }


def test_groups_follow_the_experiment() -> None:
    assert "projector@model.projectors.facial" in {entry.key for entry in list_defaults("train", {"model": "favchat"})}
    assert "projectors.{general,facial}" in format_usage("train", "", ["+experiment=favchat_stage1", "--help"])


def test_experiments_and_studies_are_listed() -> None:
    text = format_usage("train", "")
    for name in list_choices("experiment"):
        assert f"\n  {name} " in text or f"\n  {name}\n" in text
    assert all(f"\n  {name} " in format_usage("study", "") for name in list_studies())
    assert "encoder@" not in format_usage("generate", "")


def test_help_of_a_group_has_its_choices_and_the_keys_of_one() -> None:
    text = format_usage("train", "", ["--help", "data", "data=json"])
    assert "  sample " in text and "Keys of data=json:" in text and "data.records=???" in text
    assert "data.root=data/sample" in format_usage("train", "", ["--help", "data"])
