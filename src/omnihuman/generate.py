"""Ask a trained run: ``python -m omnihuman.generate run=humanomni_stage3 video=clip.mp4 instruction=...``."""

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from omnihuman.verb import verb

if TYPE_CHECKING:
    from omnihuman.data.record import Record
    from omnihuman.evaluation.answerer import Answer, Answerer, Prompt
    from omnihuman.types import Sample

KEYS = (
    "id", "instruction", "video", "audio", "image", "start", "end", "modal", "conversations", "sound", "faces", "then",
    "rate", "needs", "task", "meta",
)  # fmt: skip
"""Keys of a line of questions, as a question or as a record; others are the user's own, unless they look like these."""

TAGS = {"video": "<video>\n<audio>\n", "image": "<image>\n", "audio": "<audio>\n", "text": ""}
"""How a question about a kind of file begins."""


def record_of(
    said: Mapping[str, Any] | DictConfig, name: str = "question", source: str = "generate", root: Path = Path()
) -> "Record":
    """A question, as the command line or a line of a file says it, as a record.

    Args:
        said: ``instruction``, at most one of ``video``, ``image`` and ``audio``, and ``start``, ``end``, ``modal``.
        name: its id.
        source: its place, for messages.
        root: where relative paths begin.

    Raises:
        ValueError: there is no question, not exactly one file (or ``modal=text``), or the file is missing.
    """
    from omnihuman.data.record import Record

    for key in ("instruction", "video", "image", "audio", "modal"):
        if not isinstance(said.get(key), str | None):
            raise ValueError(f"{source}: {key} is {said[key]!r}, it must be text in quotes.")
    for key in ("start", "end"):
        if isinstance(said.get(key), bool) or not isinstance(said.get(key), int | float | None):
            raise ValueError(f"{source}: {key} is {said[key]!r}, it must be seconds.")
    given = {kind: said[kind] for kind in ("video", "image", "audio") if said.get(kind)}
    if not said.get("instruction"):
        raise ValueError(f"{source}: what is the question? instruction=... says it.")
    if len(given) > 1 or (not given and said.get("modal") != "text"):
        raise ValueError(
            f"{source}: give exactly one of video=, image= and audio= (or modal=text), got {given or 'none'}."
        )
    kind, file = next(((kind, root / Path(str(file)).expanduser()) for kind, file in given.items()), ("text", Path()))
    if given and not file.exists():
        raise ValueError(f"{source}: {kind}={file}: there is no such file.")
    slots = {"video": ("video", "audio"), "image": ("video",), "audio": ("audio",), "text": ()}[kind]
    messages = (("user", TAGS[kind] + str(said["instruction"])), ("assistant", ""))
    start, end = said.get("start") or 0.0, said.get("end")
    return Record(name, file, kind, messages, slots, float(start), None if end is None else float(end), source=source)


@verb("generate", "instruction", "video", "audio", "image", "frames_png", "questions", "root", "out")
def main(config: DictConfig) -> None:
    """Load the run and ask: one question, whose answer is told with what it was made of, or a file of them."""
    import transformers

    from omnihuman.data.messages import OPTIONS, options_of
    from omnihuman.evaluation.answerer import Answerer
    from omnihuman.evaluation.official import HOW

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    record = None if config.questions else record_of(config)
    answerer = Answerer.of_config(config)
    how, _, _ = options_of({name: config.get(name) for name in OPTIONS})
    how |= {"seed": config.seed if how.get("do_sample") else None}
    how.setdefault("max_new_tokens", HOW["max_new_tokens"] if config.official_prompt else 128)
    if record is None:
        many(answerer, config, how)
    else:
        one(answerer, record, config, how)


def one(answerer: "Answerer", record: "Record", config: DictConfig, how: Mapping[str, Any]) -> None:
    """Print the answer to one question, the frames it used and what the fusion listened to."""
    prompt = answerer.prompt(record, config.modal)
    if config.stream and not config.json and how.get("num_beams", 1) == 1:
        pieces = answerer.stream(prompt, **how)
        print("answer: ", end="")
        begun = False
        try:
            for piece in pieces:
                print(piece if begun else piece.lstrip(), end="", flush=True)
                begun = begun or bool(piece.strip())
        finally:  # where nobody reads on
            pieces.close()
        print()
        answer = pieces.answer
    else:
        answer = answerer.ask([prompt], **how)[0]
        print(json.dumps(entry(prompt, answer), ensure_ascii=False) if config.json else f"answer: {answer.text}")
    if not config.json:
        tell(prompt, answer)
    if config.frames_png and prompt.sample.meta["times"]:
        save_frames(prompt.sample, Path(config.frames_png).expanduser())
        print("frames written to", config.frames_png, file=sys.stderr if config.json else sys.stdout)


