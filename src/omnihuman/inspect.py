"""Inspect sources of records: counts and a sheet, or a preflight of all media: ``omnihuman inspect data=sample``."""

import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from omnihuman.build import build
from omnihuman.training.base import rebase
from omnihuman.training.stage_data import select_stage_data
from omnihuman.verb import verb

if TYPE_CHECKING:
    from omnihuman.data.module import OmniData
    from omnihuman.preflight.run import Preflight
    from omnihuman.preflight.summary import Report
    from omnihuman.source.base import Source

SETTINGS = ("num_frames", "views", "tasks", "missing", "timeout")
"""Keys of the data that verdicts depend on, for the report."""


@verb("inspect")
def main(config: DictConfig) -> None:
    """Print counts and errors of every source and draw its sheet; with ``decode``, check every record as training does.

    The exit code is 1 if something has to be corrected.

    Raises:
        ValueError: a number is out of its range.
    """
    check_least("num_records", config.num_records, 1)
    if config.workers is not None:
        check_least("workers", config.workers, 0)
    if config.decode:
        is_good = check_all(config)
    else:
        data = build(select_stage_data(config).data)
        sources = [entry.source for entry in data.sources]
        names = name_sheets([source.location for source in sources])
        # no short cut: every source is inspected
        is_good = all([inspect_source(source, name, config) for source, name in zip(sources, names, strict=True)])
    if not is_good:
        sys.exit(1)


def check_least(key: str, value: object, least: int) -> None:
    """Check that the value of a key is a whole number of at least ``least``.

    Raises:
        ValueError: it is not.
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ValueError(f"{key}={value}: expected a whole number of at least {least}.")


def name_sheets(locations: Sequence[str]) -> list[str]:
    """Return a name for the sheet of every source: of its file, with the folder where several files share a name.

    >>> name_sheets(["a/train.json", "b/train.json", "c/clips.json"])
    ['a_train', 'b_train', 'clips']
    """
    counts = Counter(Path(location).stem for location in locations)
    names = list[str]()
    for path in map(Path, locations):
        name = path.stem if counts[path.stem] == 1 else f"{path.parent.name}_{path.stem}"
        names.append(f"{name}_{len(names)}" if name in names else name)
    return names


def inspect_source(source: "Source", name: str, config: DictConfig) -> bool:
    """Print counts and errors of a source, draw its sheet, and return true if nothing is invalid."""
    num_records, num_invalid = print_counts(source)
    if not num_records + num_invalid:
        print(f"  no record: {source.location} is empty")
    if not num_records:
        return False
    out = Path(config.out)
    out.mkdir(parents=True, exist_ok=True)
    file = out / f"{name}_records.png"
    sheet = source.draw_sheet(file, config.num_records, config.data.num_frames)
    for error in sheet.errors:
        print(f"  bad clip: {error.reason}: {error}")
    if sheet.num_replaced:
        count = sheet.num_replaced
        print(
            f"  {count} characters are drawn as boxes: no installed font has them; install one, such as Noto Sans CJK"
        )
    print("drawn:", *sheet.files)
    return not num_invalid and not sheet.errors


def print_counts(source: "Source") -> tuple[int, int]:
    """Print counts and errors of a source's records, and return the numbers of valid and of invalid ones."""
    from omnihuman.data.record import Record

    records, errors = list[Record](), []
    for entry in source.records():
        if isinstance(entry, Record):
            records.append(entry)
        else:
            errors.append(entry[1])
    num_files = len({record.file for record in records if record.kind != "text"})
    print(f"{source.location}: {len(records)} records of {num_files} files, {len(errors)} invalid")
    spans = [record.end - record.start for record in records if record.end is not None]
    if spans:
        print(f"  {sum(spans):.1f} s in the {len(spans)} records that name an end")
    counts = Counter((record.task or "no task", "+".join(record.slots) or "text") for record in records)
    for (task, slots), count in sorted(counts.items()):
        print(f"  {task:16} {slots:12} {count}")
    for error in errors:
        print(f"  invalid: {error.reason}: {error}")
    return len(records), len(errors)


