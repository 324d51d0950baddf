"""Write records of a table, of folders of clips, or of a public data set: ``omnihuman records source=table ...``."""

import itertools
import json
import os
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.table import Table

from omnihuman.build import build
from omnihuman.modality import strip_tags
from omnihuman.source.root import REPORT, SPLITS, read_report
from omnihuman.verb import verb

if TYPE_CHECKING:
    from omnihuman.source.annotation import AnnotatedRecord, AnnotationSource
    from omnihuman.source.labels import Labels

COLUMNS = ("video", "audio", "image", "answer", "start", "end", "split", "person")
SOURCE_KEYS = (*COLUMNS, "task", "question", "questions", "options", "system", "fold")
"""Keys that a source gets, as far as it has them."""

MAKER_KEYS = ("out", "seed")
"""Keys that only a source that makes media gets."""

UNRELATED_KEYS = ("out", "skip", "overwrite", "sheet")
"""Keys that do not decide the content of the records."""

FRACTIONS = (0.8, 0.1, 0.1)
SHEET = "sheet.png"
MAX_EXAMPLES = 5

Assignment = Mapping[str, Sequence["AnnotatedRecord"]]
"""Split -> its records."""


@verb("records", "path", "out", "root", *COLUMNS, "task", "question", "questions", "system")
def main(config: DictConfig) -> None:
    """Check the annotated clips, write their records, and print the counts and the next commands.

    Raises:
        ValueError: a key or the data set is wrong, clips cannot be used, or ``out`` holds other records.
    """
    from omnihuman.source.repeats import mark_repeats

    out = Path(config.out).expanduser()
    settings = read_settings(config)
    check_out(out, settings, config.overwrite)
    source = build_source(config)
    labels, items = source.annotate()
    items = mark_repeats(items, is_class=labels.names is not None)
    usable = [item for item in items if item.error is None]
    bad = [item for item in items if item.error is not None]
    if bad:
        report_bad(bad, len(items), config.skip, source)
    if not usable:
        raise ValueError(f"{source.location}: no clip can be used.")
    splits = split_records(usable, config)
    report = build_report(source, labels, splits, bad, settings, out)
    if "train" in splits:
        splits["train"] = [source.draw_question(item, config.seed) for item in splits["train"]]
    write_folder(out, splits, report)
    (out / SHEET).unlink(missing_ok=True)
    if config.sheet:
        draw_sheet(out / SHEET, splits, source, config.sheet)
    print_summary(out, report, source)


def read_settings(config: DictConfig) -> dict[str, Any]:
    """Return what decides the content of the records."""
    plain: Any = OmegaConf.to_container(config, resolve=True)
    settings = {key: value for key, value in plain.items() if key not in UNRELATED_KEYS and value is not None}
    settings["source"] = {key: value for key, value in plain["source"].items() if value is not None}
    return settings


def build_source(config: DictConfig) -> "AnnotationSource":
    """Return the source of the annotated clips.

    Raises:
        ValueError: it has no splits, people or columns, but a key names one; or it is no data set of annotated clips.
    """
    from omnihuman.source.annotation import AnnotationSource

    factory = build(config.source)
    if not issubclass(factory.func, AnnotationSource):
        raise ValueError("source: choose table, folder or a public data set; other sources hold records already.")
    options: Any = OmegaConf.to_container(config, resolve=True)
    used = {key: options[key] for key in SOURCE_KEYS if options[key] is not None}
    if unknown := [key for key in used if key not in list_options(factory.func)]:
        name = factory.func.__module__.rpartition(".")[2]
        raise ValueError(
            f"{unknown[0]}={used[unknown[0]]}: source={name} has no such key; columns belong to source=table."
        )
    # a source that makes media writes them beside the records
    used |= {key: options[key] for key in MAKER_KEYS if key in list_options(factory.func)}
    path = Path(config.path).expanduser()
    root = path if path.is_dir() else path.parent
    if config.root is not None:
        root = Path(config.root).expanduser()
    source: AnnotationSource = factory(path, root, **used)
    return source


def list_options(kind: type) -> set[str]:
    """Return the names of the arguments of a class, those that it passes on to its bases included."""
    names = set[str]()
    for base in kind.__mro__[:-1]:
        names |= set(signature(base).parameters)
    return names


def report_bad(bad: "Sequence[AnnotatedRecord]", num_items: int, is_skipped: bool, source: "AnnotationSource") -> None:
    """Print the clips that cannot be used, by reason.

    Raises:
        ValueError: they are not to be skipped.
    """
    from omnihuman.source.missing import find_cure

    errors = group_errors(bad)
    for reason, rows in errors.items():
        for row in rows[:MAX_EXAMPLES]:
            print(f"  {reason}: {row}")
        if len(rows) > MAX_EXAMPLES:
            print(f"  {reason}: and {len(rows) - MAX_EXAMPLES} more")
    counts = ", ".join(f"{len(rows)} {reason}" for reason, rows in errors.items())
    summary = f"{source.location}: {len(bad)} of {num_items} clips cannot be used ({counts})"
    if is_skipped:
        print(f"{summary}; they are left out, and listed in {REPORT}")
        return
    raise ValueError(f"{summary}{find_cure(bad, source.root)}; correct them, or leave them out: skip=true.")


