"""The report of a check: what is bad, what occurs twice, and the distributions."""

import itertools
import statistics
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from omnihuman.data.record import Entry, Record
from omnihuman.metric.chinese import count_words
from omnihuman.preflight.check import Verdict

SILENCE = 1e-3
"""Peak of a waveform that counts as silent: -60 dB of full scale."""

MAX_LABELS = 50
"""Number of different answers up to which the answers of a task are labels, if each occurs twice on average."""

MAX_LABEL_WORDS, MAX_RATIO = 2, 10
"""Words of a label, and frequency of the most frequent label relative to the rarest, from which on it is a note."""

NUM_BINS = 20
"""Bins of the histogram of lengths."""

QUANTILES = {"min": 0.0, "median": 0.5, "p95": 0.95, "max": 1.0}


@dataclass(frozen=True, slots=True)
class Item:
    """An entry with its verdict.

    Attributes:
        split: its name.
        source: location of the records.
        entry: of the source.
        verdict: ``None`` where it was not checked, because the check was interrupted.
    """

    split: str
    source: str
    entry: Entry
    verdict: Verdict | None = None

    @property
    def id(self) -> str:
        """Id of the record."""
        return self.entry.id if isinstance(self.entry, Record) else self.entry[0]

    @property
    def location(self) -> str:
        """Place of the record; the id of an invalid one, which has no other name."""
        return self.entry.location if isinstance(self.entry, Record) else self.entry[0]


@dataclass
class Report:
    """The content of ``report.json``.

    Attributes:
        complete: every record was checked.
        settings: what the verdict depends on.
        problems: one sentence for each reason to correct something before training.
        notes: one sentence for each thing to look at.
        splits: name -> counts, lengths, audio, faces and labels.
        bad: reason -> samples that training cannot use.
        duplicates: kind -> groups of records, files or clips that are the same.
        shared: kind -> groups that several splits share.
        cost: seconds, and CPU milliseconds for each clip.
    """

    complete: bool
    settings: Mapping[str, Any]
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    splits: dict[str, dict[str, Any]] = field(default_factory=dict)
    bad: dict[str, list[dict[str, str]]] = field(default_factory=dict)
    duplicates: dict[str, list[list[dict[str, str]]]] = field(default_factory=dict)
    shared: dict[str, list[list[dict[str, str]]]] = field(default_factory=dict)
    cost: dict[str, float] = field(default_factory=dict)


def summarize(
    items: Sequence[Item],
    settings: Mapping[str, Any],
    hashes: Mapping[Path, str],
    person: str | None = None,
) -> Report:
    """Return the report on all entries.

    Args:
        items: in order.
        settings: of the check, for the report.
        hashes: of the bytes of files, where several have the same size.
        person: key of the records that names the person, ``None`` to compare no people.
    """
    report = Report(complete=all(item.verdict is not None for item in items), settings=settings)
    for split in dict.fromkeys(item.split for item in items):
        _add_split(report, split, [item for item in items if item.split == split])
    checked = [item for item in items if item.verdict is not None]
    _add_duplicates(report, checked, hashes)
    _add_shared(report, checked, hashes, person)
    if not report.complete:
        num_open = sum(item.verdict is None for item in items)
        report.problems.insert(0, f"the check was interrupted: {num_open} of {len(items)} records are not checked")
    return report


