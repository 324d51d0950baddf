"""Ask a trained run: ``python -m omnihuman.generate run=humanomni_stage3 video=clip.mp4 instruction=...``."""

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import hydra
from omegaconf import DictConfig

from omnihuman.build import config_dir, register_resolvers

if TYPE_CHECKING:
    from omnihuman.data.record import Record
    from omnihuman.types import Sample

register_resolvers()
VERBATIM = ("instruction", "video", "audio", "image", "frames_png")
"""Keys whose value is the user's text: commas, brackets and quotes in it mean nothing to Hydra."""


def verbatim(argument: str) -> str:
    r"""A command-line argument, quoted for Hydra where its value is free text.

    >>> verbatim("instruction=Who's there?\nfear ,sad")
    "instruction='Who\\'s there?\nfear ,sad'"
    """
    key, equals, value = argument.partition("=")
    if key not in VERBATIM or not equals or value in ("", "null") or (value[0] == value[-1] and value[0] in "'\""):
        return argument
    # quotes end the value, backslashes before them and at the end escape, and ${ begins an interpolation
    escaped = re.sub(r"(\\+)(?='|$)", r"\1\1", value).replace("'", "\\'").replace("${", "\\${")
    return f"{key}='{escaped}'"


def record_of(config: DictConfig) -> "Record":
    """The question as a record.

    Raises:
        ValueError: not exactly one file is given, the file is missing, or the modal is unknown.
    """
    from omnihuman.data.record import MODALS, Record

    given = {kind: config[kind] for kind in ("video", "image", "audio") if config[kind]}
    if len(given) != 1:
        raise ValueError(f"give exactly one of video=, image= and audio=, got {given or 'none'}.")
    kind, name = next(iter(given.items()))
    file = Path(name).expanduser()
    if not file.is_file():
        raise ValueError(f"{kind}={name}: there is no such file.")
    tags = {
        "video": {"video": "<video>", "audio": "<audio>"},
        "image": {"video": "<image>"},
        "audio": {"audio": "<audio>"},
    }
    if config.modal is not None and config.modal not in MODALS:
        raise ValueError(f"modal={config.modal}: choose from {', '.join(MODALS)}, or leave it out.")
    text = "".join(f"{tag}\n" for tag in tags[kind].values()) + str(config.instruction)
    messages = (("user", text), ("assistant", ""))
    start, slots = config.start or 0.0, tuple(tags[kind])
    record = Record("question", file, kind, messages, slots, start, config.end, source="generate")
    seen = record if config.modal is None else record.seen_as(config.modal)
    if seen is None:
        raise ValueError(f"modal={config.modal} asks for what {kind}={name} cannot give.")
    return seen


@hydra.main(config_path=config_dir(), config_name="generate", version_base="1.3")
def main(config: DictConfig) -> None:
    """Load the run, ask, and print the answer, the frames it used and what the fusion listened to."""
    import transformers

    from omnihuman.evaluation.answerer import Answerer

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    record = record_of(config)
    folder = Path(config.runs) / config.size / config.run / (config.variant or "")
    answerer = Answerer.of_run(folder, merge_lora=config.merge_lora, faces=config.faces)
    reads = {slot for slot, letters in (("video", "VF"), ("audio", "A")) if set(letters) & set(answerer.senses)}
    if not (set(record.slots) & reads if config.modal is None else set(record.slots) <= reads):
        raise ValueError(
            f"{config.run} reads {' and '.join(sorted(reads))} only, and not {' and '.join(record.slots)}."
        )
    unread = [slot for slot in record.slots if slot not in reads]
    record = record.without(unread)
    batch, samples = answerer.data.prompt(record)
    planned = samples.planned[0]
    options = {} if config.temperature is None else {"do_sample": True, "temperature": config.temperature}
    answer = answerer.answer(batch, max_new_tokens=config.max_new_tokens, **options)[0]
    print("answer:", answer.text)
    if lost := sorted(set(record.slots) - set(planned.record.slots)):
        print(
            f"note:   {record.file} has no {' and no '.join(lost)}; answered from {' and '.join(planned.record.slots)}"
        )
    if unread:
        print(f"note:   {config.run} reads no {' and no '.join(unread)}; answered without")
    if samples.without_boxes:
        print(f"note:   nothing says where the faces of {record.file} are; faces=whole takes whole frames for them")
    if times := batch.meta[0]["times"]:
        print("frames:", ", ".join(f"{second:.2f} s" for second in times))
    if planned.amounts["waveform"]:
        print(f"sound:  {planned.amounts['waveform'] / 16000:.2f} s")
    if "video" in planned.record.slots:
        for name, weights in answer.weights.items():
            print(f"{name}:  ", ", ".join(f"{stream} {weight:.2f}" for stream, weight in weights.items()))
    if config.frames_png and times:
        save_frames(samples.sample(planned), Path(config.frames_png))
        print("frames written to", config.frames_png)


def save_frames(sample: "Sample", file: Path) -> None:
    """The frames of a sample, side by side, in one picture; its faces where the model gets nothing else to see."""
    import torch
    import torchvision.transforms.functional as F
    from torchvision.io import write_png

    faces = [F.resize(face, [128, 128]) for face in sample.faces if face is not None]
    pictures = faces if sample.frames is None else list(sample.frames)
    if pictures:
        write_png(torch.cat(pictures, dim=-1), str(file))


if __name__ == "__main__":
    sys.argv[1:] = [verbatim(argument) for argument in sys.argv[1:]]
    main()
