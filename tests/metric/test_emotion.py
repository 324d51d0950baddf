"""WAR, UAR and confusion counts: by hand, against scikit-learn, and against the official parser."""

import math
import random
from collections import Counter

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, balanced_accuracy_score, confusion_matrix, recall_score
from torchmetrics.functional.classification import multiclass_recall

from omnihuman.metric.emotion import (
    FORMS,
    EmotionRecall,
    confusion_counts,
    majority_baseline,
    official_union_recall,
    parse_label,
    recall_per_class,
    score_labels,
)

LABELS = ["happy", "sad", "neutral"]
DFEW = ["happy", "sad", "neutral", "angry", "surprise", "disgust", "fear"]
FOLD_1 = dict(zip(DFEW, [489, 379, 534, 435, 294, 29, 181], strict=True))
MAFW_FOLD_1 = [294, 278, 249, 228, 215, 184, 128, 125, 53, 48, 37]


def expand(counts: dict[str, int]) -> list[str]:
    """Return each label as often as its count."""
    return list(Counter(counts).elements())


def test_recall_by_hand() -> None:
    metric = EmotionRecall(LABELS)
    metric.update(["happy", "happy", "sad", "sad"], ["happy", "sad", "sad", "sad"])
    assert metric.compute() == pytest.approx({"war": 75.0, "uar": (100 + 200 / 3) / 2})


def test_an_answer_without_a_label_is_wrong_but_adds_no_class() -> None:
    metric = EmotionRecall(LABELS)
    metric.update(["confused", "happy", "sad"], ["happy", "happy", "sad"])
    assert metric.compute() == pytest.approx({"war": 200 / 3, "uar": 75.0})


def test_floors_are_those_of_the_best_constant_answer() -> None:
    metric = EmotionRecall(LABELS)
    metric.update(["happy", "sad", "", "sad"], ["happy", "sad", "sad", "sad"])
    floors = metric.floors()
    metric.counts.reset()
    metric.update(["sad"] * 4, ["happy", "sad", "sad", "sad"])
    assert floors == pytest.approx(metric.compute()) == {"war": 75.0, "uar": 50.0}


@pytest.mark.parametrize(
    ("answer", "label"),
    [(" Happy.", "happy"), ("The man is sad", "sad"), ("happy or sad", None), ("unhappy", None), ("", None)],
)
def test_metric_parses_answers(answer: str, label: str | None) -> None:
    assert EmotionRecall(LABELS).parse(answer) == label


def test_an_unknown_reference_raises() -> None:
    with pytest.raises(ValueError, match="contempt"):
        EmotionRecall(LABELS).update(["happy"], ["contempt"])


@pytest.mark.parametrize(
    ("answer", "parsed"),
    [
        ("HAPPINESS!", ("happy", "form")),
        ("happy, that is: happiness", ("happy", "label")),  # repeated labels count once
        ("**fear**", ("fear", "label")),
        ("She looks fearful.", ("fear", "form")),
        ("surprised, then angry", (None, "invalid")),
        ("happy ,surprise ,neutral ,angry ,disgust ,sad ,fear", (None, "invalid")),  # the options repeated
        ("fearless", (None, "invalid")),
        ("_Happy_", ("happy", "label")),  # Markdown
        (None, (None, "invalid")),
    ],
)
def test_strict_parser(answer: str | None, parsed: tuple[str | None, str]) -> None:
    assert parse_label(answer, DFEW, FORMS) == parsed


def test_nouns_of_mafw_are_forms_of_its_labels() -> None:
    nouns = ["happiness", "sadness", "neutral", "anger", "surprise", "disgust", "fear", "contempt", "disappointment"]
    nouns += ["helplessness", "anxiety"]
    assert [parse_label(noun, list(FORMS), FORMS)[0] for noun in nouns] == list(FORMS)


@pytest.mark.parametrize(
    ("answer", "label"), [("  angry", "angry"), ("angry ", None), ("Angry", None), ("angry.", None), ("", None)]
)
def test_official_parser_strips_leading_whitespace_only(answer: str, label: str | None) -> None:
    assert parse_label(answer, DFEW, FORMS, parser="official")[0] == label


