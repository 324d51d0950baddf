"""Inspect a corpus: ``python -m omnihuman.inspect data=sample`` counts its records and draws some of them."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from omnihuman.build import build
from omnihuman.verb import verb

if TYPE_CHECKING:
    from omnihuman.data.record import Record


@verb("inspect")
def main(config: DictConfig) -> None:
    """Print the number of records by task and slots, and draw records and the scenes of the built-in corpus."""
    out = Path(config.out)
    out.mkdir(parents=True, exist_ok=True)
    data = build(config.data)
    if data.create_corpus is not None:
        data.create_corpus()
    for source in data.sources:
        file = Path(str(source["path"]))
        records = _read_valid_records(file, data.root)
        chart = out / f"{file.stem}_records.png"
        draw_records(records, config.num_records, data.options["num_frames"], chart)
        print("drawn:", chart)
    if data.create_corpus is not None:
        from omnihuman.sample.sheet import draw_contact_sheet, draw_mel_sheet

        draw_contact_sheet(out / "contact_sheet.png", config.data.create_corpus.seed)
        draw_mel_sheet(out / "listening_sheet.png", config.data.create_corpus.seed)
        print("drawn:", out / "contact_sheet.png", out / "listening_sheet.png")


def _read_valid_records(file: Path, root: Any) -> "list[Record]":
    """Return the valid records of a file, and print their counts and the errors of the others."""
    from omnihuman.data.datafile import read_records
    from omnihuman.data.record import Record

    records, errors = [], []
    for entry in read_records(file, root):
        if isinstance(entry, Record):
            records.append(entry)
        else:
            errors.append(entry[1])
    counts = Counter((record.task or "no task", "+".join(record.slots)) for record in records)
    num_files = len({record.file for record in records})
    print(f"{file}: {len(records)} records of {num_files} files")
    for (task, slots), count in sorted(counts.items()):
        print(f"  {task:16} {slots:12} {count}")
    for error in errors:
        print(f"  bad: {error.reason}: {error}")
    return records


def draw_records(records: "Sequence[Record]", num_records: int, num_frames: int, file: Path) -> None:
    """Draw records from all over a file, one in a line: frames and question, spectrogram and answer."""
    from matplotlib.figure import Figure

    stride = max(1, len(records) // num_records)
    selected = records[::stride][:num_records]
    figure = Figure(figsize=(12, 1.9 * len(selected)), layout="constrained")
    axes = figure.subplots(len(selected), 2, squeeze=False)
    for (left, right), record in zip(axes, selected, strict=True):
        _draw_record(record, num_frames, left, right)
    figure.savefig(file, dpi=90)


def _draw_record(record: "Record", num_frames: int, left: Any, right: Any) -> None:
    import torch

    from omnihuman.data import media

    header = media.probe(record.file)
    if header.is_still:
        num_frames = 1
    frames, _, waveform = media.read(
        record.file,
        num_frames=num_frames if header.has_video else 0,
        num_samples=header.num_samples(record.start, record.end),
        start=record.start,
        end=record.end,
    )
    if frames is not None:
        left.imshow(torch.cat(list(frames), dim=-1).permute(1, 2, 0).numpy())
    if waveform is not None:
        right.specgram(waveform.numpy() + 1e-6, NFFT=400, noverlap=240, Fs=media.SAMPLE_RATE)
    left.axis("off")
    right.axis("off")
    question, answer = [text.replace("\n", " ") for _, text in record.messages[:2]]
    left.set_title(f"{record.id} [{record.task}] {question}", fontsize=7, loc="left")
    right.set_title(answer, fontsize=7, loc="left")


if __name__ == "__main__":
    main()
