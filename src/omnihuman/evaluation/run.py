"""Ask a trained run a benchmark, from its questions to its page."""

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from omnihuman.build import build
from omnihuman.training.runs import run_folder

if TYPE_CHECKING:
    from omnihuman.evaluation.ask import Manner


def folder_of(config: DictConfig, manner: "Manner") -> Path:
    """Where an evaluation lives: a function of names, as its run does."""
    run = run_folder(config)
    name = manner.modality + (f"-{manner.control}" if manner.control else "") + (f"-{config.tag}" if config.tag else "")
    return run / "evaluation" / str(OmegaConf.select(config, "benchmark._target_")).split(".")[2] / name


def share_of(config: DictConfig) -> tuple[int, int]:
    """Which part of the questions is asked, of how many.

    Raises:
        ValueError: there is no such part, or ``limit`` leaves none.
    """
    if config.limit is not None and (not isinstance(config.limit, int) or config.limit < 1):
        raise ValueError(f"limit={config.limit}: it is the number of questions that are asked; leave it out for all.")
    rank, _, world = str(config.share or "0/1").partition("/")
    if not (rank.isdigit() and world.isdigit() and int(rank) < int(world)):
        raise ValueError(f"share={config.share}: the third of eight parts is 2/8, the first 0/8.")
    return int(rank), int(world)


def open_folder(folder: Path, said: dict[str, Any], overwrite: bool) -> None:
    """Make the folder this evaluation's own.

    Raises:
        ValueError: it holds predictions that were made in another way.
    """
    file = folder / "config.yaml"
    if overwrite and folder.exists():
        number = next(n for n in range(1, 10**6) if not folder.with_name(f"{folder.name}.{n}").exists())
        folder.rename(folder.with_name(f"{folder.name}.{number}"))
    old: Any = OmegaConf.to_container(OmegaConf.load(file)) if file.is_file() else said
    keys = sorted((old.keys() | said.keys()) - {"tag"})  # which is in the folder's name
    if differing := [key for key in keys if old.get(key) != said.get(key)]:
        raise ValueError(
            f"{folder} holds predictions made in another way (differing: {', '.join(differing)}): give this evaluation "
            "a name of its own (tag=...), or overwrite=true (the old one moves aside)."
        )
    folder.mkdir(parents=True, exist_ok=True)
    new = file.with_suffix(f".{os.getpid()}")  # shares on several nodes may begin at once
    OmegaConf.save(OmegaConf.create(said), new)
    new.replace(file)


def evaluate(config: DictConfig, overrides: list[str]) -> Path:
    """Ask and score one benchmark; the folder with what came out.

    Args:
        config: the composed root config ``evaluate``.
        overrides: the command line, for the processes that share the work.

    Raises:
        ValueError: the run, the benchmark's files or an option does not hold; the message names it.
    """
    import torch
    import transformers

    from omnihuman.evaluation import tables
    from omnihuman.evaluation.answerer import Answerer
    from omnihuman.evaluation.ask import Manner, ask, gather, in_processes, said, write_manifest
    from omnihuman.evaluation.control import control_of, modality_of
    from omnihuman.evaluation.report import report_folder

    logging.basicConfig(level=logging.INFO, format="%(message)s", force=True)
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    rank, world = share_of(config)
    benchmark = build(config.benchmark)
    questions = benchmark.questions()[: config.limit]
    if not questions:
        raise ValueError(f"{benchmark.name} has no question that could be asked; see {config.benchmark}.")
    run = run_folder(config)
    device = f"cuda:{rank}" if world > 1 and _gpus() > 1 else None
    answerer = Answerer.of_config(config, device)
    modality = modality_of(benchmark, answerer.senses, config.modality)
    manner = Manner(
        modality,
        control_of(config.control, modality),
        config.batch_size,
        config.max_tokens,
        benchmark.max_new_tokens if config.max_new_tokens is None else config.max_new_tokens,
        benchmark.log_probs if config.log_probs is None else config.log_probs,
        config.cards,
        config.num_workers,
        config.seed,
    )
    folder = folder_of(config, manner)
    what: Any = OmegaConf.to_container(config.benchmark, resolve=True)
    trained = (run / "digest").read_text().split()[0] if (run / "digest").is_file() else ""
    asked = {
        "benchmark": what,
        "run": config.run,
        "size": config.size,
        "variant": config.variant,
        "tag": config.tag,
        "digest": trained,
        "limit": config.limit,
        "faces": config.faces,
        "merge_lora": config.merge_lora or None,
        "official_prompt": config.official_prompt or None,
        **said(manner),
    }
    open_folder(folder, asked, config.overwrite and config.share is None)
    if config.processes > 1 and config.share is None:
        del answerer  # each process has its own
        torch.cuda.empty_cache()
        in_processes(config.processes, [text for text in overrides if not text.startswith("overwrite=")])
    else:
        ask(answerer, benchmark, questions, folder, manner, (rank, world))
    if config.share is None:
        write_manifest(folder, benchmark, questions, gather(folder, questions, benchmark.name))
        report = report_folder(folder, judge=None if config.get("judge") is None else build(config.judge))
        print(tables.markdown(tables.compare([report], benchmark.peers)))
        print(f"written to {folder}")
    return folder


def _gpus() -> int:
    import torch

    return torch.cuda.device_count()