def check_all(config: DictConfig) -> bool:
    """Check every record of all splits, write the report, and return true if nothing has to be corrected.

    Raises:
        ValueError: a split has no record, its file cannot be read at all, or ``out`` is a records folder.
        KeyboardInterrupt: by Ctrl-C, after the report on the part that was checked.
    """
    from hydra.core.hydra_config import HydraConfig

    from omnihuman.preflight.run import Preflight
    from omnihuman.source.root import has_report

    if has_report(config.out):
        raise ValueError(f"out={config.out} holds records, whose report.json would be replaced; choose another folder.")
    config = select_stage_data(rebase(config, HydraConfig.get().overrides.task))
    data = connect_data(config)
    splits = {}
    for name, records in read_splits(config, data).items():
        splits[name] = list(records)
        if not splits[name]:
            raise ValueError(f"{name}: no record; the split is empty, or none of its records is of data.tasks.")
    preflight = Preflight(data, splits, config.workers)
    try:
        preflight.check()
    except KeyboardInterrupt:
        print("interrupted: the report is about the records that were checked", file=sys.stderr)
        write_report(config, data, preflight)
        raise
    return not write_report(config, data, preflight).problems


def connect_data(config: DictConfig) -> "OmniData":
    """Return the data, connected to the model of the config without its weights, so that lengths are those of training.

    Raises:
        ValueError: the config of the model is invalid.
    """
    import os

    import transformers

    from omnihuman.cost.forecast import build_meta_model

    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # the processes are the parallelism
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    model = build_meta_model(config)
    data: OmniData = build(config.data)
    data.connect(model.transforms, model.count_tokens, model.llm.tokenizer, model.llm.template)
    return data


def read_splits(config: DictConfig, data: "OmniData") -> dict[str, Any]:
    """Return the entries of every split by its name: train, val and test, as far as there are any."""
    splits = {"train": data.read_entries("train")}
    if data.val_source is not None:
        splits["val"] = data.read_entries("val")
    if config.test_records is not None:
        other = config.copy()
        other.data.records, other.data.val_records = config.test_records, None
        splits["test"] = build(other.data).read_entries("train")
    return splits


def write_report(config: DictConfig, data: "OmniData", preflight: "Preflight") -> "Report":
    """Write the report, the page and the lists of quarantine, and print what matters."""
    from omnihuman.data.exclusion import Exclusions
    from omnihuman.preflight.run import quarantine_files

    options: Any = OmegaConf.to_container(config.data, resolve=True)
    settings = {"experiment": config.name, "size": config.size, "max_length": data.chat_options["max_length"]}
    settings |= {key: options[key] for key in SETTINGS}
    settings = {key: value for key, value in settings.items() if value is not None}
    report = preflight.summarize(settings, config.person)
    report.notes += data.describe_tasks()
    out = Path(config.out)
    preflight.write(report, out, config.num_records)
    for name, counts in report.splits.items():
        tokens = counts["tokens"]
        print(
            f"{name}: {counts['checked']:,} of {counts['records']:,} records checked, {counts['bad']:,} bad; "
            f"{counts['clips']:,} clips of {counts['files']:,} files; tokens {tokens['min']} to {tokens['max']}, "
            f"median {tokens['median']}"
        )
    for line in report.notes:
        print("note:", line)
    for line in report.problems:
        print("problem:", line)
    exclusions = Exclusions(None if config.quarantine is None else Path(config.quarantine))
    for file, count in quarantine_files(preflight.items, exclusions).items():
        print(f"{file}: {count} bad files added, which data.on_bad_sample=quarantine skips")
    print(f"{report.cost['cpu_ms_per_file']} ms of CPU a file; report: {out / 'report.html'}, {out / 'report.json'}")
    return report


if __name__ == "__main__":
    main()
