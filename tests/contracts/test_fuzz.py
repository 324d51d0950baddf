"""Mutated records: each is read, or is one bad sample with a message of one line."""

import copy
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from omnihuman.data.bad_sample import BadSample
from omnihuman.data.record import Record
from omnihuman.source.json import JsonSource
from omnihuman.source.jsonl import JsonlSource
from tests.data.conftest import write_clip
from tests.source.conftest import build_entry

FACES = [{"time": 0.5, "box": [1, 2, 30, 40]}, {"time": 1.0, "box": None}]
SEEDS = (
    build_entry(),
    build_entry(start=0.5, end=1.5, task="emotion", needs=["audio"], faces=FACES, note={"a": [1, None]}),
    build_entry(audio_track="talk.mp4", second_clip="talk.mp4", fps=12.5, system="Be kind.", prime="The"),
    build_entry(faces=[[1, 2, 3, 4], None], instruction="Who?"),
)
NESTED: Any = []
for _ in range(300):
    NESTED = [NESTED]
VALUES = (
    None,
    True,
    False,
    0,
    -1,
    1,
    10**30,
    -(10**400),
    1e308,
    float("nan"),
    float("inf"),
    -0.0,
    "",
    " ",
    "a\nb",
    "\x00",
    "\ud83d",
    "\u202e\u0000x",
    "é" * 3000,
    "talk.mp4",
    "../talk.mp4",
    "/etc/passwd",
    "<video>",
    "<audio><video>",
    "<|im_end|>",
    "human",
    "system",
    [],
    {},
    [[]],
    [None],
    ["talk.mp4"],
    ["talk.mp4", "talk.mp4"],
    {"from": "human"},
    [{"from": "gpt", "value": "x"}],
    {"path": "talk.mp4"},
    [1, 2, 3],
    [1e400, 2, 3, 4],
    NESTED,
)
KEYS = (
    *("id", "video", "audio", "image", "conversations", "start", "end", "task", "needs", "faces", "audio_track", "fps"),
    *(
        "second_clip",
        "system",
        "prime",
        "instruction",
        "from",
        "value",
        "time",
        "box",
        "messages",
        "videos",
        "",
        "\ud83d",
    ),
)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the clip ``talk.mp4``."""
    folder = tmp_path_factory.mktemp("clips")
    write_clip(folder / "talk.mp4")
    return folder


def list_nodes(node: Any) -> list[Any]:
    """Return all objects and lists of a record."""
    nodes = []
    if isinstance(node, dict | list):
        nodes.append(node)
        for child in node.values() if isinstance(node, dict) else node:
            nodes += list_nodes(child)
    return nodes


def mutate(chance: random.Random) -> Any:
    """Return a record with one to four mutations."""
    record: Any = copy.deepcopy(chance.choice(SEEDS))
    for _ in range(chance.randint(1, 4)):
        node = chance.choice(list_nodes(record))
        value = copy.deepcopy(chance.choice(VALUES))
        if isinstance(node, dict):
            key = chance.choice([*KEYS, *node])
            node[key] = value
            if chance.random() < 0.2:
                node[chance.choice(KEYS)] = node.pop(key)
            if node and chance.random() < 0.2:
                node.pop(chance.choice(list(node)))
        elif node and chance.random() < 0.6:
            node[chance.randrange(len(node))] = value
        else:
            node.insert(chance.randint(0, len(node)), value)
    return chance.choice(VALUES) if chance.random() < 0.01 else record


def mutate_bytes(line: bytes, chance: random.Random) -> bytes:
    """Return a line of which some bytes are changed, removed or repeated."""
    data = bytearray(line)
    for _ in range(chance.randint(1, 3)):
        place = chance.randrange(len(data))
        data[place : place + chance.randint(0, 4)] = chance.randbytes(chance.randint(0, 3)).replace(b"\n", b" ")
    return bytes(data)


def write_mutations(path: Path, seed: int, count: int) -> list[Any]:
    """Write mutated records as JSON lines, some with mutated bytes, and return the records."""
    chance = random.Random(seed)
    records = [mutate(chance) for _ in range(count)]
    lines = [json.dumps(build_entry()).encode()]
    for record in records:
        line = json.dumps(record).encode()
        lines.append(mutate_bytes(line, chance) if chance.random() < 0.2 else line)
    path.write_bytes(b"\n".join(lines))
    return records


def check_entries(entries: Iterator[Any]) -> tuple[int, int]:
    """Check every entry, and return the numbers of records and of errors."""
    num_records = num_errors = 0
    for entry in entries:
        if isinstance(entry, Record):
            num_records += 1
            assert entry.id and len(entry.id.splitlines()) == 1
            assert entry.kind == "text" or entry.file.name == "talk.mp4"
            continue
        name, bad = entry
        num_errors += 1
        assert type(bad) is BadSample and bad.reason
        message = str(bad)
        assert message.isprintable() and len(message) < 1500, f"one line: {message[:200]!r}"
        assert name and len(name.splitlines()) == 1
    return num_records, num_errors


def fuzz(seed: int, count: int, root: Path, folder: Path) -> None:
    records = write_mutations(folder / "fuzz.jsonl", seed, count)
    for options in ({}, {"text_only": True, "follow_links": True}):
        num_records, num_errors = check_entries(JsonlSource(folder / "fuzz.jsonl", root, **options).records())
        assert num_records > count // 50 and num_errors > count // 3, "mutations are neither all valid nor all errors"
    (folder / "fuzz.json").write_text(json.dumps(records))
    assert sum(check_entries(JsonSource(folder / "fuzz.json", root).records())) == count


def test_mutated_records_are_read_or_refused(root: Path, tmp_path: Path) -> None:
    fuzz(0, 500, root, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 7))
def test_many_mutated_records_are_read_or_refused(seed: int, root: Path, tmp_path: Path) -> None:
    fuzz(seed, 2000, root, tmp_path)


@pytest.mark.parametrize(
    "content", [b"[" * 100_000, b'[{"id": 1' + b"1" * 5000 + b"}]", b"\xff\xfe[\x00", b"", b"null"]
)
@pytest.mark.parametrize("name", ["a.json", "a.jsonl"])
def test_a_file_of_nonsense_is_an_error_of_one_line(name: str, content: bytes, root: Path, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    source = (JsonSource if name == "a.json" else JsonlSource)(path, root)
    try:
        check_entries(source.records())
    except ValueError as error:
        assert str(error).startswith(str(path)) and str(error).isprintable()
    else:
        assert name == "a.jsonl"
