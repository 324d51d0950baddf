"""Chat messages, as evaluation kits write them, -> records; their generation options -> ours."""

import wave
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omnihuman.data.record import MEDIA, ROLES, TAGS, Record, parse_record

OPTIONS = ("max_new_tokens", "do_sample", "temperature", "top_p", "top_k", "num_beams", "repetition_penalty")
"""Generation options that transformers' ``generate`` takes as they are."""

SAMPLING = ("temperature", "top_p", "top_k")
FRACTIONS = ("temperature", "top_p", "repetition_penalty")


def record_of(
    messages: Sequence[Mapping[str, Any]], name: str, source: str, folder: Path, extra: Mapping[str, Any] | None = None
) -> Record:
    """A conversation whose last turn is a user's, its media and its words -> the record of a question.

    A video is seen and heard; sound beside it takes the place of its own. The media stand first, wherever the turn has
    them; tags such as ``<image>`` in the words, which other models need, are left out. Without any medium it is a
    question of words alone.

    Args:
        messages: ``[{"role", "content": words or [{"type", "text" or "url", ...}]}]``; a url is a path, a PIL image,
            sound as ``{"array", "sampling_rate"}``, or ``{"url", "video_start", "video_end"}``.
        name: the record's id.
        source: the question's place, for messages.
        folder: where media go that are no files yet.
        extra: what messages have no place for: keys of a record (``faces``, ``rate``, ``start``, ``end``, ``needs``),
            and ``slots``, where a video is only to be seen or only to be heard.

    Raises:
        ValueError: users and assistants do not take turns, a later turn has media, there is more than one medium of a
            kind, or a medium is not there.
    """
    roles = [message.get("role") if isinstance(message, Mapping) else None for message in messages]
    if not roles or roles != [("user", "assistant")[number % 2] for number in range(len(roles))] or not len(roles) % 2:
        raise ValueError(
            f"{source}: a conversation is of user and assistant in turns and ends with the user's question; this one "
            f"has {roles}. Leave others (system) out."
        )
    words, given = list[str](), dict[str, Mapping[str, Any]]()
    for number, message in enumerate(messages):
        texts, media = _parts(message.get("content"), source)
        if media and number:
            raise ValueError(
                f"{source}: the model looks at media of the first turn only; turn {number} has {[*media]}."
            )
        words, given = [*words, "\n".join(texts)], given | media
    if "image" in given and len(given) > 1:
        raise ValueError(f"{source}: the model takes an image alone, this prompt has {' and '.join(given)}.")
    kind = next((kind for kind in MEDIA if kind in given), "text")
    raw: dict[str, Any] = {}
    if kind != "text":
        raw[kind] = file_of(given[kind]["url"], kind, folder / name, source)
    if kind == "video":
        raw |= _times(given["video"])
        if "audio" in given:
            raw["sound"] = file_of(given["audio"]["url"], "audio", folder / name, source)
    tags = {"video": "<video>\n<audio>\n", "image": "<image>\n", "audio": "<audio>\n", "text": ""}
    words[0] = tags[kind] + words[0].strip()
    names = {ours: theirs for theirs, ours in ROLES.items()}
    turns = [
        {"from": names[role], "value": text} for role, text in zip([*roles, "assistant"], [*words, ""], strict=True)
    ]
    said = {**raw, "conversations": turns, **(extra or {})}
    slots = said.pop("slots", None)
    record = parse_record(said, name, Path("/"), source, words_alone=True)
    return record if slots is None else record.without([slot for slot in record.slots if slot not in slots])


