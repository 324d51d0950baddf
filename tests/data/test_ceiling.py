"""The ceiling on skipped samples."""

from typing import Any

import pytest

from omnihuman.data.ceiling import (
    MIN_SKIPPED,
    TooManySkippedError,
    check_budgets,
    check_share,
    check_skipped,
    summarize_reasons,
)


@pytest.mark.parametrize(
    ("num_used", "num_skipped", "is_final"),
    [
        (0, MIN_SKIPPED - 1, False),
        (1, MIN_SKIPPED - 1, True),
        (100, 25, True),
        (0, 0, True),
        (4 * MIN_SKIPPED, 20, True),
    ],
)
def test_few_skipped_samples_are_no_error(num_used: int, num_skipped: int, is_final: bool) -> None:
    check_skipped(num_used, num_skipped, 0.2, "the run", "-", is_final=is_final)


@pytest.mark.parametrize(
    ("num_used", "num_skipped", "is_final"), [(0, MIN_SKIPPED, False), (100, 26, False), (0, 1, True)]
)
def test_too_many_skipped_samples_raise(num_used: int, num_skipped: int, is_final: bool) -> None:
    with pytest.raises(TooManySkippedError, match=rf"the run: {num_skipped} of .*data\.max_skipped=0\.2.*3 timeout"):
        check_skipped(num_used, num_skipped, 0.2, "the run", "3 timeout (a.mp4)", is_final=is_final)


def test_a_share_of_one_allows_all_but_nothing_at_all() -> None:
    check_skipped(1, 10**6, 1.0, "the run", "-", is_final=True)
    with pytest.raises(TooManySkippedError):
        check_skipped(0, 1, 1.0, "the run", "-", is_final=True)


@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan"), True, "0.2", None])
def test_a_share_is_between_0_and_1(value: object) -> None:
    with pytest.raises(ValueError, match=r"data\.max_skipped.*between 0 and 1"):
        check_share(value)


def test_the_most_frequent_reasons_come_first_with_some_files() -> None:
    entries = [{"id": str(number), "file": f"{number}.mp4", "reason": "timeout"} for number in range(3)]
    entries += [{"id": "train.json[7]", "file": "", "reason": "malformed_json"}]
    expected = "3 timeout (0.mp4, 1.mp4, ...), 1 malformed_json (train.json[7])"
    assert summarize_reasons(entries) == expected


@pytest.mark.parametrize(
    ("budgets", "message"),
    [
        ({"faces": 3}, "data.budgets.faces: .*frames, audio_seconds"),
        ({"frames": "many"}, "data.budgets.frames=many"),
        ({"audio_seconds": 0}, "data.budgets.audio_seconds"),
    ],
)
def test_budgets_are_positive_numbers_of_frames_and_seconds(budgets: dict[str, Any], message: str) -> None:
    assert check_budgets({"frames": None, "audio_seconds": 30}) == {"frames": None, "waveform": 30}
    with pytest.raises(ValueError, match=message):
        check_budgets(budgets)