def _add_split(report: Report, split: str, items: Sequence[Item]) -> None:
    """Add the counts and distributions of a split, with its problems and notes."""
    verdicts = [item.verdict for item in items if item.verdict is not None]
    reasons, files, lengths = Counter[str](), set[Path](), list[int]()
    for item in items:
        files.update(item.entry.files if isinstance(item.entry, Record) else ())
        lengths += item.verdict.lengths if item.verdict else ()
        problems = item.verdict.problems if item.verdict else ()
        reasons.update({problem.reason for problem in problems})  # one for a record, not for each view
        for problem in problems:
            report.bad.setdefault(problem.reason, []).append({"split": split, "source": item.source, **asdict(problem)})
    num_bad = sum(bool(verdict.problems) for verdict in verdicts)
    clips = {_clip_key(item): item.verdict.seconds for item in items if item.verdict and _clip_key(item)}
    report.splits[split] = {
        "sources": list(dict.fromkeys(item.source for item in items)),
        "records": len(items),
        "checked": len(verdicts),
        "bad": num_bad,
        "samples": len(lengths),
        "files": len(files),
        "clips": len(clips),
        "seconds": round(sum(clips.values()), 1),
        "tokens": describe_lengths(lengths),
        "answers_cut": sum(verdict.num_cut for verdict in verdicts),
        "audio": count_audio(items),
        "faces": count_faces(verdicts),
        "labels": count_labels(items),
    }
    if num_bad:
        details = ", ".join(f"{count} {reason}" for reason, count in reasons.most_common())
        report.problems.append(f"{split}: {num_bad} of {len(verdicts)} records cannot be used as they are: {details}")
    if verdicts and not any(verdict.lengths for verdict in verdicts):
        report.problems.append(f"{split}: no sample is left")
    _add_split_notes(report, split)


def _add_split_notes(report: Report, split: str) -> None:
    counts = report.splits[split]
    faces, audio = counts["faces"], counts["audio"]
    if faces["unlocated"] and not faces["located"]:
        report.problems.append(
            f"{split}: the model reads faces, but none of {faces['unlocated']} records has boxes (`faces`): choose "
            "face@data.face=whole, or a detector (yunet, mediapipe)"
        )
    elif faces["unlocated"]:
        report.notes.append(f"{split}: {faces['unlocated']} records have no boxes (`faces`), so the model gets no face")
    if faces["without"]:
        report.notes.append(f"{split}: {faces['without']} clips have no face in any selected frame")
    if audio["silent"]:
        report.notes.append(f"{split}: the audio of {audio['silent']} records is silent")
    if audio["missing"]:
        report.notes.append(f"{split}: {audio['missing']} records name <audio>, but their file has none: it is removed")
    if audio["unused"]:
        report.notes.append(
            f"{split}: the file of {audio['unused']} records has audio, but their text names no <audio>"
        )
    if counts["answers_cut"]:
        limit = report.settings["max_length"]
        samples = f"{counts['answers_cut']} samples"
        report.notes.append(f"{split}: the answers of {samples} are cut at {limit} tokens (data.max_length)")
    for task, labels in counts["labels"].items():
        if labels["ratio"] is not None and labels["ratio"] >= MAX_RATIO and labels["words"] <= MAX_LABEL_WORDS:
            name = f" of task {task}" if task else ""
            report.notes.append(f"{split}: the most frequent label{name} occurs {labels['ratio']:g} times the rarest")