def group_errors(bad: "Sequence[AnnotatedRecord]") -> dict[str, list[str]]:
    """Return the messages of clips that cannot be used by reason, the most frequent first."""
    errors: dict[str, list[str]] = {}
    for item in bad:
        assert item.error is not None
        errors.setdefault(item.error.reason, []).append(str(item.error))
    return dict(sorted(errors.items(), key=lambda entry: -len(entry[1])))


def split_records(items: "Sequence[AnnotatedRecord]", config: DictConfig) -> dict[str, "list[AnnotatedRecord]"]:
    """Return the records of every split that has some: by the data set's own splits, or by fractions.

    Raises:
        ValueError: a split has an unknown name, a person is in two splits, or the fractions are wrong.
    """
    from omnihuman.source.splits import assign_splits, check_people, parse_fractions, parse_splits

    names = [item.annotation.split for item in items]
    if any(name is not None for name in names):
        if config.fractions is not None:
            raise ValueError("fractions: the data set has splits of its own; leave fractions= or split= out.")
        splits = parse_splits(names)
        check_people(items, splits)
        if config.val is not None:
            splits = split_off_val(items, splits, config.val, config.seed)
    elif config.val is not None:
        raise ValueError(f"val={config.val}: the data set has no splits; set fractions.")
    else:
        splits = assign_splits(items, parse_fractions(config.fractions or FRACTIONS), config.seed)
    assignment: dict[str, list[AnnotatedRecord]] = {}
    for split in SPLITS:
        records = [item for item, name in zip(items, splits, strict=True) if name == split]
        if records:
            assignment[split] = records
    return assignment


def split_off_val(items: "Sequence[AnnotatedRecord]", splits: Sequence[str], fraction: Any, seed: int) -> list[str]:
    """Return the splits with a share of the training records in val, for a data set that has no such split.

    Raises:
        ValueError: it has one, or the share is no number between 0 and 1.
    """
    from omnihuman.source.splits import assign_splits

    if "val" in splits:
        raise ValueError(f"val={fraction}: the data set has validation clips of its own; leave val out.")
    if not isinstance(fraction, int | float) or not 0 < fraction < 1:
        raise ValueError(f"val={fraction}: expected a share of the training records, as 0.1.")
    train = [item for item, split in zip(items, splits, strict=True) if split == "train"]
    assigned = iter(assign_splits(train, (1 - fraction, fraction, 0.0), seed))
    return [next(assigned) if split == "train" else split for split in splits]


def check_out(out: Path, settings: Mapping[str, Any], is_overwritten: bool) -> None:
    """Check that a folder holds no records of another command.

    Raises:
        ValueError: it does, or it is a file.
    """
    if out.exists() and not out.is_dir():
        raise ValueError(f"out={out} is a file; expected a folder.")
    files = [name for name in (*map("{}.json".format, SPLITS), REPORT) if (out / name).exists()]
    if not files or is_overwritten:
        return
    old = read_report(out).get("settings")
    if old == settings:
        return
    origin = f"{', '.join(files)}, not written by omnihuman records"
    if isinstance(old, dict):
        keys = [key for key in {**settings, **old} if settings.get(key) != old.get(key)]
        origin = f"records with other values of {', '.join(keys)}"
    raise ValueError(f"out={out} holds {origin}: choose another folder, or overwrite=true.")


def build_report(
    source: "AnnotationSource",
    labels: "Labels",
    splits: Assignment,
    bad: "Sequence[AnnotatedRecord]",
    settings: Mapping[str, Any],
    out: Path,
) -> dict[str, Any]:
    """Return the content of ``report.json``."""
    root = source.base
    if root.parts[:2] == out.resolve().parts[:2]:  # they can move together
        root = Path(os.path.relpath(root, out.resolve()))
    names = labels.names
    report: dict[str, Any] = {
        "root": root.as_posix(),
        "task": source.task,
        "labels": None if names is None else list(names),
    }
    first: Any = next(iter(splits.values()))[0].raw
    report["question"] = strip_tags(first["conversations"][0]["value"])
    if source.questions is not None:
        report["questions"] = list(source.questions.texts)
    report["records"] = {split: len(items) for split, items in splits.items()}
    if names is not None:
        report["counts"] = {split: count_labels(items, names) for split, items in splits.items()}
    report["seconds"] = {split: sum_seconds(items) for split, items in splits.items()}
    if any(item.annotation.person is not None for item in itertools.chain(*splits.values())):
        report["person"] = "meta.person"
        report["people"] = {split: count_people(items) for split, items in splits.items()}
    errors = group_errors(bad)
    for reason, rows in errors.items():
        errors[reason] = [shorten_root(row, source.base) for row in rows]
    report["bad"] = errors
    report["notes"] = [*source.notes, *find_notes(report, splits, source)]
    return report | {"settings": dict(settings)}


