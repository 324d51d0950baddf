"""Checks of a command line: keys without a reader, missing values, paths; and what must pass."""

import pytest
from omegaconf import OmegaConf

from omnihuman.build import compose_config
from omnihuman.config_files import list_choices
from omnihuman.keys import check_files, check_keys, suggest

FACE = "+experiment=humanomni_stage1_face"


@pytest.mark.parametrize(
    ("argument", "cure"),
    [
        ("+recipe.learning_rate=1e-3", r"recipe\.lr\?"),
        ("++recipe.learning_rate=1e-3", r"recipe\.lr\?"),
        ("+learning_rate=1e-3", r"recipe\.lr\?"),
        ("+validation.view=[V]", r"validation\.views\?"),
        ("+trainer.fast_dev_rnu=true", r"trainer\.fast_dev_run\?"),
        ("+trainer.logger=false", "logger=csv"),
        ("+trainer.accumulate_grad_batches=4", r"recipe\.batch_size"),
        ("+optimizer.lr=1e-3", r"recipe\.lr"),
        ("+optimizer.weight_dekay=0", r"AdamW .*optimizer\.weight_decay\?"),
        ("+model.projectors.face.depht=4", r"MLPProjector .*face\.depth\?"),
        ("+model.projectors.face.in_dim=4", "MLPProjector has no option in_dim"),
        ("+model.projectors.fce.depth=4", r"model\.projectors\.face\?"),
        ("+model.projektors={}", r"OmniModel .*model\.projectors"),
        ("+projector@model.projektors.face=linear", r"OmniModel .*model\.projectors"),
        ("+data.recrds=a.json", r"data\.records"),
        ("+logger.wandb.offline=true", "logger=csv.* or wandb first"),
        ("+callback.mine.patience=3", r"callback\.mine\._target_"),
        ("~recipe.lr", r"recipe\.lr=\.\.\."),
        ("~trainer.max_steps", r"trainer\.max_steps=\.\.\."),
    ],
)
def test_a_key_without_a_reader_raises(argument: str, cure: str) -> None:
    texts = [FACE, argument]
    with pytest.raises(ValueError, match=cure) as error:
        check_keys(texts, compose_config(texts), "train")
    assert str(error.value).startswith(f"{argument}: ")


@pytest.mark.parametrize(
    "argument",
    [
        "recipe.lr=1",
        "++recipe.lr=1",
        "+trainer.fast_dev_run=true",
        "+model.llm.lora.r=8",
        "+model.reads.video=faces",
        "+optimizer.fused=true",
        "+callback.mine={_target_: lightning.pytorch.callbacks.Timer}",
        "+metric@validation.metrics.face=choice",
        "+projector@model.projectors.more=linear",
        "~model.projectors.face.depth",
    ],
)
def test_a_key_with_a_reader_passes(argument: str) -> None:
    texts = [FACE, argument]
    check_keys(texts, compose_config(texts), "train")


def test_a_value_that_a_verb_does_not_read_raises() -> None:
    texts = ["run=x", "benchmark=dfew", "benchmark.root=media"]
    with pytest.raises(ValueError, match=r"benchmark\.root=media: .*omnihuman report .*--help"):
        check_keys(texts, compose_config(texts, "report"), "report")


def test_a_key_that_another_one_refers_to_has_a_reader() -> None:
    texts = [FACE, "+my_rate=1e-3", "recipe.lr=${my_rate}"]
    check_keys(texts, compose_config(texts), "train")


@pytest.mark.parametrize("experiment", list_choices("experiment"))
def test_every_experiment_sets_keys_with_a_reader(experiment: str) -> None:
    check_files(compose_config([f"+experiment={experiment}"]), "train")


@pytest.mark.parametrize("verb", ["chat", "evaluate", "generate", "inspect", "plan", "report", "serve"])
def test_every_verb_has_keys_with_a_reader(verb: str) -> None:
    check_files(compose_config([], verb), verb)


@pytest.mark.parametrize(
    ("yaml", "message"),
    [
        ({"recipe": {"learning_rate": 1}}, r"recipe\.learning_rate: .*recipe\.lr\?"),
        ({"validation": {"view": ["V"]}}, r"validation\.view: .*validation\.views\?"),
        ({"trainer": {"max_stepz": 1}}, r"trainer\.max_stepz: .*trainer\.max_steps"),
        ({"sede": 1}, r"sede: .* no key sede"),
    ],
)
def test_a_yaml_of_the_user_sets_keys_with_a_reader(yaml: dict[str, object], message: str) -> None:
    config = OmegaConf.unsafe_merge(OmegaConf.create(OmegaConf.to_container(compose_config([FACE]))), yaml)
    with pytest.raises(ValueError, match=message):
        check_files(config, "train")


def test_a_yaml_of_the_user_may_have_values_that_others_refer_to() -> None:
    yaml = {
        "my_rate": 1,
        "recipe": {"lr": "${my_rate}", "mine": 2, "warmup": "${recipe.mine}"},
        "trainer": {"fast_dev_run": 1},
    }
    check_files(OmegaConf.unsafe_merge(OmegaConf.create(OmegaConf.to_container(compose_config([FACE]))), yaml), "train")


def test_suggestions() -> None:
    assert suggest("a.x", ["a.long", "a.wide"]) == "a has long and wide."
    assert suggest("x", ["a", "b.c"]) == "choose a or b."
