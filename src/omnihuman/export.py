"""Give a trained run away: ``python -m omnihuman.export run=humanomni_stage3 out=humanomni_mine``."""

import re
from pathlib import Path

from omegaconf import DictConfig

from omnihuman.verb import verb

UNITS = {"KB": 10**3, "MB": 10**6, "GB": 10**9}
USE = """
  import omnihuman; from transformers import AutoModelForCausalLM, AutoProcessor
  model, processor = AutoModelForCausalLM.from_pretrained({folder!r}), AutoProcessor.from_pretrained({folder!r})
  print(processor.batch_decode(model.generate(**processor({medium}, text="What is the main emotion?")))[0])"""


def num_bytes(size: str) -> int:
    """A size as transformers writes it -> bytes.

    Raises:
        ValueError: it is none.

    >>> num_bytes("5GB"), num_bytes("200 mb")
    (5000000000, 200000000)
    """
    found = re.fullmatch(r"(\d+) ?([KMG]B)", size.strip().upper())
    if not found or not int(found[1]):
        raise ValueError(f"max_shard_size={size}: write it as 200MB or 5GB.")
    return int(found[1]) * UNITS[found[2]]


@verb("export", "out", "vision_tower", "audio_tower")
def main(config: DictConfig) -> None:
    """Write the folder, and print what is in it and how it is used."""
    import transformers

    from omnihuman.training.runs import run_folder

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    folder, out, limit = run_folder(config), Path(config.out).expanduser(), num_bytes(str(config.max_shard_size))
    if config.format == "humanomni":
        from omnihuman.release.source.humanomni import write_official

        if config.lora != "merge":
            raise ValueError(f"lora={config.lora}: the official layout knows no adapters; leave lora= out.")
        towers = {"vision_tower": config.vision_tower, "audio_tower": config.audio_tower}
        notes, medium = write_official(folder, out, **towers, dtype=config.dtype, limit=limit), ""
    elif config.format == "huggingface":
        from omnihuman.release.hub.export import export

        made = export(folder, out, lora=config.lora, max_shard_size=f"{limit // 1000}KB", dtype=config.dtype)
        notes, medium = made.notes, made.medium
    else:
        raise ValueError(f"format={config.format}: choose from huggingface, humanomni.")
    files = {path.relative_to(out): path.stat().st_size for path in sorted(out.rglob("*")) if path.is_file()}
    for name, size in files.items():
        print(f"{size / 1e6:>12,.3f} MB  {name}")
    print(f"{sum(files.values()) / 1e6:>12,.3f} MB  in {out}")
    for note in notes:
        print("note:  ", note)
    if medium:
        print(USE.format(folder=str(out), medium=medium))


if __name__ == "__main__":
    main()