@pytest.mark.parametrize(
    ("answer", "parsed"),
    [
        ("<think>sad, then angry</think>\n<answer> happy </answer>", ("happy", "label")),
        ("<answer>Anger.</answer>", ("angry", "form")),
        ("happy", ("happy", "label")),  # without a tag the whole answer counts
        ("She is happy", (None, "invalid")),
        ("<answer>happy and sad</answer>", (None, "invalid")),
        ("<think>sad", (None, "cut")),
        (None, (None, "invalid")),
    ],
)
def test_answer_tag_parser(answer: str | None, parsed: tuple[str | None, str]) -> None:
    """R1-Omni's reward compares the text in the tag with the label."""
    assert parse_label(answer, DFEW, FORMS, parser="answer_tag") == parsed


def test_an_unknown_parser_raises() -> None:
    with pytest.raises(ValueError, match=r"parser='lenient'.*strict, official"):
        parse_label("happy", DFEW, parser="lenient")


def test_scores_equal_scikit_learn() -> None:
    rng = random.Random(0)
    references = rng.choices(DFEW, [9, 7, 10, 8, 5, 1, 3], k=400)
    parsed = [rng.choice([reference, reference, rng.choice([*DFEW, None])]) for reference in references]
    war, uar = score_labels([str(k) for k in range(400)], references, parsed, DFEW)
    predicted = [label or "invalid" for label in parsed]
    assert war.value == pytest.approx(100 * accuracy_score(references, predicted))
    assert uar.value == pytest.approx(100 * recall_score(references, predicted, labels=DFEW, average="macro"))
    with pytest.warns(UserWarning, match=r"y_pred .*not in y_true"):
        assert uar.value == pytest.approx(100 * balanced_accuracy_score(references, predicted))
    table = confusion_matrix(references, predicted, labels=[*DFEW, "invalid"])
    assert (confusion_counts(references, parsed, DFEW) == table[:-1]).all()
    recalls = [recall for recall, _ in recall_per_class(references, parsed, DFEW).values()]
    assert recalls == pytest.approx(100 * recall_score(references, predicted, labels=DFEW, average=None))
    metric = EmotionRecall(DFEW)
    metric.update(predicted, references)
    assert metric.compute() == pytest.approx({"war": war.value, "uar": uar.value}, rel=1e-5)


def test_a_predicted_class_without_support_does_not_lower_uar() -> None:
    # torchmetrics counts it with recall 0: 57.14 instead of 66.67
    references = [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]
    predicted = [0, 0, 1, 1, 2, 6, 3, 6, 4, 6, 5, 6]
    with_empty_class = 100 * float(multiclass_recall(torch.tensor(predicted), torch.tensor(references), 7))
    ids, names = [str(k) for k in range(12)], [DFEW[k] for k in references]
    uar = score_labels(ids, names, [DFEW[k] for k in predicted], DFEW)[1].value
    assert (round(uar, 2), round(with_empty_class, 2)) == (66.67, 57.14)
    with pytest.warns(UserWarning, match="not in y_true"):
        assert uar == pytest.approx(100 * balanced_accuracy_score(references, predicted))


def test_answers_without_a_label_are_classes_of_the_official_uar() -> None:
    # seven classes, five correct; three distinct wrong strings for clips of the others: 5/7 and 5/10
    references = [*DFEW[:5], "disgust", "fear", "fear"]
    answers = [*DFEW[:5], "revolted", "Fear", " afraid."]
    assert official_union_recall(references, answers) == pytest.approx(50.0)
    parsed = [parse_label(answer, DFEW, parser="official")[0] for answer in answers]
    uar = score_labels([str(k) for k in range(8)], references, parsed, DFEW)[1]
    assert round(uar.value, 2) == 71.43
    # each class once right and once wrong: a recall of 50 everywhere, but over eight strings
    assert official_union_recall(DFEW * 2, [*DFEW, *["none"] * 7]) == pytest.approx(50 * 7 / 8)
    assert official_union_recall(["sad"], [" sad"]) == 100.0 and official_union_recall(["sad"], [None]) == 0.0


