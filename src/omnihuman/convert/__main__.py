"""Make a model folder of an official checkpoint: ``python -m omnihuman.convert source=humanomni path=... out=...``."""

from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from omnihuman.verb import verb


@verb("convert", "path", "out", "vision_tower", "audio_tower", "instruction_encoder", "tokenizer", "audio_projector")
def main(config: DictConfig) -> None:
    """Read the checkpoint tensor by tensor, print what becomes of its keys, and write the folder."""
    from omnihuman.release.convert import Request, convert

    said = {str(key): value for key, value in config.items() if not OmegaConf.is_missing(config, str(key))}
    if missing := [key for key in ("source", "path", "out") if key not in said]:
        raise ValueError(f"give {', '.join(f'{key}=' for key in missing)}.")
    given = {key: said.pop(key) for key in ("source", "dtype", "overwrite")}
    path, out = str(said.pop("path")), Path(str(said.pop("out"))).expanduser()
    folder = convert(Request(path=path, out=out, options=said, **given))
    if (folder / "config.yaml").is_file():
        print(f'Next: python -m omnihuman.generate run={folder} video=clip.mp4 instruction="What is the main emotion?"')


if __name__ == "__main__":
    main()
