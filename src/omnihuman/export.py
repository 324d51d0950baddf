"""Export a trained run: ``omnihuman export run=humanomni_stage3 out=humanomni_mine``."""

import re
from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig

from omnihuman.verb import verb

UNITS = {"KB": 10**3, "MB": 10**6, "GB": 10**9}
USAGE = """
  import omnihuman; omnihuman.register()
  from transformers import AutoModelForCausalLM, AutoProcessor
  model, processor = AutoModelForCausalLM.from_pretrained({folder!r}), AutoProcessor.from_pretrained({folder!r})
  print(processor.batch_decode(model.generate(**processor({example}, text="What is the main emotion?")))[0])"""


def parse_size(size: str) -> int:
    """Parse a size in transformers' notation, in bytes.

    Raises:
        ValueError: it is not such a size.

    >>> parse_size("5GB"), parse_size("200 mb")
    (5000000000, 200000000)
    """
    match = re.fullmatch(r"(\d+) ?([KMG]B)", size.strip().upper())
    if not match or not int(match[1]):
        raise ValueError(f"max_shard_size={size}: expected a size such as 200MB or 5GB.")
    return int(match[1]) * UNITS[match[2]]


@verb("export", "out", "vision_tower", "audio_tower")
def main(config: DictConfig) -> None:
    """Write the folder, and print its files and how to use it."""
    import transformers

    from omnihuman.training.runs import find_run_folder

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    folder, out = find_run_folder(config), Path(config.out).expanduser()
    max_shard_size = parse_size(str(config.max_shard_size))
    if config.format == "humanomni":
        from omnihuman.official.humanomni.read import write_official

        if config.lora != "merge":
            raise ValueError(f"lora={config.lora}: the official layout has no adapters; leave lora= out.")
        notes = write_official(
            folder,
            out,
            vision_tower=config.vision_tower,
            audio_tower=config.audio_tower,
            dtype=config.dtype,
            max_shard_size=max_shard_size,
        )
        _print_files(out, notes)
    elif config.format == "huggingface":
        from omnihuman.hub.export import export

        result = export(folder, out, lora=config.lora, max_shard_size=f"{max_shard_size // 1000}KB", dtype=config.dtype)
        _print_files(out, result.notes)
        print(USAGE.format(folder=str(out), example=result.example))
    else:
        raise ValueError(f"format={config.format}: choose from huggingface, humanomni.")


def _print_files(folder: Path, notes: Sequence[str]) -> None:
    total = 0
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            size = path.stat().st_size
            total += size
            print(f"{size / 1e6:>12,.3f} MB  {path.relative_to(folder)}")
    print(f"{total / 1e6:>12,.3f} MB  in {folder}")
    for note in notes:
        print("note:  ", note)


if __name__ == "__main__":
    main()
