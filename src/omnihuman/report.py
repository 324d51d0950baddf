"""Draw what was measured: ``python -m omnihuman.report run=… [benchmark=…]``, ``folder=…`` or ``study=…``."""

import logging
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from omnihuman.build import build
from omnihuman.verb import verb

if TYPE_CHECKING:
    from collections.abc import Sequence

    from omnihuman.benchmark.base import Prediction


@verb("report", "folder", "baseline")
def main(config: DictConfig) -> None:
    """Figures, tables, pictures and a page from predictions, without a model; or the table of a study.

    Raises:
        ValueError: not exactly one of ``run``, ``folder`` and ``study`` is given, or what it names does not hold.
    """
    logging.basicConfig(level=logging.INFO, format="%(message)s", force=True)
    given = [key for key in ("run", "folder", "study") if config[key] is not None]
    if len(given) != 1:
        raise ValueError(f"give exactly one of run=, folder= and study=, got {given or 'none'}.")
    if config.study is not None:
        from omnihuman.study.config import compose_study
        from omnihuman.study.report import report_study, write_results

        names = [config.study] if isinstance(config.study, str) else list(config.study)
        studies = [compose_study(name, [f"size={config.size}", f"runs={config.runs}"]) for name in names]
        for study in studies:
            report_study(study, publish=config.write)
        if config.results is not None:
            write_results(studies, Path(config.results))
        return
    from omnihuman.evaluation import tables
    from omnihuman.evaluation.folder import benchmark_of, find
    from omnihuman.evaluation.report import PUBLIC, report_folder, report_run
    from omnihuman.training.runs import run_folder

    judge = None if config.get("judge") is None else build(config.judge)
    run = run_folder(config)
    target = OmegaConf.select(config, "benchmark._target_")
    module = None if target is None else str(target).split(".")[2]
    folders = [Path(config.folder)] if config.folder is not None else find(run, module)
    if config.estimate:
        say_costs(folders, judge)
        return
    options = {
        "baseline": None if config.baseline is None else Path(config.baseline),
        "publish": config.publish,
        "force": config.force,
        "most_cards": config.cards,
        "confidence": config.confidence,
        "resamples": config.resamples,
        "seed": config.seed,
    }
    if config.folder is not None:
        report = report_folder(folders[0], judge, **options)
        print(tables.markdown(tables.compare([report], benchmark_of(folders[0]).peers, config.force)))
    else:
        print(report_run(run, folders, judge, **options))
    for folder in folders:
        print("written:", (folder / PUBLIC if config.publish else folder) / "index.html")


def say_costs(folders: "Sequence[Path]", judge: Any) -> None:
    """What a judge would cost: calls, tokens, dollars; it is asked nothing.

    Raises:
        ValueError: no judge is named, or a folder's benchmark has no use for one.
    """
    from omnihuman.evaluation.folder import PREDICTIONS, benchmark_of, read_predictions
    from omnihuman.judge.endpoint import estimate

    if judge is None:
        raise ValueError("estimate=true says what a judge would cost: name one, judge=endpoint judge.model=...")
    for folder in folders:
        asked = read_predictions(folder / PREDICTIONS, benchmark_of(folder).name)
        print(f"{folder}: {estimate(judge, partial(_score, folder, asked))}")


def _score(folder: Path, asked: "list[Prediction]", judge: Any) -> None:
    from omnihuman.evaluation.folder import benchmark_of

    benchmark_of(folder, judge).scores(asked)


if __name__ == "__main__":
    main()
