"""Emotion recognition: weighted and unweighted average recall."""

import re
from collections.abc import Sequence

import torch
from torchmetrics.classification import MulticlassConfusionMatrix


class EmotionRecall:
    """Answers and true labels -> WAR and UAR in percent.

    Reference: WAR and UAR as in DFEW; WAR is the accuracy, UAR the mean recall of the classes that occur.
    Differs from HumanOmni's ``eval_mafw_dfew.py``: a stray answer is wrong, it does not become a class of its own
    that drags the UAR down; punctuation and case do not matter.

    Args:
        labels: the classes.

    >>> metric = EmotionRecall(["sad", "happy"])
    >>> metric.update(["Sad.", "angry", "happy"], ["sad", "sad", "happy"])
    >>> {name: round(value, 1) for name, value in metric.compute().items()}
    {'war': 66.7, 'uar': 75.0}
    """

    def __init__(self, labels: Sequence[str]) -> None:
        self.labels = list(labels)
        self.counts = MulticlassConfusionMatrix(num_classes=len(self.labels) + 1)  # the last: no label at all

    def update(self, answers: Sequence[str], truths: Sequence[str]) -> None:
        """Count a few answers.

        Raises:
            ValueError: a true label is none of the classes.
        """
        if foreign := sorted(set(truths) - set(self.labels)):
            raise ValueError(f"the labels {foreign} are none of the metric's classes {self.labels}.")
        given = [self.labels.index(label) if (label := self.parse(answer)) else len(self.labels) for answer in answers]
        right = [self.labels.index(truth) for truth in truths]
        self.counts.update(*(torch.tensor(some, device=self.counts.device) for some in (given, right)))

    def compute(self) -> dict[str, float]:
        """WAR and UAR over everything counted, on all ranks."""
        matrix = self.counts.compute().double()
        support, right = matrix.sum(dim=1), matrix.diagonal()
        seen = support > 0
        return {
            "war": 100 * float(right.sum() / support.sum()),
            "uar": 100 * float((right[seen] / support[seen]).mean()),
        }

    def parse(self, answer: str) -> str | None:
        """The one label that an answer names, ``None`` where it names none or several."""
        words = set(re.findall(r"[a-z]+", answer.lower()))
        named = [label for label in self.labels if label in words]
        return named[0] if len(named) == 1 else None
