"""A price list: what a clip costs at each operator, from figures of a yaml or of partitions that are there."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from omnihuman.curation.account import Entry
from omnihuman.operator.ask import Ask
from omnihuman.operator.base import Operator

AMOUNTS = ("calls", "tokens_in", "tokens_out", "core_hours", "gpu_hours", "dollars")
"""Fields of a cost that grow with the rows."""

KEYS = {"cores", "gpus", "share", "calls", "tokens_in", "tokens_out"}


@dataclass(frozen=True, slots=True)
class Cost:
    """The cost of a row at an operator, or of all rows.

    Attributes:
        calls: requests to a language model.
        tokens_in: of their prompts.
        tokens_out: of their replies.
        core_hours: of CPUs.
        gpu_hours: of the operator itself and of the servers of its model.
        dollars: of all these, and of a model that is paid by tokens.
        share: of the rows that are live afterwards; above 1 where an operator makes several of one.
        is_measured: it comes from partitions that are there.
    """

    calls: float = 0.0
    tokens_in: float = 0.0
    tokens_out: float = 0.0
    core_hours: float = 0.0
    gpu_hours: float = 0.0
    dollars: float = 0.0
    share: float = 1.0
    is_measured: bool = False

    def scale(self, rows: float) -> "Cost":
        """Return the cost of a number of rows."""
        return replace(self, **{name: rows * getattr(self, name) for name in AMOUNTS})


class Prices:
    """Operators, protocols and models -> the cost of a row.

    Args:
        gpus: that work at once.
        gpu_hour: dollars.
        core_hour: dollars.
        seconds: of a clip.
        frame_tokens: tokens of the prompt for a second of a clip whose frames a model sees.
        operators: name in a pipeline, or of an operator -> ``{cores: 10, gpus: 200, share: 0.9}``: speed in times real
            time on a core and on a GPU, and the share of rows that are live afterwards.
        protocols: name -> ``{tokens_in: 1200, tokens_out: 350, calls: 1}`` of a call, without frames, and calls a row.
        other_protocols: the same for those that are not listed.
        models: name -> ``{frames: 1360, text: 1521}``: tokens that a GPU does in a second.

    Raises:
        ValueError: a key is unknown, or a figure is not above 0.
    """

    def __init__(
        self,
        gpus: int,
        gpu_hour: float,
        core_hour: float,
        seconds: float,
        frame_tokens: float,
        operators: Mapping[str, Mapping[str, float]],
        protocols: Mapping[str, Mapping[str, float]],
        other_protocols: Mapping[str, float],
        models: Mapping[str, Mapping[str, float]],
    ) -> None:
        self.gpus, self.gpu_hour, self.core_hour, self.seconds = gpus, gpu_hour, core_hour, seconds
        self.frame_tokens, self.operators, self.protocols = frame_tokens, operators, protocols
        self.other_protocols, self.models = other_protocols, models
        for group, entries in (("operators", operators), ("protocols", protocols)):
            for name, figures in entries.items():
                if unknown := sorted(set(figures) - KEYS):
                    raise ValueError(f"prices.{group}.{name} has the key {unknown[0]}; there are {', '.join(KEYS)}.")
        if not min(gpus, seconds) > 0:
            raise ValueError(f"prices: got gpus={gpus}, seconds={seconds}; expected numbers above 0.")

    def estimate(self, name: str, operator: Operator) -> Cost:
        """Return the cost of a row at an operator, by the list.

        Args:
            name: of the operator in the pipeline.
            operator: built, not set up.

        Raises:
            ValueError: the list lacks the operator or the model.
        """
        kind = type(operator).__module__.rpartition(".")[2]
        if isinstance(operator, Ask):
            return self._estimate_call(name, operator)
        figures = self.operators.get(name, self.operators.get(kind))
        if figures is None:
            raise ValueError(f"prices.operators has no {kind}: add prices.operators.{kind}={{cores:10}}, or gpus.")
        return self._estimate_time(figures)

    def _estimate_time(self, figures: Mapping[str, float]) -> Cost:
        cores, gpus = (self.seconds / figures[key] / 3600 if key in figures else 0.0 for key in ("cores", "gpus"))
        dollars = cores * self.core_hour + gpus * self.gpu_hour
        return Cost(core_hours=cores, gpu_hours=gpus, dollars=dollars, share=figures.get("share", 1.0))

    def _estimate_call(self, name: str, operator: Ask) -> Cost:
        figures = dict(self.protocols.get(operator.protocol["name"], self.other_protocols))
        figures |= self.operators.get(name, {})
        calls, visible = figures.get("calls", 1.0), self.seconds if operator.protocol.get("frames") else 0.0
        tokens_in = calls * (figures.get("tokens_in", 0.0) + self.frame_tokens * visible)
        tokens_out = calls * figures.get("tokens_out", 0.0)
        gpu_hours, dollars = self._price_tokens(operator, tokens_in, tokens_out)
        share = figures.get("share", 1.0)
        return Cost(calls, tokens_in, tokens_out, gpu_hours=gpu_hours, dollars=dollars, share=share)

    def _price_tokens(self, operator: Ask, tokens_in: float, tokens_out: float) -> tuple[float, float]:
        """Return GPU hours and dollars of a call."""
        model, has_frames = operator.model, bool(operator.protocol.get("frames"))
        if model is None:  # no language model is asked
            return 0.0, 0.0
        if model in self.models:
            speed = self.models[model]["frames" if has_frames else "text"]
            hours = (tokens_in + tokens_out) / speed / 3600
            return hours, hours * self.gpu_hour
        price = operator.find_price(model)
        if price is None:
            raise ValueError(
                f"prices.models has no {model}: add prices.models={{{model}:{{frames:1360,text:1521}}}}, the tokens "
                "that a GPU does in a second, or its price to captioner.prices."
            )
        return 0.0, (price[0] * tokens_in + price[1] * tokens_out) / 1e6

    def measure(self, entry: Entry, operator: Operator, listed: Cost) -> Cost:
        """Return the cost of a row by the partitions of an operator that are there; the listed one where none is.

        Args:
            entry: of the account.
            operator: of the entry.
            listed: its cost by the list, for what partitions do not tell: the hours of a server, by its tokens.
        """
        num_rows = entry.reached
        if not num_rows:
            return listed
        per_row = {key: value / num_rows for key, value in entry.cost.items()}
        calls, core_hours = per_row.get("calls_in_partitions", per_row.get("calls", 0.0)), per_row["cpu_s"] / 3600
        tokens_in, tokens_out = per_row.get("tokens_in", 0.0), per_row.get("tokens_out", 0.0)
        gpu_hours = per_row.get("gpu_s", 0.0) / 3600
        dollars = core_hours * self.core_hour + gpu_hours * self.gpu_hour
        if isinstance(operator, Ask) and calls:
            server_hours, fee = self._price_tokens(operator, tokens_in, tokens_out)
            gpu_hours, dollars = gpu_hours + server_hours, dollars + fee
        return Cost(calls, tokens_in, tokens_out, core_hours, gpu_hours, dollars, entry.live / num_rows, True)
