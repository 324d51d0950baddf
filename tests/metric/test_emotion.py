"""WAR, UAR and confusions: by hand, against scikit-learn, and against the official habits."""

import math
import random

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, balanced_accuracy_score, confusion_matrix, recall_score
from torchmetrics.functional.classification import multiclass_recall

from omnihuman.metric.emotion import (
    FORMS,
    EmotionRecall,
    confusion,
    label_scores,
    majority,
    official_union,
    parse_label,
    per_class,
)

LABELS = ["happy", "sad", "neutral"]
DFEW = ["happy", "sad", "neutral", "angry", "surprise", "disgust", "fear"]
FOLD_1 = dict(zip(DFEW, [489, 379, 534, 435, 294, 29, 181], strict=True))
MAFW_FOLD_1 = [294, 278, 249, 228, 215, 184, 128, 125, 53, 48, 37]


def test_by_hand() -> None:
    metric = EmotionRecall(LABELS)
    metric.update(["happy", "happy", "sad", "sad"], ["happy", "sad", "sad", "sad"])
    assert metric.compute() == pytest.approx({"war": 75.0, "uar": (100 + 200 / 3) / 2})


def test_a_stray_answer_is_wrong_but_no_class() -> None:
    metric = EmotionRecall(LABELS)
    metric.update(["confused", "happy", "sad"], ["happy", "happy", "sad"])
    assert metric.compute() == pytest.approx({"war": 200 / 3, "uar": 75.0})


@pytest.mark.parametrize(
    ("answer", "label"),
    [(" Happy.", "happy"), ("The man is sad", "sad"), ("happy or sad", None), ("unhappy", None), ("", None)],
)
def test_what_counts_as_an_answer(answer: str, label: str | None) -> None:
    assert EmotionRecall(LABELS).parse(answer) == label


def test_a_foreign_label_is_an_error() -> None:
    with pytest.raises(ValueError, match="contempt"):
        EmotionRecall(LABELS).update(["happy"], ["contempt"])


@pytest.mark.parametrize(
    ("answer", "read"),
    [
        ("HAPPINESS!", ("happy", "form")),
        ("happy, that is: happiness", ("happy", "label")),  # the same label twice is one
        ("**fear**", ("fear", "label")),
        ("She looks fearful.", ("fear", "form")),
        ("surprised, then angry", (None, "invalid")),
        ("happy ,surprise ,neutral ,angry ,disgust ,sad ,fear", (None, "invalid")),  # the options back
        ("fearless", (None, "invalid")),
        ("_Happy_", ("happy", "label")),  # Markdown
        (None, (None, "invalid")),
    ],
)
def test_forms_of_a_label(answer: str | None, read: tuple[str | None, str]) -> None:
    assert parse_label(answer, DFEW, FORMS) == read


def test_mafw_nouns_have_their_answer_words() -> None:
    nouns = {
        **{"happiness": "happy", "sadness": "sad", "neutral": "neutral", "anger": "angry", "surprise": "surprise"},
        **{"disgust": "disgust", "fear": "fear", "contempt": "contemptuous", "anxiety": "anxious"},
        **{"helplessness": "helpless", "disappointment": "disappointed"},
    }
    assert {noun: parse_label(noun, list(FORMS), FORMS)[0] for noun in nouns} == nouns


@pytest.mark.parametrize(
    ("answer", "label"), [("  angry", "angry"), ("angry ", None), ("Angry", None), ("angry.", None), ("", None)]
)
def test_the_official_parser_forgives_leading_blanks_only(answer: str, label: str | None) -> None:
    assert parse_label(answer, DFEW, FORMS, how="official")[0] == label


def test_an_unknown_parser() -> None:
    with pytest.raises(ValueError, match="parser 'lenient': choose strict or official"):
        parse_label("happy", DFEW, how="lenient")


def test_scores_agree_with_scikit_learn() -> None:
    draw = random.Random(0)
    truths = draw.choices(DFEW, [9, 7, 10, 8, 5, 1, 3], k=400)
    parsed = [draw.choice([truth, truth, draw.choice([*DFEW, None])]) for truth in truths]
    war, uar = label_scores([str(k) for k in range(400)], truths, parsed, DFEW)
    given = [label or "invalid" for label in parsed]
    assert war.value == pytest.approx(100 * accuracy_score(truths, given))
    assert uar.value == pytest.approx(100 * recall_score(truths, given, labels=DFEW, average="macro"))
    with pytest.warns(UserWarning, match="y_pred contains classes not in y_true"):
        assert uar.value == pytest.approx(100 * balanced_accuracy_score(truths, given))
    table = confusion_matrix(truths, given, labels=[*DFEW, "invalid"])
    assert (confusion(truths, parsed, DFEW) == table[:-1]).all()
    recalls = [recall for recall, _ in per_class(truths, parsed, DFEW).values()]
    assert recalls == pytest.approx(100 * recall_score(truths, given, labels=DFEW, average=None))
    metric = EmotionRecall(DFEW)
    metric.update(given, truths)
    assert metric.compute() == pytest.approx({"war": war.value, "uar": uar.value}, rel=1e-5)


