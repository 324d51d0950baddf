"""The ceiling on skipped samples."""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

MIN_SKIPPED = 20
"""Skipped samples below which a share says nothing."""

SHOWN_REASONS, SHOWN_FILES = 3, 2


class TooManySkippedError(ValueError):
    """So many samples were skipped that the data or the machine is at fault, not single files."""


def check_share(value: Any) -> float:
    """Return the share of samples that may be skipped.

    Raises:
        ValueError: it is not between 0 and 1.
    """
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not 0 <= value <= 1:
        raise ValueError(f"data.max_skipped must be a share between 0 and 1, got {value!r}.")
    return float(value)


BUDGETS = {"frames": "frames", "audio_seconds": "waveform"}
"""Key of ``data.budgets`` -> field of a sample."""


def check_budgets(budgets: Mapping[str, Any]) -> dict[str, float | None]:
    """Return limits of a packed sequence by field of a sample, ``None`` for no limit.

    >>> check_budgets({"frames": 64})
    {'frames': 64}

    Raises:
        ValueError: a key is unknown, or a value is no number above zero.
    """
    fields = dict[str, float | None]()
    for key, value in budgets.items():
        if key not in BUDGETS:
            raise ValueError(f"data.budgets.{key}: choose from {', '.join(BUDGETS)}.")
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise ValueError(f"data.budgets.{key}={value}: expected a number, or null for no limit.")
        check_positive(**{f"budgets.{key}": value})
        fields[BUDGETS[key]] = value
    return fields


def check_positive(**values: int | float | None) -> None:
    """Check options of the data that must be above zero.

    Args:
        **values: by key; ``None`` for an option that is not set.

    Raises:
        ValueError: a value is zero or less.
    """
    for key, value in values.items():
        if value is not None and not value > 0:
            raise ValueError(f"data.{key} must be above 0, got {value}.")


def check_skipped(
    num_used: int, num_skipped: int, max_skipped: float, place: str, cause: str, *, is_final: bool = False
) -> None:
    """Check that not too many samples were skipped.

    Args:
        num_used: samples that were used beside them.
        num_skipped: skipped samples; fewer than ``MIN_SKIPPED`` are never too many while others follow.
        max_skipped: share of all that may be skipped.
        place: of the samples, for the message.
        cause: reasons and files, for the message.
        is_final: no sample follows, so at least one must have been used.

    Raises:
        TooManySkippedError: the share is higher, or all samples were skipped in the end.
    """
    total = num_used + num_skipped
    is_too_high = num_skipped >= MIN_SKIPPED and num_skipped > max_skipped * total
    is_empty = is_final and num_skipped > 0 and num_used == 0
    if is_too_high or is_empty:
        raise TooManySkippedError(
            f"{place}: {num_skipped} of {total} samples were skipped, more than data.max_skipped={max_skipped:g} "
            f"allows: {cause}. Restore the files or the disk of data.root and start again; overwrite=true "
            "trains the skipped samples, too; a higher data.max_skipped allows more."
        )


def summarize_reasons(skipped: Iterable[Mapping[str, Any]]) -> str:
    """Return the most frequent reasons with some files each.

    >>> summarize_reasons([{"id": "1", "reason": "timeout", "file": "a.mp4"}])
    '1 timeout (a.mp4)'
    """
    counts: Counter[str] = Counter()
    files: dict[str, dict[str, None]] = {}
    for entry in skipped:
        reason = str(entry["reason"])
        counts[reason] += 1
        files.setdefault(reason, {})[str(entry.get("file") or entry["id"])] = None
    parts = []
    for reason, count in counts.most_common(SHOWN_REASONS):
        names = list(files[reason])
        more = ", ..." if len(names) > SHOWN_FILES else ""
        parts.append(f"{count} {reason} ({', '.join(names[:SHOWN_FILES])}{more})")
    return ", ".join(parts)
