"""Choice questions: how often the right option is named."""

import re
from collections.abc import Sequence

import torch
from torchmetrics import MeanMetric


class ChoiceAccuracy:
    """Answers and true options -> accuracy in percent.

    An answer is right where it is the true option and nothing else; case and punctuation do not matter.

    >>> metric = ChoiceAccuracy()
    >>> metric.update(["Blond.", "red or gray"], ["blond", "gray"])
    >>> metric.compute()
    {'accuracy': 50.0}
    """

    def __init__(self) -> None:
        self.counts = MeanMetric()

    def update(self, answers: Sequence[str], truths: Sequence[str]) -> None:
        """Count a few answers."""
        right = [float(_plain(answer) == _plain(truth)) for answer, truth in zip(answers, truths, strict=True)]
        self.counts.update(torch.tensor(right, device=self.counts.device))

    def compute(self) -> dict[str, float]:
        """The share of right answers over everything counted, on all ranks."""
        return {"accuracy": 100 * float(self.counts.compute())}


def _plain(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.lower()))