def _parts(content: Any, source: str) -> tuple[list[str], dict[str, Mapping[str, Any]]]:
    """The words of a turn, without tags, and its media by kind."""
    words, given = list[str](), dict[str, Mapping[str, Any]]()
    for part in [{"type": "text", "text": content}] if isinstance(content, str) else content or []:
        kind = part.get("type") if isinstance(part, Mapping) else part
        if kind == "text":
            words.append(part["text"])
        elif kind not in MEDIA:
            raise ValueError(f"{source}: a prompt holds text, {', '.join(MEDIA)}; this one has {kind!r:.80}.")
        elif kind in given:
            raise ValueError(f"{source}: the model takes one {kind}, this prompt has more; choose a task that has one.")
        else:
            given[kind] = part
    for tag in TAGS:
        words = [word.replace(f"{tag}\n", "").replace(tag, "") for word in words]
    return words, given


def file_of(medium: Any, kind: str, target: Path, source: str) -> str:
    """A medium -> its absolute path; what is in memory is written to ``target`` with an ending of its own.

    Raises:
        ValueError: it is of an unknown type.

    >>> file_of("file:///clips/a.mp4", "video", Path("unused"), "dfew[0]")
    '/clips/a.mp4'
    """
    if isinstance(medium, Mapping) and "array" not in medium:
        medium = medium.get("url") or medium.get("path")
    if isinstance(medium, str | Path):
        return str(Path(str(medium).removeprefix("file://")).expanduser().absolute())
    if kind == "image" and hasattr(medium, "save"):
        picture = target.with_suffix(".png")
        medium.save(picture)
        return str(picture)
    if kind == "audio":
        try:  # a dict, or the decoder that `datasets` hands out
            values, rate = np.asarray(medium["array"], dtype=np.float64), int(medium["sampling_rate"])
        except (TypeError, KeyError, IndexError):
            values, rate = np.zeros((0, 0)), 0
        if values.ndim == 1:
            return _wav(values, rate, target.with_suffix(".wav"))
    raise ValueError(f"{source}: {kind} is a {type(medium).__name__}; give a path, a PIL image, or mono sound.")


def options_of(given: Mapping[str, Any]) -> tuple[dict[str, Any], tuple[str, ...], tuple[str, ...]]:
    r"""Generation options of a kit -> those of transformers, where to stop, and the names that mean nothing here.

    A temperature above 0 samples, unless ``do_sample`` is false; without one the answer is greedy.

    >>> options_of({"until": ["\n\n"], "temperature": 0, "max_new_tokens": 8, "image_aspect_ratio": "pad"})
    ({'max_new_tokens': 8}, ('\n\n',), ('image_aspect_ratio',))
    """
    until = given.get("until") or ()
    stops = (until,) if isinstance(until, str) else tuple(until)
    kept = {name: given[name] for name in OPTIONS if given.get(name) is not None}
    kept |= {name: float(kept[name]) for name in FRACTIONS if name in kept}  # transformers takes no 1 for a 1.0
    heat = float(kept.get("temperature", 0.0))
    if kept.pop("do_sample", heat > 0) and ("temperature" not in kept or heat > 0):
        kept["do_sample"] = True
    else:
        kept = {name: value for name, value in kept.items() if name not in SAMPLING}
    return kept, stops, tuple(sorted(set(given) - {*OPTIONS, "until"}))


def cut(answer: str, stops: Sequence[str]) -> str:
    r"""An answer up to the first of its stops.

    >>> cut("happy\n\nQuestion: who", ["\n\n", "Q"])
    'happy'
    """
    ends = [place for stop in stops if stop and (place := answer.find(stop)) >= 0]
    return answer[: min(ends, default=len(answer))]


def _times(part: Mapping[str, Any]) -> dict[str, Any]:
    url = part["url"] if isinstance(part["url"], Mapping) else {}
    said = {key: part.get(f"{key}_time", url.get(f"video_{key}")) for key in ("start", "end")}
    return {key: value for key, value in said.items() if value is not None}


def _wav(values: NDArray[np.float64], rate: int, file: Path) -> str:
    with wave.open(str(file), "wb") as out:
        out.setparams((1, 2, rate, 0, "NONE", "not compressed"))
        out.writeframes((values.clip(-1, 1) * 32767).round().astype("<i2").tobytes())
    return str(file)
