"""Inspect sources of records, count and draw them: ``omnihuman inspect data=sample``."""

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig

from omnihuman.build import build
from omnihuman.verb import verb

if TYPE_CHECKING:
    from omnihuman.source.base import Source


@verb("inspect")
def main(config: DictConfig) -> None:
    """Print the records of every source by task and slots, with the errors of invalid ones, and draw its sheet."""
    out = Path(config.out)
    out.mkdir(parents=True, exist_ok=True)
    data = build(config.data)
    for entry in data.sources:
        if print_counts(entry.source):
            file = out / f"{Path(entry.source.location).stem}_records.png"
            sheets = entry.source.draw_sheet(file, config.num_records, config.data.num_frames)
            print("drawn:", *sheets)


def print_counts(source: "Source") -> int:
    """Print counts and errors of a source's records, and return the number of valid ones."""
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
    return len(records)


if __name__ == "__main__":
    main()
