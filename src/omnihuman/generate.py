"""Answer questions with a trained run: ``omnihuman generate run=humanomni_stage3 video=clip.mp4 instruction=…``."""

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from omnihuman.modality import KINDS, SAMPLE_RATE, View
from omnihuman.verb import verb

if TYPE_CHECKING:
    from omnihuman.data.record import Record
    from omnihuman.inference.answer import Answer, Prompt
    from omnihuman.inference.answerer import Answerer
    from omnihuman.types import Sample

QUESTION_KEYS = {"id", "instruction", "start", "end", "view", *KINDS}
"""Keys of a question: a line of a file of questions, or the command line."""

RECORD_KEYS = {
    *("conversations", "audio_track", "video_stream", "audio_stream"),
    *("second_clip", "fps", "faces", "needs", "task", "meta"),
}
"""Further keys of a line that is a record. Other keys are the user's own, unless they look like a typing error."""


@verb("generate", "instruction", *KINDS, "frames_png", "questions", "root", "out")
def main(config: DictConfig) -> None:
    """Load a run and answer one question, with details, or a file of questions."""
    from omnihuman.inference.question import build_question

    record = None if config.questions else build_question(config)  # before torch is imported
    view = None if config.view is None else View.parse(config.view)
    import transformers

    from omnihuman.data.messages import GENERATION_KEYS, parse_generation_options
    from omnihuman.inference.answerer import Answerer

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    generation_kwargs, _, _ = parse_generation_options({key: config.get(key) for key in GENERATION_KEYS})
    answerer = Answerer.from_config(config)
    generation_kwargs["seed"] = config.seed if generation_kwargs.get("do_sample") else None
    generation_kwargs.setdefault("max_new_tokens", answerer.max_new_tokens)
    if record is None:
        answer_file(answerer, config, generation_kwargs)
    else:
        answer_one(answerer, answerer.build_prompt(record, view), config, generation_kwargs)


def answer_one(
    answerer: "Answerer", prompt: "Prompt", config: DictConfig, generation_kwargs: Mapping[str, Any]
) -> None:
    """Print the answer to one question, with its frames and the weights of the fusions."""
    if config.stream and not config.json and generation_kwargs.get("num_beams", 1) == 1:
        answer = _print_stream(answerer, prompt, generation_kwargs)
    else:
        answer = answerer.answer_prompts([prompt], **generation_kwargs)[0]
        print(json.dumps(to_json(prompt, answer), ensure_ascii=False) if config.json else f"answer: {answer.text}")
    if not config.json:
        print_details(prompt, answer)
    if config.frames_png and prompt.sample.meta["times"]:
        save_frames(prompt.sample, Path(config.frames_png).expanduser())
        print("frames written to", config.frames_png, file=sys.stderr if config.json else sys.stdout)


def _print_stream(answerer: "Answerer", prompt: "Prompt", generation_kwargs: Mapping[str, Any]) -> "Answer":
    stream = answerer.stream(prompt, **generation_kwargs)
    print("answer: ", end="")
    has_begun = False
    try:
        for piece in stream:
            print(piece if has_begun else piece.lstrip(), end="", flush=True)
            has_begun = has_begun or bool(piece.strip())
    finally:  # also if the terminal is closed
        stream.close()
    print()
    return stream.answer


def print_details(prompt: "Prompt", answer: "Answer") -> None:
    """Print notes, media, fusion weights and the number of tokens of an answer."""
    for note in prompt.notes:
        print("note:  ", note)
    if times := prompt.sample.meta["times"]:
        print("frames:", ", ".join(f"{second:.2f} s" for second in times))
    if prompt.sample.waveform is not None:
        print(f"audio:  {len(prompt.sample.waveform) / SAMPLE_RATE:.2f} s")
    for name, weights in answer.weights.items():
        print(f"{name}:  ", ", ".join(f"{stream} {weight:.2f}" for stream, weight in weights.items()))
    counts = ", ".join(f"{count} of {slot}" for slot, count in prompt.counts.items() if count)
    print(f"tokens: {answer.prompt_tokens} in ({counts or 'text only'}), {answer.tokens} out", end="")
    print(f", {answer.seconds:.2f} s" + ("" if answer.finished else "; cut at max_new_tokens"))


def to_json(prompt: "Prompt", answer: "Answer") -> dict[str, Any]:
    """Return a question and its answer as plain data."""
    waveform = prompt.sample.waveform
    return {
        "id": prompt.record.id,
        "question": prompt.sample.instruction,
        "answer": answer.text,
        "ids": list(answer.ids),
        "slots": list(prompt.record.slots),
        "frames": prompt.sample.meta["times"],
        "audio": None if waveform is None else len(waveform) / SAMPLE_RATE,
        "weights": answer.weights,
        "prompt_tokens": answer.prompt_tokens,
        "tokens": answer.tokens,
        "finished": answer.finished,
        "seconds": round(answer.seconds, 3),
        "notes": list(prompt.notes),
    }