def describe_lengths(lengths: Sequence[int]) -> dict[str, Any]:
    """Return quantiles and a histogram of lengths in tokens.

    >>> describe_lengths([3, 3, 4])["median"]
    3
    """
    if not lengths:
        return {**dict.fromkeys(QUANTILES), "total": 0, "histogram": []}
    ordered = sorted(lengths)
    described: dict[str, Any] = {}
    for name, share in QUANTILES.items():
        described[name] = ordered[round(share * (len(ordered) - 1))]
    width = max(1, -(-(ordered[-1] - ordered[0] + 1) // NUM_BINS))
    bins = Counter((length - ordered[0]) // width for length in ordered)
    histogram = []
    for number in range(max(bins) + 1):
        first = ordered[0] + number * width
        histogram.append([first, first + width - 1, bins[number]])
    return {**described, "total": sum(ordered), "histogram": histogram}


def count_audio(items: Iterable[Item]) -> dict[str, int]:
    """Return numbers of records: their text names audio, its file has none, it is silent; audio that no text names."""
    counts = dict.fromkeys(("named", "missing", "silent", "unused"), 0)
    for item in items:
        if item.verdict is None or not isinstance(item.entry, Record):
            continue
        is_named = "audio" in item.entry.slots
        peak = item.verdict.content.peak
        counts["named"] += is_named
        counts["missing"] += "audio" in item.verdict.dropped
        counts["silent"] += peak is not None and peak < SILENCE
        counts["unused"] += item.verdict.has_audio and not is_named
    return counts


def count_faces(verdicts: Iterable[Verdict]) -> dict[str, Any]:
    """Return numbers of frames and records with and without a face.

    ``located`` and ``unlocated`` are records whose faces the model reads, with and without boxes or a detector.
    """
    counts: dict[str, Any] = dict.fromkeys(("located", "unlocated", "frames", "with_face", "without"), 0)
    for verdict in verdicts:
        counts["located"] += verdict.is_located is True
        counts["unlocated"] += verdict.is_located is False
        content = verdict.content
        if content.num_faces is None:
            continue
        counts["frames"] += content.num_frames
        counts["with_face"] += content.num_faces
        counts["without"] += content.num_faces == 0
    counts["share"] = round(counts["with_face"] / counts["frames"], 3) if counts["frames"] else None
    return counts


def count_labels(items: Iterable[Item]) -> dict[str, dict[str, Any]]:
    """Return task -> number of records, of different answers, and of each answer where they are labels."""
    answers: dict[str, Counter[str]] = {}
    for item in items:
        if isinstance(item.entry, Record):
            answer = next((text for role, text in item.entry.messages if role == "assistant"), "")
            answers.setdefault(item.entry.task or "", Counter())[answer.strip()] += 1
    counts = {}
    for task, counter in sorted(answers.items()):
        is_label = len(counter) <= MAX_LABELS and 2 * len(counter) <= counter.total()
        ratio = None
        if is_label and len(counter) > 1:
            ratio = round(max(counter.values()) / min(counter.values()), 1)
        counts[task] = {
            "records": counter.total(),
            "answers": len(counter),
            "words": round(statistics.mean(count_words(answer) for answer in counter.elements()), 1),
            "labels": dict(counter.most_common()) if is_label else {},
            "ratio": ratio,
        }
    return counts


# ------------------------------------------------------------------------------------------------- what occurs twice


def _clip_key(item: Item) -> Hashable:
    """Return a key that clips of equal content have in common; ``None`` for a record without a decoded clip."""
    content = item.verdict.content if item.verdict is not None else None
    if content is None or not (content.frames or content.audio):
        return None
    if content.is_moving:  # audio that is re-muxed can begin some milliseconds earlier, so that its samples differ
        return content.frames
    return content.frames, content.audio


def _group(items: Iterable[Item], key: Callable[[Item], Hashable]) -> list[list[Item]]:
    """Return the items of each key but ``None``, in order."""
    groups: dict[Hashable, list[Item]] = {}
    for item in items:
        name = key(item)
        if name is not None:
            groups.setdefault(name, []).append(item)
    return list(groups.values())


def describe_clip(item: Item) -> str:
    """Return file and span of a record, ``a.mp4, 0 to 2.5 s``."""
    if not isinstance(item.entry, Record) or item.entry.kind == "text":
        return ""
    start, end = item.entry.span
    if end is None:
        return str(item.entry.file) if not start else f"{item.entry.file}, from {start:g} s"
    return f"{item.entry.file}, {start:g} to {end:g} s"


def _describe(items: Iterable[Item], name: Callable[[Item], str]) -> list[dict[str, str]]:
    """Return the members of a group, each name once in a split."""
    members: dict[tuple[str, str], dict[str, str]] = {}
    for item in items:
        member = {"name": name(item), "split": item.split, "location": item.location}
        members.setdefault((member["name"], item.split), member)
    return list(members.values())


def _add_duplicates(report: Report, items: Sequence[Item], hashes: Mapping[Path, str]) -> None:
    """Add groups of entries with one id, of equal records, of files with equal bytes, and of clips of equal content."""
    records = [item for item in items if isinstance(item.entry, Record)]
    kinds: dict[str, list[list[dict[str, str]]]] = {"ids": [], "records": [], "files": [], "clips": []}
    for group in _group(items, lambda item: (item.split, item.id)):
        if len(group) > 1:
            kinds["ids"].append([{"name": i.id, "split": i.split, "location": i.location} for i in group])
    for group in _group(records, lambda item: _record_key(item, hashes)):
        if len(group) > 1:
            kinds["records"].append([{"name": i.id, "split": i.split, "location": i.location} for i in group])
    for kind, key, name in (
        ("files", lambda item: hashes.get(item.entry.file), lambda item: str(item.entry.file)),
        ("clips", _clip_key, describe_clip),
    ):
        for group in _group(records, key):
            members = _describe(group, name)
            if len({member["name"] for member in members}) > 1:
                kinds[kind].append(members)
    report.duplicates = kinds
    nouns = {
        "ids": "ids occur twice in a split",
        "records": "questions occur twice about the same clip",
        "files": "files occur under several names, byte for byte",
        "clips": "clips occur several times with equal content",
    }
    for kind, groups in kinds.items():
        if groups:
            num_members = sum(map(len, groups))
            report.notes.append(f"{len(groups)} {nouns[kind]} ({num_members} in all)")


def _record_key(item: Item, hashes: Mapping[Path, str]) -> Hashable:
    """Return clip and text of a record."""
    assert isinstance(item.entry, Record)
    clip = _clip_key(item) or (_file_key(item, hashes), item.entry.span)
    return clip, tuple(text for role, text in item.entry.messages if role == "user")


def _file_key(item: Item, hashes: Mapping[Path, str]) -> Hashable:
    """Return what identifies the content of a record's file; ``None`` without a file."""
    if not isinstance(item.entry, Record) or item.entry.kind == "text":
        return None
    return hashes.get(item.entry.file, item.entry.file)


def _add_shared(report: Report, items: Sequence[Item], hashes: Mapping[Path, str], person: str | None) -> None:
    """Add files, clips and people that several splits share."""
    report.shared = {"files": [], "clips": [], "people": []}
    for kind, key, name in (
        ("files", lambda item: _file_key(item, hashes), lambda item: str(item.entry.file)),
        ("clips", _clip_key, describe_clip),
    ):
        for group in _group(items, key):
            if len({item.split for item in group}) > 1:
                report.shared[kind].append(_describe(group, name))
    if person is not None:
        report.shared["people"] = _find_shared_people(report, items, person)
    for kind, groups in report.shared.items():
        if groups:
            members = itertools.chain(*groups)
            *first_splits, last = dict.fromkeys(member["split"] for member in members)
            report.problems.append(f"{len(groups)} {kind} are shared by {', '.join(first_splits)} and {last}")
    if person is None and len(report.splits) > 1:
        report.notes.append("people are not compared: name the key of the records that tells them apart, person=<key>")


def _find_shared_people(report: Report, items: Sequence[Item], person: str) -> list[list[dict[str, str]]]:
    """Return groups of records of a person whom several splits share; a missing key is a note."""
    groups: dict[str, list[Item]] = {}
    num_missing = 0
    for item in items:
        if not isinstance(item.entry, Record):
            continue
        names = read_people(item.entry, person)
        num_missing += not names
        for name in names:
            groups.setdefault(name, []).append(item)
    if not groups:
        report.problems.append(f"person={person}: no record has this key")
    elif num_missing:
        report.notes.append(f"person={person}: {num_missing} records do not have this key")
    shared = []
    for name, group in groups.items():
        if len({item.split for item in group}) > 1:
            firsts: dict[str, Item] = {}
            for item in group:
                firsts.setdefault(item.split, item)
            shared.append([{"name": name, "split": i.split, "location": i.location} for i in firsts.values()])
    return shared


def read_people(record: Record, key: str) -> list[str]:
    """Return the people of a record by a key, with dots for a key within a key: ``meta.identity``.

    >>> read_people(Record("1", Path("a"), "video", (), (), meta={"meta": {"speaker": 3}}), "meta.speaker")
    ['3']
    """
    value: Any = record.meta
    for name in key.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    if value is None:
        return []
    return [str(name) for name in value] if isinstance(value, list) else [str(value)]