def test_majority_baseline_of_dfew_and_mafw() -> None:
    references = expand(FOLD_1)
    assert len(references) == 2341
    assert {name: round(value, 1) for name, value in majority_baseline(references).items()} == {
        "war": 22.8,
        "uar": 14.3,
    }
    scores = score_labels([str(k) for k in range(2341)], references, ["neutral"] * 2341, DFEW)
    assert [score.value for score in scores] == pytest.approx(list(majority_baseline(references).values()))
    mafw = majority_baseline(expand({str(k): count for k, count in enumerate(MAFW_FOLD_1)}))
    assert {name: round(value, 1) for name, value in mafw.items()} == {"war": 16.0, "uar": 9.1}


def test_effect_of_one_wrong_clip_of_disgust() -> None:
    references = expand(FOLD_1)
    parsed: list[str | None] = [*references]
    parsed[references.index("disgust")] = None
    uar = score_labels([str(k) for k in range(2341)], references, parsed, DFEW)[1].value
    assert round(100 - uar, 2) == 0.49
    assert round(100 - recall_per_class(references, parsed, DFEW)["disgust"][0], 1) == 3.4


def test_mean_over_folds_and_pooled_scores() -> None:
    # fold 1: happy 1/1, sad 1/3; fold 2: happy 0/1, sad 1/1
    references = ["happy", "sad", "sad", "sad", "happy", "sad"]
    parsed = ["happy", "sad", None, "happy", "sad", "sad"]
    folds = ["fold_1"] * 4 + ["fold_2"] * 2
    scores = score_labels(list("abcdef"), references, parsed, ["happy", "sad"], folds)
    values = {score.name: score.value for score in scores}
    uar_1 = (100 + 100 / 3) / 2
    assert values == pytest.approx(
        {
            "war": (50 + 50) / 2,
            "uar": (uar_1 + 50) / 2,
            "war_pooled": 50.0,
            "uar_pooled": (50 + 50) / 2,
            "war/fold_1": 50.0,
            "uar/fold_1": uar_1,
            "war/fold_2": 50.0,
            "uar/fold_2": 50.0,
        }
    )
    assert [score.name for score in scores[:2]] == ["war", "uar"]
    assert scores[1].strata is not None and scores[1].strata[3] == "fold_1/sad"
    assert scores[0].numerators.shape == (6, 2) and scores[1].numerators.shape == (6, 4)


def test_mean_over_folds_of_mae_dfer() -> None:
    # its readme: UAR of folds 62.59 61.96 64.00 63.07 65.42 -> 63.41, WAR 74.88 72.49 74.91 74.05 75.81 -> 74.43
    folds: list[str] = []
    parsed: list[str | None] = []
    for fold, num_correct in enumerate([7488, 7249, 7491, 7405, 7581]):
        folds += [f"fold_{fold + 1}"] * 10_000
        parsed += ["sad"] * num_correct + [None] * (10_000 - num_correct)
    scores = score_labels([str(k) for k in range(50_000)], ["sad"] * 50_000, parsed, ["sad"], folds)
    assert round(scores[0].value, 2) == 74.43


def test_a_fold_without_a_class_has_equal_weight() -> None:
    # fold 1 has happy (1/1) and sad (0/1): 50; fold 2 only sad (1/1): 100
    scores = score_labels(list("abc"), ["happy", "sad", "sad"], ["happy", None, "sad"], ["happy", "sad"], list("112"))
    assert scores[1].value == pytest.approx(75.0)
    assert scores[1].weighted(np.array([[2.0, 0.0, 1.0], [1.0, 1.0, 1.0]]))[1] == pytest.approx(75.0)


def test_an_unknown_label_raises() -> None:
    with pytest.raises(ValueError, match=r"references: unknown .*\['contempt'\]"):
        score_labels(["a"], ["contempt"], ["happy"], LABELS)
    with pytest.raises(ValueError, match=r"answers: unknown .*\['Happy'\]"):
        confusion_counts(["happy"], ["Happy"], LABELS)


def test_a_class_without_support_has_nan_recall() -> None:
    table = recall_per_class(["happy", "happy"], ["sad", "happy"], LABELS)
    assert table["happy"] == (50.0, 2) and math.isnan(table["sad"][0]) and table["sad"][1] == 0
