"""Write reports: ``omnihuman report run=… [benchmark=…]``, ``folder=…``, ``study=…`` or ``gallery=[…]``."""

import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from omnihuman.build import build
from omnihuman.verb import verb


@verb("report", "folder", "baseline", "out", extra="eval")
def main(config: DictConfig) -> None:
    """Write metrics, tables, charts and a page from predictions, without a model; or the table of a study.

    Raises:
        ValueError: not exactly one of ``run``, ``folder``, ``study`` and ``gallery`` is set, or it names nothing valid.
    """
    logging.basicConfig(level=logging.INFO, format="%(message)s", force=True)
    sources = [key for key in ("run", "folder", "study", "gallery") if config[key] is not None]
    if len(sources) != 1:
        raise ValueError(f"expected exactly one of run=, folder=, study= and gallery=, got {sources or 'none'}.")
    if config.format not in (None, "markdown", "latex", "csv"):
        raise ValueError(f"format={config.format}: choose from markdown, latex, csv.")
    if config.format is not None and config.study is None:
        raise ValueError("format= is that of the table of a study: add study=, or leave it out.")
    if config.out is not None and config.gallery is None:
        raise ValueError("out= is the page of a gallery: add gallery=[...], or leave it out.")
    if config.study is not None:
        report_studies(config)
    elif config.gallery is not None:
        report_gallery(config)
    else:
        report_evaluations(config)


def report_studies(config: DictConfig) -> None:
    """Write the tables of one or several studies, and their claims in one file."""
    from omnihuman.studies.config import load_study
    from omnihuman.studies.report import report_study, write_claims

    names = config.study
    if isinstance(names, str):
        names = [names]
    size = None if config.size is None else str(config.size)
    studies = [load_study(name, str(config.runs), size) for name in names]
    for study in studies:
        report_study(study, publish=config.write, output_format=config.format or "markdown")
    if config.results is not None:
        write_claims(studies, Path(config.results))


def report_evaluations(config: DictConfig) -> None:
    """Write the reports of one evaluation or of all evaluations of a run."""
    from omnihuman.evaluation.comparison import compare_reports
    from omnihuman.evaluation.folder import load_benchmark
    from omnihuman.evaluation.metrics import Bootstrap
    from omnihuman.evaluation.report import PUBLIC, report_folder, report_run
    from omnihuman.evaluation.tables import format_markdown
    from omnihuman.training.run_search import find_run_folder

    folders, judge, baseline = find_folders(config), None, None
    if config.get("judge") is not None:
        judge = build(config.judge)
    if config.estimate:
        print_judge_costs(folders, judge)
        return
    if config.baseline is not None:
        baseline = Path(config.baseline)
    options = {
        "baseline": baseline,
        "publish": config.publish,
        "force": config.force,
        "max_cards": config.cards,
        "bootstrap": Bootstrap(config.confidence, config.resamples, config.seed),
    }
    if config.folder is not None:
        report = report_folder(folders[0], judge, **options)
        print(format_markdown(compare_reports([report], load_benchmark(folders[0]).published, config.force)))
    else:
        print(report_run(find_run_folder(config), folders, judge, **options))
    for folder in folders:
        print("written:", (folder / PUBLIC if config.publish else folder) / "index.html")


def report_gallery(config: DictConfig) -> None:
    """Write the page with the answers of several evaluations side by side."""
    from omnihuman.evaluation.gallery import write_gallery

    file = Path(config.out or "gallery.html").expanduser()
    counts = write_gallery(file, find_gallery(config), config.publish, config.cards)
    print(f"{sum(counts.values())} questions: {', '.join(f'{name} {count}' for name, count in counts.items())}")
    print(f"written: {file} ({file.stat().st_size / 1e6:.1f} MB)")


def find_gallery(config: DictConfig) -> list[Path]:
    """Return the folders of the evaluations of a gallery; a run stands for all of its evaluations.

    Raises:
        ValueError: a name is neither a folder of an evaluation nor an evaluated run.
    """
    from omnihuman.evaluation.folder import PREDICTIONS

    names = [config.gallery] if isinstance(config.gallery, str) else list(config.gallery)
    folders: list[Path] = []
    for name in map(str, names):
        folder = Path(name).expanduser()
        if (folder / PREDICTIONS).is_file():
            folders.append(folder)
        else:
            selected = config.copy()
            selected.run = name
            folders += find_folders(selected)
    return folders


def find_folders(config: DictConfig) -> list[Path]:
    """Return the folders of the evaluations that the config selects.

    Raises:
        ValueError: the run has no such evaluation.
    """
    from omnihuman.evaluation.folder import find_evaluations
    from omnihuman.training.run_search import find_run_folder

    if config.folder is not None:
        return [Path(config.folder)]
    target = OmegaConf.select(config, "benchmark._target_")
    if target is None:
        return find_evaluations(find_run_folder(config))
    return find_evaluations(find_run_folder(config), str(target).split(".")[2])


def print_judge_costs(folders: Sequence[Path], judge: Any) -> None:
    """Print the calls, tokens and dollars that a judge would cost, without querying it.

    Raises:
        ValueError: no judge is configured, or a folder's benchmark takes none.
    """
    from omnihuman.judge.endpoint import estimate

    if judge is None:
        raise ValueError("estimate=true needs a judge; add judge=endpoint judge.model=...")
    for folder in folders:
        print(f"{folder}: {estimate(judge, partial(_score, folder))}")


def _score(folder: Path, judge: Any) -> None:
    from omnihuman.evaluation.folder import PREDICTIONS, load_benchmark, read_predictions

    benchmark = load_benchmark(folder, judge)
    benchmark.scores(read_predictions(folder / PREDICTIONS, benchmark.name))


if __name__ == "__main__":
    main()