def count_labels(items: "Sequence[AnnotatedRecord]", names: Sequence[str]) -> dict[str, int]:
    """Return the number of records of every label."""
    counts = Counter(item.annotation.answer for item in items)
    return {name: counts[name] for name in names}


def count_people(items: "Sequence[AnnotatedRecord]") -> int:
    """Return the number of people in records."""
    return len({item.annotation.person for item in items})


def sum_seconds(items: "Sequence[AnnotatedRecord]") -> float:
    """Return the length of records whose headers tell it."""
    return round(sum(item.seconds or 0.0 for item in items), 1)


def shorten_root(message: str, root: Path) -> str:
    """Return a message without the path of the root, so that a report is the same wherever the media are."""
    return message.replace(f"{root}{os.sep}", "")


def find_notes(report: Mapping[str, Any], splits: Assignment, source: "AnnotationSource") -> list[str]:
    """Return what the user should know about records that are valid."""
    notes = []
    if missing := [split for split in SPLITS if split not in splits]:
        notes.append(f"no record is in {' or '.join(missing)}")
    for split, counts in report.get("counts", {}).items():
        if absent := [name for name, count in counts.items() if not count]:
            notes.append(f"{split} has no record of {', '.join(absent)}")
    if all(name.isdigit() for name in report["labels"] or ["text"]):
        notes.append("the labels are numbers: name them for the model, options={0: <label>, 1: <label>}")
    splits_of_files: dict[object, set[str]] = {}
    num_silent = 0
    for split, items in splits.items():
        for item in items:
            file = item.files[:1] or item.annotation.place  # of text alone
            splits_of_files.setdefault(file, set()).add(split)
            num_silent += is_silent(item)
    if num_shared := sum(len(names) > 1 for names in splits_of_files.values()):
        notes.append(f"{num_shared} files are in several splits")
    if "person" not in report and "person" in list_options(type(source)):
        notes.append("people are not kept apart: name their column, person=<column>")
    if num_silent:
        notes.append(f"videos without audio: {num_silent}")
    return notes


def is_silent(item: "AnnotatedRecord") -> bool:
    """Return true for a record of a video without audio."""
    raw = item.raw or {}
    return "video" in raw and bool(item.tags) and "<audio>" not in item.tags


def write_folder(out: Path, splits: Assignment, report: Mapping[str, Any]) -> None:
    """Write the records and the report; all files are complete before the first replaces an older one."""
    out.mkdir(parents=True, exist_ok=True)
    contents = dict[str, Any]()
    for split, items in splits.items():
        contents[f"{split}.json"] = [item.raw for item in items]
    contents[REPORT] = report
    for name, content in contents.items():
        (out / f"{name}.new").write_text(json.dumps(content, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    for split in SPLITS:
        if split not in splits:
            (out / f"{split}.json").unlink(missing_ok=True)
    for name in contents:
        (out / f"{name}.new").replace(out / name)


def draw_sheet(file: Path, splits: Assignment, source: "AnnotationSource", num_records: int) -> None:
    """Draw records from all over the splits, one in a line, and print which clips cannot be decoded."""
    from omnihuman.data.record import parse_record
    from omnihuman.source.sheet import draw_records

    items = list(itertools.chain(*splits.values()))
    records = []
    for item in items[:: max(1, len(items) // num_records)][:num_records]:
        assert item.raw is not None
        options = {"allow_text_only": source.has_text_only, "follow_links": source.follow_links}
        records.append(parse_record(item.raw, item.raw["id"], source.root, item.annotation.place, **options))
    for error in draw_records(records, 4, file).errors:
        print(f"  {error.reason}: {error}")


def print_summary(out: Path, report: Mapping[str, Any], source: "AnnotationSource") -> None:
    """Print the number of records of every label in every split, notes, and the next commands."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=120)
    table = Table(title=f"{source.location}: {report['task']}", title_justify="left")
    table.add_column("label" if report["labels"] else "")
    for split in (*report["records"], "all"):
        table.add_column(split, justify="right")
    for name in report["labels"] or ():
        counts = [report["counts"][split][name] for split in report["records"]]
        table.add_row(name, *map(str, counts), str(sum(counts)))
    table.add_section()
    for name in ("records", "people", "seconds"):
        if name in report:
            numbers = report[name].values()
            table.add_row(name, *(f"{number:.0f}" for number in (*numbers, sum(numbers))))
    console.print(table, markup=False)
    question = report["question"].replace("\n", " | ")
    print(f"question: {question}")
    if "questions" in report:
        print(f"in training records: one of {len(report['questions'])} wordings, options in any order (seed)")
    for note in report["notes"]:
        print(f"note: {note}")
    options = {"follow_links": source.follow_links, "text_only": source.has_text_only}
    keys = [f"data.source.{key}=true" for key, is_set in options.items() if is_set]
    data = " ".join([shlex.quote(f"data={out}{os.sep}"), *keys])
    print(f"written: {out}\nnext: omnihuman inspect {data} decode=true")
    if "train" in report["records"]:
        print(f"      omnihuman train +experiment=finetune base=<model folder> {data}")


if __name__ == "__main__":
    main()
