"""Ask: questions to a language model about a row, by a protocol that is data."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain, islice
from pathlib import Path
from string import Formatter
from typing import Any, ClassVar, Literal

import pyarrow as pa
from pydantic import BaseModel, Field, create_model

from omnihuman.judge.base import Item, Judge, Ledger, Protocol, Verdict
from omnihuman.judge.media import Media
from omnihuman.operator.base import FRAMES, TRACKS, Columns, Failed, Operator, Outcome, Row, SetupError, Wants
from omnihuman.operator.calls import CallLog, check_model
from omnihuman.operator.looks import crop_track, encode_sound, rank_tracks


class Pair(BaseModel):
    """A question and its answer."""

    question: str = Field(min_length=1)
    answer: str = Field(min_length=1)


PAIRS = pa.list_(pa.struct({"question": pa.string(), "answer": pa.string()}))

KINDS: Mapping[str, tuple[Any, pa.DataType]] = {
    "text": (str, pa.string()),
    "texts": (list[str], pa.list_(pa.string())),
    "number": (float, pa.float64()),
    "flag": (bool, pa.bool_()),
    "pairs": (list[Pair], PAIRS),
}
"""Kind of a field of a reply -> its type in Python and in the table."""

LIMITS = {
    "number": {"least": "ge", "most": "le"},
    "texts": {"least": "min_length", "most": "max_length"},
    "pairs": {"least": "min_length", "most": "max_length"},
}

LOOKS = (False, True, "faces")
SOUND: Columns = {"seconds": pa.float64(), "has_sound": pa.bool_()}
CROPS: Columns = {"face_frames": FRAMES, "faces": TRACKS, "width": pa.int64()}


class Ask(Operator):
    """Columns and media of a row -> the fields of a language model's reply, as columns ``<name>_<field>``.

    ``<name>_model`` is the model that has replied, according to its endpoint. A protocol about faces asks once for each
    track, with crops of its boxes: its column ``<name>_tracks`` has the number of every track and the fields of its
    reply.

    Args:
        name: of the columns.
        protocol: ``{name, version, system, user, frames, sound, reply}``, one of conf/protocol; ``user`` has
            ``{columns}`` in braces, ``frames`` says whether the model sees the JPEGs (``true``), or crops of a face
            (``faces``), ``sound`` whether it hears the clip, and ``reply`` names the fields with their kinds.
        captioner: a judge, called without arguments. It gets the records of the clip as well, which are in no prompt.
        columns: placeholder -> column, where their names differ.
        when: columns of which one must have a value; a row without one is asked nothing, its fields are null.
        repeat: number of the sample: 1 asks the same question of the same model once more, with another seed.
        max_tracks: faces of a row that are asked about, those with the most boxes first.
        one_model: stop where the endpoint serves another model than for earlier rows, behind the same name.

    Raises:
        ValueError: a field of the reply has an unknown kind, the protocol sees something unknown, or there is no
            captioner.
    """

    wants: ClassVar[Wants] = Wants(cpus=0.1, calls=1)
    modules = "json_repair"
    incidental = ("captioner", "one_model")

    def __init__(
        self,
        name: str,
        protocol: Mapping[str, Any],
        captioner: Callable[[], Judge] | None = None,
        columns: Mapping[str, str] | None = None,
        when: Sequence[str] = (),
        repeat: int = 0,
        max_tracks: int = 3,
        one_model: bool = True,
    ) -> None:
        if captioner is None:
            raise ValueError(f"ask: {name} needs a captioner: captioner=endpoint captioner.base_url=<address>.")
        self.name, self.captioner = name, captioner
        self.protocol, self.when = dict(protocol), list(when)
        self.repeat, self.max_tracks, self.one_model = repeat, max_tracks, one_model
        self.fields = {key: dict(field) for key, field in protocol["reply"].items()}
        if "model" in self.fields:
            raise ValueError(f"ask: protocol.reply.model: {name}_model is the model that replies; rename the field.")
        for key, field in self.fields.items():
            if field.get("kind") not in KINDS:
                raise ValueError(f"ask: protocol.reply.{key}.kind={field.get('kind')}: choose {', '.join(KINDS)}.")
        self.look = protocol.get("frames", False)
        if self.look not in LOOKS:
            raise ValueError(f"ask: protocol.frames={self.look}: choose true, false or faces.")
        self.has_tracks, self.has_sound = self.look == "faces", bool(protocol.get("sound"))
        names = [entry[1] for entry in Formatter().parse(protocol["user"]) if entry[1]]
        self.sources = {key: (columns or {}).get(key, key) for key in names}
        self.reads = self._list_reads()
        self.writes = self._list_writes()

    def _list_reads(self) -> Columns:
        reads: dict[str, Any] = dict.fromkeys([*self.sources.values(), *self.when])
        reads["records"] = pa.list_(pa.string())
        if self.has_tracks:
            reads |= CROPS
        elif self.look:
            reads["frames"] = FRAMES
        if self.has_sound:
            reads |= SOUND
        return reads

    def _list_writes(self) -> Columns:
        types = {key: KINDS[field["kind"]][1] for key, field in self.fields.items()}
        if self.has_tracks:
            types = {"tracks": pa.list_(pa.struct({"track": pa.int64(), **types}))}
        return {f"{self.name}_{key}": kind for key, kind in {**types, "model": pa.string()}.items()}

    def identity(self) -> Mapping[str, Any]:
        arguments = getattr(self.captioner, "keywords", {})
        decisive = ("model", "temperature", "seed", "max_tokens", "reasoning", "extra_body")
        return {"captioner": {key: arguments[key] for key in decisive if key in arguments}}

    @property
    def model(self) -> str | None:
        """The model that is asked for, ``None`` where none is: the replies are known."""
        name: str | None = getattr(self.captioner, "keywords", {}).get("model")
        return name

    def find_price(self, model: str) -> Sequence[float] | None:
        """Return the dollars for a million tokens in and out of a model, ``None`` if the captioner has no price."""
        prices: Mapping[str, Sequence[float]] = getattr(self.captioner, "keywords", {}).get("prices") or {}
        return prices.get(model)

    def setup(self, folder: Path) -> None:
        super().setup(folder)
        self.judge = self.captioner()
        self.judge.note_call = CallLog(folder).note
        version = str(self.protocol["version"])
        name, system, user = (self.protocol[key] for key in ("name", "system", "user"))
        self.question = Protocol(name, version, system, user, build_schema(name, self.fields))

    def apply(self, rows: Sequence[Row]) -> Iterable[Outcome]:
        items = [self._build_items(row) for row in rows]
        try:
            verdicts = self.judge.query(self.question, list(chain(*items)), self.repeat)
        except ValueError as error:  # of the endpoint, the key or the cache, not of a row
            raise SetupError(str(error)) from error
        if self.one_model:
            for model in {verdict.model for verdict in verdicts if verdict is not None}:
                check_model(self.folder, self.name, model, self.judge.id)
        remaining = zip(verdicts, self.judge.absences, strict=True)
        for row, items_of_row in zip(rows, items, strict=True):
            pairs = list(islice(remaining, len(items_of_row)))
            absences = [missing for _, missing in pairs if missing is not None]
            if absences:
                yield Failed(absences[0].why, str(absences[0]))
            else:
                yield self._collect(row, [verdict for verdict, _ in pairs if verdict is not None])

    def _collect(self, row: Row, verdicts: Sequence[Verdict]) -> Row:
        """Return the columns of a row; null where nothing was asked."""
        replies = [verdict.reply.model_dump() for verdict in verdicts]
        reply: Row = dict.fromkeys(self.fields)
        if self.has_tracks:
            numbers = [track["track"] for track in self._select_tracks(row)]
            listed = [{"track": number, **reply} for number, reply in zip(numbers, replies, strict=False)]
            reply = {"tracks": listed}
        elif replies:
            reply = replies[0]
        model = verdicts[0].model if verdicts else None
        return {f"{self.name}_{key}": value for key, value in {**reply, "model": model}.items()}

    def take_cost(self) -> Mapping[str, float]:
        ledger, dollars = self.judge.ledger, self.judge.dollars
        self.judge.ledger = Ledger()
        cost = {"calls": ledger.num_calls, "tokens_in": ledger.tokens_in, "tokens_out": ledger.tokens_out}
        return cost if dollars is None else cost | {"dollars": dollars}

    def _build_items(self, row: Row) -> list[Item]:
        """Return what is asked about a row: nothing, one item, or one for each track of a face."""
        if self.when and not any(row[column] for column in self.when):
            return []
        start = row.get("source_start") or row["start"]
        item: dict[str, Any] = {"records": row["records"], "start": start}
        for key, column in self.sources.items():
            value = row[column]
            item[key] = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
        if self.has_sound:
            item["sound"] = Media("audio", encode_sound(row), suffix=".wav")
        if self.has_tracks:
            return [item | {"frames": crop_track(row, track)} for track in self._select_tracks(row)]
        if self.look:
            item["frames"] = [Media("image", frame["jpeg"]) for frame in row["frames"]]
        return [item]

    def _select_tracks(self, row: Row) -> list[Row]:
        return rank_tracks(row["faces"] or [])[: self.max_tracks]


def build_schema(name: str, fields: Mapping[str, Mapping[str, Any]]) -> type[BaseModel]:
    """Return the schema of a reply.

    >>> build_schema("a", {"score": {"kind": "number", "least": 0, "most": 10}})(score=3)
    a(score=3.0)
    """
    members: dict[str, Any] = {}
    for key, field in fields.items():
        kind = field["kind"]
        annotation = KINDS[kind][0]
        if among := field.get("among"):
            choice: Any = Literal[tuple(among)]
            annotation = list[choice] if kind == "texts" else choice
        if field.get("optional"):
            annotation = annotation | None
        limits = {LIMITS[kind][limit]: field[limit] for limit in ("least", "most") if limit in field}
        members[key] = (annotation, Field(description=field.get("about", ""), **limits))
    schema: type[BaseModel] = create_model(name, **members)
    return schema