def answer_file(answerer: "Answerer", config: DictConfig, generation_kwargs: Mapping[str, Any]) -> None:
    """Answer a file of questions in batches, one JSON line each; a question that fails gets a line with ``error``.

    Raises:
        ValueError: the file is missing; or, after all answers, questions have failed.
    """
    file, root = Path(config.questions).expanduser(), config.root
    if config.batch_size < 1:
        raise ValueError(f"batch_size={config.batch_size}: it must be 1 or more.")
    if not file.is_file():
        raise ValueError(f"questions={file}: there is no such file.")
    root = file.parent if root is None else Path(root).expanduser()
    lines = [line for line in enumerate(file.read_text("utf-8-sig").split("\n"), 1) if line[1].strip()]
    failed: list[int] = []
    with _open_output(config.out) as out:
        for start in range(0, len(lines), config.batch_size):
            part = lines[start : start + config.batch_size]
            prompts = list(build_prompts(answerer, part, file, root, config.view))
            valid = [prompt for prompt in prompts if not isinstance(prompt, dict)]
            answers = iter(answerer.answer_prompts(valid, **generation_kwargs) if valid else [])
            for (number, _), prompt in zip(part, prompts, strict=True):
                if isinstance(prompt, dict):
                    failed.append(number)
                    entry = prompt
                else:
                    entry = to_json(prompt, next(answers))
                print(json.dumps(entry, ensure_ascii=False), file=out, flush=True)
    target = f"; {config.out}" if config.out else ""
    print(f"{len(lines)} questions, {len(failed)} of them failed{target}", file=sys.stderr)
    if failed:
        numbers = ", ".join(map(str, failed))
        raise ValueError(f"questions={file}: line {numbers} failed; see `error` of the answers.")


def _open_output(path: str | None) -> Any:
    if not path:
        return nullcontext(sys.stdout)
    file = Path(path).expanduser()
    file.parent.mkdir(parents=True, exist_ok=True)
    return file.open("w", encoding="utf-8")


def build_prompts(
    answerer: "Answerer", lines: Sequence[tuple[int, str]], file: Path, root: Path, view: str | None
) -> Iterator["Prompt | dict[str, Any]"]:
    """Yield prompts of the lines of a file, or id and error of an invalid line.

    Args:
        answerer: the model.
        lines: number and text.
        file: of the lines, for messages.
        root: folder of the media.
        view: for lines without a view of their own.
    """
    for number, line in lines:
        name, location = str(number), f"{file}:{number}"
        try:
            question = _parse_line(line, location)
            name = str(question.get("id", number))
            record, own_view = _parse_question(question | {"view": question.get("view") or view}, name, location, root)
            yield answerer.build_prompt(record, own_view)
        except ValueError as error:
            yield {"id": name, "error": str(error)}


def _parse_line(line: str, location: str) -> dict[str, Any]:
    try:
        question = json.loads(line)
    except ValueError as error:
        raise ValueError(f"{location}: malformed JSON ({error}).") from error
    if not isinstance(question, dict):
        raise ValueError(f"{location}: a question must be an object, got {type(question).__name__}.")
    known = [*QUESTION_KEYS, *RECORD_KEYS]
    for key in question.keys() - {*known, "model"}:
        if likely := get_close_matches(key, known, 1, 0.75):
            raise ValueError(f"{location}: unknown key {key!r}; did you mean {likely[0]!r}?")
    return question


def _parse_question(question: dict[str, Any], name: str, location: str, root: Path) -> tuple["Record", View | None]:
    from omnihuman.data.record import parse_record
    from omnihuman.inference.question import build_question

    if "conversations" in question:
        view = question.pop("view")
        record = parse_record(question, name, root, location, allow_text_only=True)
        return record, None if view is None else View.parse(view, f"{location}: view")
    record = build_question(question, name, location, root)
    view = question["view"]
    return record, None if view is None else View.parse(view, f"{location}: view")


def save_frames(sample: "Sample", file: Path) -> None:
    """Write the frames of a sample side by side as a PNG image; its faces if the view hides the frames."""
    import torch
    import torchvision.transforms.functional as F
    from torchvision.io import encode_png

    images = [F.resize(face, [128, 128]) for face in sample.faces if face is not None]
    if sample.frames is not None:
        images = list(sample.frames)
    if images:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(encode_png(torch.cat(images, dim=-1)).numpy().tobytes())


if __name__ == "__main__":
    main()
