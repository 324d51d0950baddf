import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from omnihuman.benchmark.base import Prediction
from omnihuman.evaluation.confusion import (
    build_confusions,
    build_file_name,
    count_confusions,
    draw_confusion,
    write_classes,
    write_confusion,
)
from omnihuman.evaluation.folder import load_evaluation

Write = Callable[..., Path]
LABELS = ("sad", "happy", "neutral")


def read(file: Path) -> list[list[str]]:
    with file.open(newline="") as lines:
        return list(csv.reader(lines))


def test_counts_match_those_by_hand(write_evaluation: Write) -> None:
    matrices = build_confusions(load_evaluation(write_evaluation()))
    assert matrices["pooled"].tolist() == [[5, 1, 0, 0], [0, 2, 1, 1], [1, 0, 4, 1]]
    assert matrices["fold 1"].tolist() == [[3, 1, 0, 0], [0, 2, 0, 1], [1, 0, 0, 0]]
    assert list(matrices) == ["fold 1", "fold 2", "pooled"]


def test_counts_and_recalls_match_scikit_learn() -> None:
    from sklearn import metrics

    generator = np.random.default_rng(0)
    references = generator.choice(LABELS, 200).tolist()
    answers = generator.choice([*LABELS, "invalid"], 200).tolist()
    counts = count_confusions(LABELS, references, answers)  # "invalid" is none of the labels
    assert (counts == metrics.confusion_matrix(references, answers, labels=[*LABELS, "invalid"])[:3]).all()
    recalls = metrics.recall_score(references, answers, labels=LABELS, average=None, zero_division=0)
    assert np.allclose(np.diag(counts[:, :3]) / counts.sum(1), recalls)


def test_a_single_group_has_only_the_pooled_matrix(write_evaluation: Write, sixteen: list[Prediction]) -> None:
    assert list(build_confusions(load_evaluation(write_evaluation(predictions=sixteen[:8])))) == ["pooled"]


def test_free_text_has_no_classes(write_evaluation: Write) -> None:
    predictions = [Prediction("free_text", "1", "", "What?", "a man waves", "a man")]
    evaluation = load_evaluation(write_evaluation(predictions=predictions, benchmark="FreeText"))
    assert build_confusions(evaluation) == {}


def test_csv_has_support_recall_and_precision(write_evaluation: Write, tmp_path: Path) -> None:
    matrices = build_confusions(load_evaluation(write_evaluation()))
    write_confusion(matrices["pooled"], LABELS, tmp_path / "c.csv")
    assert read(tmp_path / "c.csv") == [
        ["reference", "sad", "happy", "neutral", "invalid", "support", "recall"],
        ["sad", "5", "1", "0", "0", "6", "83.33"],
        ["happy", "0", "2", "1", "1", "4", "50.00"],
        ["neutral", "1", "0", "4", "1", "6", "66.67"],
    ]
    write_classes(matrices, LABELS, tmp_path / "p.csv")
    rows = read(tmp_path / "p.csv")
    assert len(rows) == 1 + 3 * 3
    # Wilson for 5 of 6: (5 + z^2/2 -+ z sqrt(5/6 + z^2/4)) / (6 + z^2)
    assert rows[-3] == ["pooled", "sad", "6", "5", "83.33", "43.65", "96.99", "6", "83.33"]


def test_charts_grow_with_the_number_of_classes(tmp_path: Path) -> None:
    sizes = []
    for labels in (LABELS, tuple("abcdefghijk")):
        counts = np.eye(len(labels), len(labels) + 1, dtype=np.int64) * 3
        counts[0] = 0  # a class that never occurs
        draw_confusion(counts, labels, "toy", tmp_path / "c.png")
        with Image.open(tmp_path / "c.png") as chart:
            chart.load()
            sizes.append(chart.size)
            pixels = np.asarray(chart.convert("RGB")).reshape(-1, 3)
            assert len(np.unique(pixels, axis=0)) > 10
    assert sizes == [(816, 433), (1467, 943)]


def test_file_names_have_no_special_characters() -> None:
    assert build_file_name("fold 1") == "confusion_fold_1"
    assert build_file_name("../../etc/passwd") == "confusion_etc_passwd"
    assert build_file_name("//") == "confusion_group"


def test_labels_may_be_any_text(tmp_path: Path) -> None:
    labels = [r"$\worse$", "开心", "a_b^"]
    draw_confusion(count_confusions(labels, labels, labels), labels, "records", tmp_path / "c.png")
    assert Image.open(tmp_path / "c.png").width > 100