def tell(prompt: "Prompt", answer: "Answer") -> None:
    """Print what an answer was made of."""
    for note in prompt.notes:
        print("note:  ", note)
    if times := prompt.sample.meta["times"]:
        print("frames:", ", ".join(f"{second:.2f} s" for second in times))
    if prompt.sample.waveform is not None:
        print(f"sound:  {len(prompt.sample.waveform) / 16000:.2f} s")
    for name, weights in answer.weights.items():
        print(f"{name}:  ", ", ".join(f"{stream} {weight:.2f}" for stream, weight in weights.items()))
    slots = ", ".join(f"{count} of {slot}" for slot, count in prompt.counts.items() if count)
    print(f"tokens: {answer.prompt_tokens} read ({slots or 'words alone'}), {answer.tokens} written", end="")
    print(f", {answer.seconds:.2f} s" + ("" if answer.finished else "; cut by max_new_tokens"))


def entry(prompt: "Prompt", answer: "Answer") -> dict[str, Any]:
    """A question and its answer as JSON."""
    waveform = prompt.sample.waveform
    return {
        "id": prompt.record.id,
        "question": prompt.sample.instruction,
        "answer": answer.text,
        "ids": list(answer.ids),
        "slots": list(prompt.record.slots),
        "frames": prompt.sample.meta["times"],
        "sound": None if waveform is None else len(waveform) / 16000,
        "weights": answer.weights,
        "prompt_tokens": answer.prompt_tokens,
        "tokens": answer.tokens,
        "finished": answer.finished,
        "seconds": round(answer.seconds, 3),
        "notes": list(prompt.notes),
    }


def many(answerer: "Answerer", config: DictConfig, how: Mapping[str, Any]) -> None:
    """Answer a file of questions in batches, one JSON line each; what cannot be asked gets a line with ``error``.

    Raises:
        ValueError: there is no such file.
    """
    file, failed, asked = Path(config.questions).expanduser(), 0, 0
    if config.batch_size < 1:
        raise ValueError(f"batch_size={config.batch_size}: it must be 1 or more.")
    if not file.is_file():
        raise ValueError(f"questions={file}: there is no such file.")
    lines = [line for line in enumerate(file.read_text("utf-8-sig").splitlines(), 1) if line[1].strip()]
    if config.out:
        Path(config.out).expanduser().parent.mkdir(parents=True, exist_ok=True)
    with Path(config.out).expanduser().open("w", encoding="utf-8") if config.out else nullcontext(sys.stdout) as out:
        for start in range(0, len(lines), config.batch_size):
            part = lines[start : start + config.batch_size]
            found = list(prepared(answerer, part, file, Path(config.root or file.parent).expanduser(), config.modal))
            prompts = [prompt for prompt in found if not isinstance(prompt, dict)]
            answers = iter(answerer.ask(prompts, **how) if prompts else [])
            for prompt in found:
                said = prompt if isinstance(prompt, dict) else entry(prompt, next(answers))
                print(json.dumps(said, ensure_ascii=False), file=out, flush=True)
            failed, asked = failed + len(found) - len(prompts), asked + len(found)
    print(
        f"{asked} questions, {failed} could not be asked" + (f"; {config.out}" if config.out else ""), file=sys.stderr
    )


def prepared(
    answerer: "Answerer", lines: Sequence[tuple[int, str]], file: Path, root: Path, modal: str | None
) -> Iterator["Prompt | dict[str, Any]"]:
    """Questions with their media, or what is wrong with them."""
    from omnihuman.data.record import parse_record

    for number, line in lines:
        name, source = str(number), f"{file}:{number}"
        try:
            try:
                said = json.loads(line)
            except ValueError as error:
                raise ValueError(f"{source}: this is no JSON ({error}).") from error
            if not isinstance(said, dict):
                raise ValueError(f"{source}: a question is an object, this is a {type(said).__name__}.")
            name = str(said.get("id", number))
            for key in said.keys() - {*KEYS, "model"}:
                if likely := get_close_matches(key, KEYS, 1, 0.75):
                    raise ValueError(f"{source}: the key {key!r} is unknown; {likely[0]!r} is meant?")
            way = said.get("modal") or modal
            records = "conversations" in said
            record = parse_record(said, name, root, source) if records else record_of(
                said | {"modal": way}, name, source, root
            )  # fmt: skip
            yield answerer.prompt(record, way)
        except ValueError as error:
            yield {"id": name, "error": str(error)}


def save_frames(sample: "Sample", file: Path) -> None:
    """The frames of a sample, side by side, in one picture; its faces where the model gets nothing else to see."""
    import torch
    import torchvision.transforms.functional as F
    from torchvision.io import encode_png

    faces = [F.resize(face, [128, 128]) for face in sample.faces if face is not None]
    pictures = faces if sample.frames is None else list(sample.frames)
    if pictures:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(encode_png(torch.cat(pictures, dim=-1)).numpy().tobytes())


if __name__ == "__main__":
    main()
