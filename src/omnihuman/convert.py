"""Convert an official checkpoint into a model folder: ``omnihuman convert official=… path=… out=…``."""

from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from omnihuman.verb import verb

REQUIRED = ("official", "path", "out")


@verb("convert", "path", "out", "vision_tower", "audio_tower", "instruction_encoder", "tokenizer", "audio_projector")
def main(config: DictConfig) -> None:
    """Read the checkpoint tensor by tensor, report on its keys, and write the folder."""
    from omnihuman.official.conversion import Request, convert

    missing = [f"{key}=" for key in REQUIRED if OmegaConf.is_missing(config, key)]
    if missing:
        raise ValueError(f"give {', '.join(missing)}.")
    options = {str(key): value for key, value in config.items()}
    request = Request(
        official=options.pop("official"),
        path=str(options.pop("path")),
        out=Path(str(options.pop("out"))).expanduser(),
        dtype=options.pop("dtype"),
        overwrite=options.pop("overwrite"),
        options=options,
    )
    folder = convert(request)
    if (folder / "config.yaml").is_file():
        print(f'Next: omnihuman generate run={folder} video=clip.mp4 instruction="What is the main emotion?"')


if __name__ == "__main__":
    main()
