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

VLLM_USAGE = """
  vllm serve {folder} --enable-prompt-embeds
  from omnihuman.hub.vllm import PromptEmbedder, encode_embeds; from openai import OpenAI
  prompt = encode_embeds(PromptEmbedder.load({run!r}).embed("What is the main emotion?", video="clip.mp4"))
  print(OpenAI(base_url="http://127.0.0.1:8000/v1", api_key="none").completions.create(model={folder!r}, prompt=None,
    temperature=0, max_tokens=128, extra_body={{"prompt_embeds": prompt}}).choices[0].text)"""


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


FORMATS = ("huggingface", "humanomni", "vllm")


@verb("export", "out", "vision_tower", "audio_tower", "push")
def main(config: DictConfig) -> None:
    """Write the folder, and print its files and how to use it; upload it with ``push=``."""
    import transformers

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    if config.run is None and config.push is None:
        raise ValueError("run has no value: add run=<run>; push=<owner>/<name> alone pushes the folder of out=.")
    token = None
    if config.push is not None:
        from omnihuman.hub.push import read_token

        token = read_token(config.push)
    out = _find_out(config)
    if config.run is not None:
        if token is not None and out.exists():
            raise ValueError(f"out={out} exists: leave run= out to push it as it is, or name a new folder.")
        _export(config, out)
    if token is not None:
        _push(config, out, token)


def _find_out(config: DictConfig) -> Path:
    if config.out is not None:
        return Path(config.out).expanduser()
    if config.push is None:
        raise ValueError("out has no value: add out=<the folder to create>.")
    return Path("exports", config.push.rpartition("/")[2])


def _export(config: DictConfig, out: Path) -> None:
    from omnihuman.training.run_search import find_run_folder

    if config.format not in FORMATS:
        raise ValueError(f"format={config.format}: choose from {', '.join(FORMATS)}.")
    folder = find_run_folder(config)
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

        result = export(
            folder,
            out,
            lora=config.lora,
            max_shard_size=f"{max_shard_size // 1000}KB",
            dtype=config.dtype,
            repository=config.push,
        )
        _print_files(out, result.notes)
        print(USAGE.format(folder=str(out), example=result.example))
    else:
        from omnihuman.hub.vllm import export_llm

        if config.lora != "merge":
            raise ValueError(f"lora={config.lora}: vLLM gets one model with LoRA merged; leave lora= out.")
        size = f"{max_shard_size // 1000}KB"
        export_llm(folder, out, max_shard_size=size, dtype=config.dtype, repository=config.push)
        _print_files(out, ())
        print(VLLM_USAGE.format(folder=str(out), run=str(folder)))


def _push(config: DictConfig, out: Path, token: str) -> None:
    from omnihuman.hub.push import list_files, push

    files = list_files(out)
    print(f"pushing {len(files)} files of {out} to {config.push}:")
    for name, size in files.items():
        print(f"{size / 1e6:>12,.3f} MB  {name}", flush=True)
    print("pushed to", push(out, config.push, token=token, private=config.private))


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
