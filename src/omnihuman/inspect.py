"""Look at a corpus: ``python -m omnihuman.inspect data=sample`` draws what is in it."""

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig

from omnihuman.build import build
from omnihuman.verb import verb

if TYPE_CHECKING:
    from omnihuman.data.record import Record


@verb("inspect")
def main(config: DictConfig) -> None:
    """Count the records by task and modality, and draw a contact sheet and a listening sheet."""
    from omnihuman.data.datafile import read_records
    from omnihuman.data.record import Record

    out = Path(config.out)
    out.mkdir(parents=True, exist_ok=True)
    data = build(config.data)
    if data.make is not None:
        data.make()
    for source in data.sources:
        found = list(read_records(Path(str(source["path"])), data.root))
        records = [record for record in found if isinstance(record, Record)]
        counts = Counter((record.task or "no task", "+".join(record.slots)) for record in records)
        print(f"{source['path']}: {len(records)} records of {len({record.file for record in records})} files")
        for (task, slots), count in sorted(counts.items()):
            print(f"  {task:16} {slots:12} {count}")
        for bad in (entry for entry in found if not isinstance(entry, Record)):
            print(f"  bad: {bad[1].reason}: {bad[1]}")
        sheet = out / f"{Path(str(source['path'])).stem}_records.png"
        draw_records(records, config.count, data.options["num_frames"], sheet)
        print("drawn:", sheet)
    if data.make is not None:
        from omnihuman.data.sample.sheet import contact_sheet, listening_sheet

        contact_sheet(out / "contact_sheet.png", config.data.make.seed)
        listening_sheet(out / "listening_sheet.png", config.data.make.seed)
        print("drawn:", out / "contact_sheet.png", out / "listening_sheet.png")


def draw_records(records: "list[Record]", count: int, num_frames: int, file: Path) -> None:
    """``count`` records, evenly from the file, one a line: their frames, their sound, the first question and answer."""
    import torch
    from matplotlib.figure import Figure

    from omnihuman.data import media

    chosen = records[:: max(1, len(records) // count)][:count]
    figure = Figure(figsize=(12, 1.9 * len(chosen)), layout="constrained")
    for (left, right), record in zip(figure.subplots(len(chosen), 2, squeeze=False), chosen, strict=True):
        header = media.probe(record.file)
        samples = header.num_samples(record.start, record.end)
        frames, _, sound = media.read(
            record.file,
            num_frames=(1 if header.is_still else num_frames) * header.has_video,
            num_samples=samples,
            start=record.start,
            end=record.end,
        )
        if frames is not None:
            left.imshow(torch.cat(list(frames), dim=-1).permute(1, 2, 0).numpy())
        if sound is not None:
            right.specgram(sound.numpy() + 1e-6, NFFT=400, noverlap=240, Fs=media.SAMPLE_RATE)
        left.axis("off")
        right.axis("off")
        words = [text.replace("\n", " ") for _, text in record.messages[:2]]
        left.set_title(f"{record.id} [{record.task}] {words[0]}", fontsize=7, loc="left")
        right.set_title(words[1], fontsize=7, loc="left")
    figure.savefig(file, dpi=90)


if __name__ == "__main__":
    main()
