"""Tags of a conversation: in the forms in which data sets write them -> each where a slot is."""

from collections.abc import Mapping, Sequence

from omnihuman.data.bad_sample import BadSample
from omnihuman.data.conversation import Message
from omnihuman.modality import KINDS, TAGS, strip_tags, tags_of


def parse_tags(
    messages: Sequence[Message], kind: str, num_files: int, location: str, *, add_audio: bool = False
) -> tuple[tuple[Message, ...], tuple[str, ...]]:
    r"""Return the conversation with one tag of a kind for each file, and the slots that it names.

    ``<image>`` stands for the video of a record whose file is its ``video``, as LLaVA-Video writes it. Of one file,
    the first tag counts, and the others are removed: a conversation may repeat it in every turn. Several images have a
    tag each, in the order of the files.

    Args:
        messages: of the record.
        kind: the key that names the file, ``text`` or, where a file is missing, the empty string.
        num_files: that the key names.
        location: place of the record, for messages.
        add_audio: a video whose text has no ``<audio>`` gets one behind ``<video>``, as in HumanOmni's loader.

    Raises:
        BadSample: a tag is in an answer, is not one of the file's kind or is missing, or there is not one for each
            image.

    >>> parse_tags((("user", "<image>\nWho? <video>"), ("assistant", "Ann")), "video", 1, "a.json[0]", add_audio=True)
    ((('user', '<video>\n<audio>\nWho? '), ('assistant', 'Ann')), ('video', 'audio'))
    """
    _check_answers(messages, location)
    if kind == "video":
        messages = [(role, text.replace("<image>", "<video>")) for role, text in messages]
    questions = "\n".join(text for role, text in messages if role == "user")
    counts = {tag: questions.count(tag) for tag in TAGS}
    if num_files > 1:
        _check_number(counts, kind, num_files, location)
    else:
        messages = _remove_repeats(messages)
    if add_audio and kind == "video" and counts["<video>"] and not counts["<audio>"]:
        messages = _replace_first(messages, "<video>", "<video>\n<audio>")
        counts["<audio>"] = 1
    tags = [tag for tag in TAGS if counts[tag]]
    _check_kind(tags, kind, location)
    return tuple(messages), tuple(TAGS[tag] for tag in tags)


def _check_answers(messages: Sequence[Message], location: str) -> None:
    answers = "\n".join(text for role, text in messages if role == "assistant")
    for tag in TAGS:
        if tag in answers:
            raise BadSample("placeholder_in_answer", f"{location}: {tag} is in an answer; move it to a human turn.")


def _check_number(counts: Mapping[str, int], kind: str, num_files: int, location: str) -> None:
    tag = f"<{kind}>"
    if counts[tag] != num_files:
        message = f"{location}: {kind} lists {num_files} files, but the text has {tag} {counts[tag]} times"
        raise BadSample("placeholder_number", f"{message}: write one {tag} for each file, in their order.")


def _check_kind(tags: Sequence[str], kind: str, location: str) -> None:
    if kind in ("", "text"):
        if tags:
            message = f"{location}: the text has {', '.join(tags)}, but the record has no file; add {tags[0][1:-1]!r}."
            raise BadSample("placeholder_without_media", message)
        if not kind:
            raise BadSample("no_media", f"{location}: the record has no file; add one of {', '.join(KINDS)}.")
        return
    if unexpected := sorted(set(tags) - set(tags_of(kind))):
        message = f"{location}: the text has {', '.join(unexpected)}, but the record's file is its {kind!r}."
        raise BadSample("placeholder_without_media", message)
    if not tags:
        message = f"{location}: the record has {kind!r}, but no human turn has its tag: write <{kind}>."
        raise BadSample("media_without_placeholder", message)


def _remove_repeats(messages: Sequence[Message]) -> list[Message]:
    """Return the messages with the first tag of each kind only."""
    tags_before: set[str] = set()
    single: list[Message] = []
    for role, text in messages:
        for tag in TAGS:
            if tag in text and tag in tags_before:
                text = strip_tags(text, [tag])
            elif tag in text:
                before, _, after = text.partition(tag)
                text = before + tag + strip_tags(after, [tag]) if tag in after else text
                tags_before.add(tag)
        single.append((role, text))
    return single


def _replace_first(messages: Sequence[Message], tag: str, new: str) -> list[Message]:
    """Return the messages with the one tag replaced."""
    return [(role, text.replace(tag, new) if role == "user" else text) for role, text in messages]