def test_a_predicted_class_that_no_clip_has_is_no_class() -> None:
    # torchmetrics counts it with recall 0: 57.14 instead of 66.67
    truths = [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]
    given = [0, 0, 1, 1, 2, 6, 3, 6, 4, 6, 5, 6]
    theirs = 100 * float(multiclass_recall(torch.tensor(given), torch.tensor(truths), 7))
    ids, names = [str(k) for k in range(12)], [DFEW[k] for k in truths]
    uar = label_scores(ids, names, [DFEW[k] for k in given], DFEW)[1].value
    assert (round(uar, 2), round(theirs, 2)) == (66.67, 57.14)
    with pytest.warns(UserWarning, match="not in y_true"):
        assert uar == pytest.approx(100 * balanced_accuracy_score(truths, given))


def test_stray_answers_are_classes_of_the_official_uar() -> None:
    # seven classes, five all right; three different stray answers to clips of the others: 5/7 and 5/10
    truths = [*DFEW[:5], "disgust", "fear", "fear"]
    answers = [*DFEW[:5], "revolted", "Fear", " afraid."]
    assert official_union(truths, answers) == pytest.approx(50.0)
    parsed = [parse_label(answer, DFEW, how="official")[0] for answer in answers]
    uar = label_scores([str(k) for k in range(8)], truths, parsed, DFEW)[1]
    assert round(uar.value, 2) == 71.43
    # each class once right and once astray: a recall of 50 everywhere, but over eight strings
    assert official_union(DFEW * 2, [*DFEW, *["none"] * 7]) == pytest.approx(50 * 7 / 8)
    assert official_union(["sad"], [" sad"]) == 100.0 and official_union(["sad"], [None]) == 0.0


def test_always_neutral_on_dfew() -> None:
    truths = [label for label, count in FOLD_1.items() for _ in range(count)]
    assert len(truths) == 2341
    assert {name: round(value, 1) for name, value in majority(truths).items()} == {"war": 22.8, "uar": 14.3}
    scores = label_scores([str(k) for k in range(2341)], truths, ["neutral"] * 2341, DFEW)
    assert [score.value for score in scores] == pytest.approx(list(majority(truths).values()))
    mafw = majority([str(k) for k, count in enumerate(MAFW_FOLD_1) for _ in range(count)])
    assert {name: round(value, 1) for name, value in mafw.items()} == {"war": 16.0, "uar": 9.1}


def test_one_clip_of_disgust() -> None:
    truths = [label for label, count in FOLD_1.items() for _ in range(count)]
    parsed: list[str | None] = [*truths]
    parsed[truths.index("disgust")] = None
    uar = label_scores([str(k) for k in range(2341)], truths, parsed, DFEW)[1].value
    assert round(100 - uar, 2) == 0.49
    assert round(100 - per_class(truths, parsed, DFEW)["disgust"][0], 1) == 3.4


def test_the_mean_of_folds_and_all_clips_at_once() -> None:
    # fold 1: happy 1/1, sad 1/3; fold 2: happy 0/1, sad 1/1
    truths = ["happy", "sad", "sad", "sad", "happy", "sad"]
    parsed = ["happy", "sad", None, "happy", "sad", "sad"]
    folds = ["fold_1"] * 4 + ["fold_2"] * 2
    scores = label_scores(list("abcdef"), truths, parsed, ["happy", "sad"], folds)
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


def test_mae_dfer_mean_of_folds() -> None:
    # its readme: UAR of folds 62.59 61.96 64.00 63.07 65.42 -> 63.41, WAR 74.88 72.49 74.91 74.05 75.81 -> 74.43
    right = [7488, 7249, 7491, 7405, 7581]
    folds = [f"fold_{k + 1}" for k in range(5) for _ in range(10_000)]
    parsed = ["sad" if k < count else None for count in right for k in range(10_000)]
    scores = label_scores([str(k) for k in range(50_000)], ["sad"] * 50_000, parsed, ["sad"], folds)
    assert round(scores[0].value, 2) == 74.43


def test_a_fold_without_a_class_counts_as_much_as_the_others() -> None:
    # fold 1 holds happy (1/1) and sad (0/1): 50; fold 2 only sad (1/1): 100
    scores = label_scores(list("abc"), ["happy", "sad", "sad"], ["happy", None, "sad"], ["happy", "sad"], list("112"))
    assert scores[1].value == pytest.approx(75.0)
    assert scores[1].of(np.array([[2.0, 0.0, 1.0], [1.0, 1.0, 1.0]]))[1] == pytest.approx(75.0)


def test_a_label_outside_the_set_is_named() -> None:
    with pytest.raises(ValueError, match=r"truths: \['contempt'\] are none of the classes"):
        label_scores(["a"], ["contempt"], ["happy"], LABELS)
    with pytest.raises(ValueError, match=r"answers: \['Happy'\] are none of the classes"):
        confusion(["happy"], ["Happy"], LABELS)


def test_a_class_that_does_not_occur_has_no_recall() -> None:
    table = per_class(["happy", "happy"], ["sad", "happy"], LABELS)
    assert table["happy"] == (50.0, 2) and math.isnan(table["sad"][0]) and table["sad"][1] == 0
