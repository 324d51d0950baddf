"""One evaluation from start to end: a trained run answers a benchmark's questions, then the report is written."""

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from omnihuman import gate
from omnihuman.build import build
from omnihuman.overrides import without_keys
from omnihuman.training.run_search import find_run_folder, read_config

if TYPE_CHECKING:
    from omnihuman.benchmark.base import Benchmark, Question
    from omnihuman.evaluation.answering import EvalOptions
    from omnihuman.inference.answerer import Answerer
    from omnihuman.inference.prompting import Prompting


def evaluate(config: DictConfig, overrides: Sequence[str]) -> Path:
    """Answer the questions of one benchmark, score the answers and return the folder of the evaluation.

    Args:
        config: the composed root config ``evaluate``.
        overrides: the command line, for the processes that share the work.

    Raises:
        ValueError: the run, the benchmark's files or an option is invalid; the message names it.
    """
    import torch
    import transformers

    from omnihuman.evaluation.answering import answer_questions, run_processes
    from omnihuman.evaluation.control import change_branch
    from omnihuman.inference.answerer import Answerer, read_options
    from omnihuman.inference.prompting import choose_prompting

    logging.basicConfig(level=logging.INFO, format="%(message)s", force=True)
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    rank, num_shares = parse_share(config)
    run = find_run_folder(config)
    size = read_config(run).get("size")  # raises before the questions are read
    prompting = choose_prompting(run, config.official_prompt)
    benchmark: Benchmark = build(fill_benchmark(config.benchmark, prompting))
    questions = benchmark.questions()[: config.limit]
    if not questions:
        raise ValueError(f"{benchmark.name}: no questions; check the files and options in {config.benchmark}.")
    device = None
    if num_shares > 1 and torch.cuda.device_count() > 1:
        device = f"cuda:{rank}"
    answerer = Answerer.load(run, device=device, **read_options(config))
    options = _build_options(config, benchmark, answerer)
    change_branch(answerer.model.all_fusions.values(), options.control)
    folder = locate_evaluation(config, run, options)
    description = _describe(config, run, size, benchmark, options, prompting.name if prompting else None)
    prepare_folder(folder, description, config.overwrite and config.share is None)
    num_processes = count_processes(config.processes)
    if num_processes > 1 and config.share is None:
        del answerer  # every process loads its own
        torch.cuda.empty_cache()
        run_processes(num_processes, without_keys(overrides, "overwrite"))
    else:
        answer_questions(answerer, benchmark, questions, folder, options, (rank, num_shares))
    if config.share is None:
        _finish(config, benchmark, questions, folder)
    return folder


def fill_benchmark(config: DictConfig, prompting: "Prompting | None") -> DictConfig:
    """Set the options of a benchmark that are null to those of the model's authors, and return its config."""
    for key, value in (prompting.benchmark if prompting else {}).items():
        if key in config and config[key] is None:
            config[key] = value
    return config


def locate_evaluation(config: DictConfig, run: Path, options: "EvalOptions") -> Path:
    """Return the folder of an evaluation of a run; like a run's folder, it follows from names alone."""
    parts = [str(options.view), options.control.replace(":", "_"), str(config.tag or "")]
    benchmark = str(OmegaConf.select(config, "benchmark._target_")).split(".")[2]
    return run / "evaluation" / benchmark / "-".join(filter(None, parts))


def parse_share(config: DictConfig) -> tuple[int, int]:
    """Return the index of this process's share of the questions and the number of shares.

    Raises:
        ValueError: ``share`` or ``limit`` is invalid.
    """
    if config.limit is not None and (not isinstance(config.limit, int) or config.limit < 1):
        raise ValueError(f"limit={config.limit}: expected a positive number of questions; leave it out for all.")
    index, _, count = str(config.share or "0/1").partition("/")
    if not (index.isdigit() and count.isdigit() and int(index) < int(count)):
        raise ValueError(f"share={config.share}: expected index/count, counted from 0: 2/8 is the third of eight.")
    return int(index), int(count)


def count_processes(processes: int | str) -> int:
    """Return the number of processes that share the questions.

    Args:
        processes: their number, or ``auto`` for that of the GPUs.

    Raises:
        ValueError: it is neither.

    >>> count_processes(8)
    8
    """
    import torch

    if processes == "auto":
        return max(1, torch.cuda.device_count())
    if type(processes) is not int or processes < 1:
        raise ValueError(f"processes={processes}: expected a positive number, or auto for one on each GPU.")
    return processes


