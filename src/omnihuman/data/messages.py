"""Chat messages of evaluation kits and servers -> records; generation options of kits -> those of transformers."""

import wave
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omnihuman.data.conversation import ROLES
from omnihuman.data.record import Record, parse_record
from omnihuman.modality import KINDS, prompt_head, strip_tags

GENERATION_KEYS = (
    "max_new_tokens",
    "do_sample",
    "temperature",
    "top_p",
    "top_k",
    "num_beams",
    "repetition_penalty",
)
"""Generation options that transformers' ``generate`` takes as they are."""

SAMPLING_KEYS = ("temperature", "top_p", "top_k")
INTEGER_RANGES = {"max_new_tokens": (1, 2**20), "top_k": (0, 2**31), "num_beams": (1, 64)}
FLOAT_RANGES = {"temperature": (0.0, 100.0), "top_p": (0.0, 1.0), "repetition_penalty": (0.01, 100.0)}
"""Generation options -> smallest and largest value."""

MIN_TEMPERATURE = 1e-6
"""Smallest temperature above 0, that of Qwen2.5-VL; logits divided by a much smaller one are infinite."""


def build_record(
    messages: Sequence[Mapping[str, Any]], name: str, source: str, folder: Path, extra: Mapping[str, Any] | None = None
) -> Record:
    """Build the record of a conversation whose last turn is a question.

    A video gives frames and audio; an audio part beside it replaces the audio of the video. The media come first,
    wherever the turn has them; several images, and those of later turns, stay where the conversation has them. Tags
    such as ``<image>``, which other models need in the text, are removed. Without media it is a text-only question. A
    first turn from ``system`` is the record's system prompt.

    Args:
        messages: ``[{"role", "content": text or [{"type", "text" or "url", ...}]}]``; a url is a path, a PIL image,
            audio as ``{"array", "sampling_rate"}``, or ``{"url", "video_start", "video_end"}``.
        name: the record's id.
        source: place of the question, for messages.
        folder: for media that are not files yet.
        extra: keys of a record (``faces``, ``fps``, ``start``, ``end``, ``needs``), and ``slots`` to use a part of a
            video only.

    Raises:
        ValueError: user and assistant do not alternate, a later turn has video or audio, one of these occurs twice, an
            image is beside other media, or a file is missing.
    """
    system, messages = _split_system(messages, source)
    _check_roles(messages, source)
    texts, media, images = list[str](), dict[str, Mapping[str, Any]](), list[Any]()
    for number, message in enumerate(messages):
        text, parts, turn_images = _split_content(message.get("content"), source)
        if parts and number:
            problem = f"the model takes video and audio of the first turn only; turn {number} has {[*parts]}"
            raise ValueError(f"{source}: {problem}.")
        texts.append(text)
        media |= parts
        images += turn_images
    if images and media:
        raise ValueError(f"{source}: the model takes images alone, this prompt has {' and '.join(media)} as well.")
    kind = next((kind for kind in KINDS if kind in media), "image" if images else "text")
    if len(images) < 2 and not any("<image>" in text for text in texts[1:]):
        texts[0] = prompt_head(kind) + strip_tags(texts[0]).strip()
    raw = _media_keys(media, images, folder / name, source)
    raw["conversations"] = _build_turns(texts)
    if system is not None:
        raw["system"] = system
    raw |= extra or {}
    slots = raw.pop("slots", None)
    record = parse_record(raw, name, Path("/"), source, allow_text_only=True)
    if slots is None:
        return record
    return record.drop_slots([slot for slot in record.slots if slot not in slots])


def save_medium(medium: Any, kind: str, target: Path, source: str) -> str:
    """Return the absolute path of a medium; a medium in memory is written to ``target`` with a suffix of its own.

    Raises:
        ValueError: the medium is of an unknown type.

    >>> save_medium("file:///clips/a.mp4", "video", Path("unused"), "dfew[0]")
    '/clips/a.mp4'
    """
    if isinstance(medium, Mapping) and "array" not in medium:
        medium = medium.get("url") or medium.get("path")
    if isinstance(medium, str | Path):
        return str(Path(str(medium).removeprefix("file://")).expanduser().absolute())
    if kind == "image" and hasattr(medium, "save"):
        file = target.with_suffix(".png")
        medium.save(file)
        return str(file)
    if kind == "audio":
        samples, rate = _read_array(medium)
        if samples.ndim == 1:
            return _write_wav(samples, rate, target.with_suffix(".wav"))
    raise ValueError(f"{source}: unknown {kind} of type {type(medium).__name__}; give a path, PIL image or mono audio.")


def parse_generation_options(
    options: Mapping[str, Any],
) -> tuple[dict[str, Any], tuple[str, ...], tuple[str, ...]]:
    r"""Return generation options of transformers, stop texts, and the names of options that have no effect.

    A temperature above 0 samples, unless ``do_sample`` is false; without a temperature the answer is greedy.

    Raises:
        ValueError: an option has a value outside its range, such as NaN.

    >>> parse_generation_options({"until": ["\n\n"], "temperature": 0, "max_new_tokens": 8, "aspect_ratio": "pad"})
    ({'max_new_tokens': 8}, ('\n\n',), ('aspect_ratio',))
    """
    until = options.get("until") or ()
    stops = (until,) if isinstance(until, str) else tuple(until)
    ignored = tuple(sorted(set(options) - {*GENERATION_KEYS, "until"}))
    generation_kwargs: dict[str, Any] = {}
    for name in GENERATION_KEYS:
        if options.get(name) is not None:
            generation_kwargs[name] = _check_option(name, options[name])
    temperature = generation_kwargs.get("temperature", 0.0)
    do_sample = generation_kwargs.pop("do_sample", temperature > 0)
    if do_sample and ("temperature" not in generation_kwargs or temperature > 0):
        generation_kwargs["do_sample"] = True
        return generation_kwargs, stops, ignored
    greedy = {name: value for name, value in generation_kwargs.items() if name not in SAMPLING_KEYS}
    return greedy, stops, ignored


