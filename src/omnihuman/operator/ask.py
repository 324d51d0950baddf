"""Ask: questions to a language model about a row, by a protocol that is data."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from string import Formatter
from typing import Any, ClassVar, Literal

import pyarrow as pa
from pydantic import BaseModel, Field, create_model

from omnihuman.judge.base import Item, Judge, Ledger, Protocol
from omnihuman.judge.media import Media
from omnihuman.operator.base import FRAMES, Columns, Failed, Operator, Outcome, Row, SetupError, Wants
from omnihuman.operator.calls import CallLog, check_model

KINDS: Mapping[str, tuple[Any, pa.DataType]] = {
    "text": (str, pa.string()),
    "texts": (list[str], pa.list_(pa.string())),
    "number": (float, pa.float64()),
    "flag": (bool, pa.bool_()),
}
"""Kind of a field of a reply -> its type in Python and in the table."""

LIMITS = {"number": {"least": "ge", "most": "le"}, "texts": {"least": "min_length", "most": "max_length"}}


class Ask(Operator):
    """Columns and frames of a row -> the fields of a language model's reply, as columns ``<name>_<field>``.

    ``<name>_model`` is the model that has replied, according to its endpoint.

    Args:
        name: of the columns.
        protocol: ``{name, version, system, user, frames, reply}``, one of conf/protocol; ``user`` has ``{columns}`` in
            braces, ``frames`` says whether the model sees the JPEGs, and ``reply`` names the fields with their kinds.
        captioner: a judge, called without arguments. It gets the records of the clip as well, which are in no prompt.
        columns: placeholder -> column, where their names differ.
        one_model: stop where the endpoint serves another model than for earlier rows, behind the same name.

    Raises:
        ValueError: a field of the reply has an unknown kind, or there is no captioner.
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
        one_model: bool = True,
    ) -> None:
        if captioner is None:
            raise ValueError(f"ask: {name} needs a captioner: captioner=endpoint captioner.base_url=<address>.")
        self.name, self.captioner, self.one_model = name, captioner, one_model
        self.protocol = dict(protocol)
        self.fields = {key: dict(field) for key, field in protocol["reply"].items()}
        if "model" in self.fields:
            raise ValueError(f"ask: protocol.reply.model: {name}_model is the model that replies; rename the field.")
        for key, field in self.fields.items():
            if field.get("kind") not in KINDS:
                raise ValueError(f"ask: protocol.reply.{key}.kind={field.get('kind')}: choose {', '.join(KINDS)}.")
        names = [entry[1] for entry in Formatter().parse(protocol["user"]) if entry[1]]
        self.sources = {key: (columns or {}).get(key, key) for key in names}
        reads: dict[str, Any] = dict.fromkeys(self.sources.values()) | {"records": pa.list_(pa.string())}
        if protocol.get("frames"):
            reads["frames"] = FRAMES
        self.reads: Columns = reads
        self.writes: Columns = {f"{name}_{key}": KINDS[field["kind"]][1] for key, field in self.fields.items()} | {
            f"{name}_model": pa.string()
        }

    def identity(self) -> Mapping[str, Any]:
        arguments = getattr(self.captioner, "keywords", {})
        decisive = ("model", "temperature", "seed", "max_tokens", "reasoning", "extra_body")
        return {"captioner": {key: arguments[key] for key in decisive if key in arguments}}

    def setup(self, folder: Path) -> None:
        super().setup(folder)
        self.judge = self.captioner()
        self.judge.note_call = CallLog(folder).note
        version = str(self.protocol["version"])
        name, system, user = (self.protocol[key] for key in ("name", "system", "user"))
        self.question = Protocol(name, version, system, user, build_schema(name, self.fields))

    def apply(self, rows: Sequence[Row]) -> Iterable[Outcome]:
        items = [self._build_item(row) for row in rows]
        try:
            verdicts = self.judge.query(self.question, items)
        except ValueError as error:  # of the endpoint, the key or the cache, not of a row
            raise SetupError(str(error)) from error
        if self.one_model:
            for model in {verdict.model for verdict in verdicts if verdict is not None}:
                check_model(self.folder, self.name, model, self.judge.id)
        for verdict, missing in zip(verdicts, self.judge.absences, strict=True):
            if verdict is None:
                assert missing is not None
                yield Failed(missing.why, str(missing))
                continue
            reply = verdict.reply.model_dump()
            yield {f"{self.name}_{key}": reply[key] for key in self.fields} | {f"{self.name}_model": verdict.model}

    def take_cost(self) -> Mapping[str, float]:
        ledger, dollars = self.judge.ledger, self.judge.dollars
        self.judge.ledger = Ledger()
        cost = {"calls": ledger.num_calls, "tokens_in": ledger.tokens_in, "tokens_out": ledger.tokens_out}
        return cost if dollars is None else cost | {"dollars": dollars}

    def _build_item(self, row: Row) -> Item:
        item: dict[str, Any] = {"records": row["records"]}
        for key, column in self.sources.items():
            value = row[column]
            item[key] = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
        if self.protocol.get("frames"):
            item["frames"] = [Media("image", frame["jpeg"]) for frame in row["frames"]]
        return item


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
            annotation = Literal[tuple(among)]
        limits = {LIMITS[kind][limit]: field[limit] for limit in ("least", "most") if limit in field}
        members[key] = (annotation, Field(description=field.get("about", ""), **limits))
    schema: type[BaseModel] = create_model(name, **members)
    return schema