def prepare_folder(folder: Path, description: dict[str, Any], overwrite: bool) -> None:
    """Create the folder with its ``config.yaml``, or check that its predictions were made with the same options.

    Raises:
        ValueError: the folder has predictions of other options.
    """
    if overwrite and folder.exists():
        folder.rename(_choose_backup(folder))
    file = folder / "config.yaml"
    if file.is_file():
        _check_description(folder, description, OmegaConf.to_container(gate.read_config(file)))
    folder.mkdir(parents=True, exist_ok=True)
    # replaced in one step: another node may read the file while this one writes it
    temporary = file.with_suffix(f".{os.getpid()}")
    OmegaConf.save(OmegaConf.create(description), temporary)
    temporary.replace(file)


def _choose_backup(folder: Path) -> Path:
    number = 1
    while folder.with_name(f"{folder.name}.{number}").exists():
        number += 1
    return folder.with_name(f"{folder.name}.{number}")


def _check_description(folder: Path, description: dict[str, Any], previous: Any) -> None:
    differing = []
    for key in sorted(description.keys() | previous.keys()):
        # the tag is part of the folder's name
        if key != "tag" and description.get(key) != previous.get(key):
            differing.append(key)
    if differing:
        raise ValueError(
            f"{folder} has predictions of other options (differing: {', '.join(differing)}): give this evaluation a "
            "tag=..., or set overwrite=true, which renames the old folder."
        )


def _build_options(config: DictConfig, benchmark: "Benchmark", answerer: "Answerer") -> "EvalOptions":
    """Return the options of the evaluation; the benchmark decides where the config has ``null``."""
    from omnihuman.evaluation.answering import EvalOptions
    from omnihuman.evaluation.control import parse_control, select_view
    from omnihuman.inference.prompting import choose_max_new_tokens

    view = select_view(benchmark, answerer.view, config.view)
    max_new_tokens, log_probs = config.max_new_tokens, config.log_probs
    if max_new_tokens is None:
        max_new_tokens = max(benchmark.max_new_tokens, choose_max_new_tokens(answerer.prompting, 0))
    if log_probs is None:
        log_probs = benchmark.log_probs
    return EvalOptions(
        view,
        parse_control(config.control, view),
        config.batch_size,
        config.max_tokens,
        max_new_tokens,
        log_probs,
        config.cards,
        config.num_workers,
        config.seed,
    )


def _describe(
    config: DictConfig,
    run: Path,
    size: str | None,
    benchmark: "Benchmark",
    options: "EvalOptions",
    prompting: str | None,
) -> dict[str, Any]:
    """Return what decides the answers, without what changes only the speed: the folder's ``config.yaml``."""
    digest = run / "digest"
    name, folder = str(config.run), Path(str(config.runs), str(size))
    if run.is_relative_to(folder):
        name = run.relative_to(folder).as_posix()  # with the variant
    benchmark_options: Any = OmegaConf.to_container(config.benchmark, resolve=True)
    return {
        "benchmark": benchmark_options | benchmark.data_options(),
        "run": name,
        "size": size,
        "tag": config.tag,
        "digest": digest.read_text().split()[0] if digest.is_file() else "",
        "limit": config.limit,
        "faces": config.faces,
        "dtype": config.dtype,
        "merge_lora": config.merge_lora or None,
        "quantize": config.quantize,
        "official_prompt": prompting,
        **options.to_dict(),
    }


def _finish(config: DictConfig, benchmark: "Benchmark", questions: "Sequence[Question]", folder: Path) -> None:
    """Merge the predictions of all shares and write the report."""
    from omnihuman.evaluation.answering import merge_predictions, write_manifest
    from omnihuman.evaluation.comparison import compare_reports
    from omnihuman.evaluation.report import report_folder
    from omnihuman.evaluation.tables import format_markdown

    write_manifest(folder, benchmark, questions, merge_predictions(folder, questions, benchmark.name))
    judge = None
    if config.get("judge") is not None:
        judge = build(config.judge)
    report = report_folder(folder, judge)
    print(format_markdown(compare_reports([report], benchmark.published)))
    print(f"written to {folder}")
