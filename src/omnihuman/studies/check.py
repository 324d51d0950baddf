"""The check of a study before its first training: everything is composed, so that a mistake is one line at once."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from omnihuman.benchmark.base import score_unanswered
from omnihuman.build import build, compose_config, prune, select_model_of_base
from omnihuman.judge.rule import RuleJudge
from omnihuman.mistake import explain
from omnihuman.overrides import without_keys
from omnihuman.studies.cell import build_chain, list_evaluations, locate_run
from omnihuman.studies.config import find_baseline, list_seeds, read_cells
from omnihuman.training.chain import Chain
from omnihuman.values import check_types

PARENT_SEEDS = ("shared", "own")


def check_study(config: DictConfig) -> None:
    """Compose every training and every evaluation of a study, and build the models without memory.

    Raises:
        ValueError: the first mistake, with its cell, evaluation or key.
    """
    names = check_names(config)
    if config.parent_seeds not in PARENT_SEEDS:
        raise ValueError(f"parent_seeds={config.parent_seeds}: choose from {', '.join(PARENT_SEEDS)}.")
    models = _ModelCheck()
    digests: dict[Path, str] = {}
    evaluations = set[tuple[str, ...]]()
    for seed in list_seeds(config):
        for cell in names:
            with _locate_mistakes(f"study {config.study}, cell {cell}", "train"):
                chain = build_chain(config, cell, seed)
                _check_folder(config, chain, digests)
                models.check(chain)
            for name, overrides in list_evaluations(config, cell, chain).items():
                if (name, *overrides) in evaluations:
                    continue
                evaluations.add((name, *overrides))
                with _locate_mistakes(f"study {config.study}, evaluation {name}", "evaluate"):
                    _check_evaluation(name, [*locate_run(chain), *overrides], list(config.scores))


def check_names(config: DictConfig) -> list[str]:
    """Return the names of the cells, which claims, baseline and the paper's rows may name.

    Raises:
        ValueError: something in the study names an unknown cell, score or evaluation.
    """
    cells = list(read_cells(config))
    _check_paper(config)
    if not cells:
        raise ValueError(f"study {config.study} has no cells: fill in `cells` or `grid` of its sweep.yaml.")
    unknown = {find_baseline(config), *map(str, config.paper.rows)} - set(cells)
    for claim in config.claims:
        unknown |= {str(claim.better), str(claim.worse)} - set(cells)
        if claim.score not in config.scores:
            raise ValueError(
                f"study {config.study}: the claim {claim.text!r} has the score {claim.score!r}; expected one of "
                f"`scores`: {', '.join(config.scores)}."
            )
    if unknown:
        raise ValueError(f"study {config.study}: unknown cells {sorted(unknown)}; expected some of {', '.join(cells)}.")
    for key in config.scores:
        if str(key).partition("/")[0] not in config.evaluations:
            raise ValueError(
                f"study {config.study}: the score {key!r} names no evaluation; expected <evaluation>/<score> with "
                f"one of {', '.join(config.evaluations)}."
            )
    return cells


def _check_paper(config: DictConfig) -> None:
    """Check that the rows of the paper's table are as long as its columns, and that cells skip known evaluations."""
    count = len(config.paper.columns)
    rows = dict(config.paper.rows)
    if config.paper.get("scores"):
        rows["scores"] = config.paper.scores
    for name, row in rows.items():
        if len(row) != count:
            raise ValueError(
                f"study {config.study}: paper: {name} has {len(row)} values, and there are {count} columns."
            )
    for name, cell in read_cells(config).items():
        unknown = sorted(set(cell.get("skip", ())) - set(config.evaluations))
        if unknown:
            raise ValueError(
                f"study {config.study}: the cell {name} skips {unknown}; expected some of the evaluations "
                f"{', '.join(config.evaluations)}."
            )


@contextmanager
def _locate_mistakes(location: str, root: str) -> Iterator[None]:
    """Let a mistake begin with its location."""
    try:
        yield
    except Exception as error:
        message = explain(error, [], root)
        if message is None:
            raise
        raise ValueError(f"{location}: {message}") from error


def _check_folder(config: DictConfig, chain: Chain, digests: dict[Path, str]) -> None:
    """Check that a run's folder is that of no other run, neither of this study nor on disk."""
    run = chain.run
    if digests.setdefault(run.folder, run.digest) != run.digest:
        raise ValueError(f"it shares the folder {run.folder} with another cell, and the runs differ; rename the cell.")
    if not config.overwrite:
        run.check_free("study=<name> gives the study folders of its own, or rename the folder")


class _ModelCheck:
    """Builds the models of chains on the meta device, each configuration once."""

    def __init__(self) -> None:
        import transformers

        from omnihuman.cost.forecast import Forecaster

        transformers.utils.logging.set_verbosity_error()
        transformers.utils.logging.disable_progress_bar()
        self.forecaster = Forecaster()
        self.digests = set[str]()

    def check(self, chain: Chain) -> None:
        """Check the types of the overrides, the parts and the learning rates of a run and its parents.

        Raises:
            ValueError: parts do not fit together, or a pattern of ``trainable`` names none.
        """
        from omnihuman.model.trainable import set_trainable
        from omnihuman.training.assembly import read_trainable

        for parent in chain.parents:
            self.check(parent)
        overrides = select_model_of_base(without_keys(chain.overrides, "variant"))
        if not overrides or chain.run.digest in self.digests:
            return
        self.digests.add(chain.run.digest)
        check_types(overrides, "train")
        config = chain.config.copy()
        config.random_weights = config.size != "nano"  # models of the hub are not loaded
        model: Any = OmegaConf.to_container(config.model, resolve=True)
        set_trainable(self.forecaster.build_model(prune(model)), read_trainable(config))


def _check_evaluation(name: str, overrides: Sequence[str], scores: Sequence[str]) -> None:
    """Check an evaluation: its options, its questions, and that it has the scores of the study."""
    check_types(overrides, "evaluate")
    config = compose_config(overrides, "evaluate")
    benchmark = build(config.benchmark)
    if config.get("judge") is not None:
        benchmark.judge = RuleJudge()  # names the scores without a request
    known = set()
    for score in score_unanswered(benchmark, benchmark.questions(), benchmark.log_probs):
        known.add(f"{name}/{score.name}")
    missing = [key for key in scores if key.partition("/")[0] == name and key not in known]
    if missing:
        raise ValueError(f"it has no score {', '.join(missing)}; expected some of {', '.join(sorted(known))}.")
