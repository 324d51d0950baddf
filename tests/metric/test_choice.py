import pytest

from omnihuman.metric.choice import ChoiceAccuracy


def test_only_the_option_itself_counts() -> None:
    metric = ChoiceAccuracy()
    metric.update(["Blond", " no hat! ", "the red one", ""], ["blond", "no hat", "red", "black"])
    assert metric.compute() == {"accuracy": 50.0}
    metric.counts.reset()
    metric.update(["yes"], ["no"])
    assert metric.compute() == {"accuracy": 0.0}


def test_every_answer_has_a_truth() -> None:
    with pytest.raises(ValueError, match="zip"):
        ChoiceAccuracy().update(["yes"], [])