def _check_option(name: str, value: Any) -> Any:
    """Return the value of a generation option as transformers takes it: an integer, a float, or a bool."""
    if name == "do_sample":
        if isinstance(value, bool):
            return value
        raise ValueError(f"{name}: {value!r:.80} is neither true nor false.")
    low, high = (INTEGER_RANGES | FLOAT_RANGES)[name]
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    is_whole = is_number and value == value // 1
    if not is_number or not low <= value <= high or (name in INTEGER_RANGES and not is_whole):
        kind = "a whole number" if name in INTEGER_RANGES else "a number"
        raise ValueError(f"{name}: {value!r:.80} is not {kind} from {low:g} to {high:g}.")
    if name == "temperature" and 0 < value < MIN_TEMPERATURE:
        raise ValueError(f"{name}: {value!r} is too close to 0: choose 0, or {MIN_TEMPERATURE:g} and more.")
    return int(value) if name in INTEGER_RANGES else float(value)  # transformers refuses a top_p of the integer 1


def truncate_at_stops(answer: str, stops: Sequence[str]) -> str:
    r"""Return an answer up to the first of the stop texts.

    >>> truncate_at_stops("happy\n\nQuestion: who", ["\n\n", "Q"])
    'happy'
    """
    positions = [answer.find(stop) for stop in stops if stop]
    return answer[: min((position for position in positions if position >= 0), default=len(answer))]


def _split_system(messages: Sequence[Mapping[str, Any]], source: str) -> tuple[str | None, Sequence[Mapping[str, Any]]]:
    first = messages[0] if messages else None
    if not isinstance(first, Mapping) or first.get("role") != "system":
        return None, messages
    system, media, images = _split_content(first.get("content"), source)
    if media or images:
        raise ValueError(f"{source}: a system turn is text, this one has {' and '.join(media) or 'an image'}.")
    return system, messages[1:]


def _check_roles(messages: Sequence[Mapping[str, Any]], source: str) -> None:
    roles = [message.get("role") if isinstance(message, Mapping) else None for message in messages]
    expected = [("user", "assistant")[number % 2] for number in range(len(roles))]
    if len(roles) % 2 == 0 or roles != expected:
        raise ValueError(
            f"{source}: user and assistant must alternate after at most one system turn, and the last turn must be the "
            f"user's; got {roles}. Remove other roles."
        )


def _media_keys(
    media: Mapping[str, Mapping[str, Any]], images: Sequence[Any], target: Path, source: str
) -> dict[str, Any]:
    """Return the keys of a record that name its media."""
    if images:
        targets = [target, *(Path(f"{target}_{number}.png") for number in range(1, len(images)))]
        pairs = zip(images, targets, strict=True)
        return {"image": [save_medium(image, "image", file, source) for image, file in pairs]}
    kind = next((kind for kind in KINDS if kind in media), None)
    if kind is None:
        return {}
    raw: dict[str, Any] = {kind: save_medium(media[kind]["url"], kind, target, source)}
    if kind == "video":
        raw |= _parse_span(media["video"])
        if "audio" in media:
            raw["audio_track"] = save_medium(media["audio"]["url"], "audio", target, source)
    return raw


def _build_turns(texts: Sequence[str]) -> list[dict[str, str]]:
    """Return turns of a record with an empty answer at the end."""
    human, gpt = ROLES
    turns = []
    for number, text in enumerate([*texts, ""]):
        turns.append({"from": gpt if number % 2 else human, "value": text})
    return turns


def _split_content(content: Any, source: str) -> tuple[str, dict[str, Mapping[str, Any]], list[Any]]:
    """Return the text of a turn with a tag for each of its images, its other media by kind, and the images."""
    parts = [{"type": "text", "text": content}] if isinstance(content, str) else content or []
    texts, media, images = list[str](), dict[str, Mapping[str, Any]](), list[Any]()
    for part in parts:
        kind = part.get("type") if isinstance(part, Mapping) else part
        if kind == "text":
            texts.append(strip_tags(part["text"]))
        elif kind not in KINDS:
            raise ValueError(f"{source}: unknown content {kind!r:.80}; expected text, {', '.join(KINDS)}.")
        elif kind == "image":
            texts.append("<image>")
            images.append(part["url"])
        elif kind in media:
            raise ValueError(f"{source}: more than one {kind}; the model takes one: choose a task with one.")
        else:
            media[kind] = part
    return "\n".join(texts), media, images


def _parse_span(part: Mapping[str, Any]) -> dict[str, Any]:
    url = part["url"] if isinstance(part["url"], Mapping) else {}
    span = {key: part.get(f"{key}_time", url.get(f"video_{key}")) for key in ("start", "end")}
    return {key: value for key, value in span.items() if value is not None}


def _read_array(medium: Any) -> tuple[NDArray[np.float64], int]:
    """Return samples and rate of a dictionary, or of the decoder that `datasets` returns; two empty axes if neither."""
    try:
        return np.asarray(medium["array"], dtype=np.float64), int(medium["sampling_rate"])
    except (TypeError, KeyError, IndexError):
        return np.zeros((0, 0)), 0


def _write_wav(samples: NDArray[np.float64], rate: int, file: Path) -> str:
    with wave.open(str(file), "wb") as out:
        out.setparams((1, 2, rate, 0, "NONE", "not compressed"))
        out.writeframes((samples.clip(-1, 1) * 32767).round().astype("<i2").tobytes())
    return str(file)
