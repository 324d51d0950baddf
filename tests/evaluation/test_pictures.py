import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from omnihuman.benchmark.base import Prediction
from omnihuman.evaluation.folder import open_evaluation
from omnihuman.evaluation.pictures import confusion, confusions, draw_confusion, file_of, write_classes, write_confusion

Make = Callable[..., Path]
LABELS = ("sad", "happy", "neutral")


def read(file: Path) -> list[list[str]]:
    with file.open(newline="") as lines:
        return list(csv.reader(lines))


def test_counts_by_hand(make: Make) -> None:
    matrices = confusions(open_evaluation(make()))
    assert matrices["pooled"].tolist() == [[5, 1, 0, 0], [0, 2, 1, 1], [1, 0, 4, 1]]
    assert matrices["fold 1"].tolist() == [[3, 1, 0, 0], [0, 2, 0, 1], [1, 0, 0, 0]]
    assert list(matrices) == ["fold 1", "fold 2", "pooled"]


def test_agrees_with_scikit_learn() -> None:
    from sklearn import metrics

    draw = np.random.default_rng(0)
    truths = draw.choice(LABELS, 200).tolist()
    answers = draw.choice([*LABELS, "invalid"], 200).tolist()
    counts = confusion(LABELS, truths, [None if answer == "invalid" else answer for answer in answers])
    assert (counts == metrics.confusion_matrix(truths, answers, labels=[*LABELS, "invalid"])[:3]).all()
    recalls = metrics.recall_score(truths, answers, labels=LABELS, average=None, zero_division=0)
    assert np.allclose(np.diag(counts[:, :3]) / counts.sum(1), recalls)


def test_a_single_group_is_drawn_once(make: Make, sixteen: list[Prediction]) -> None:
    assert list(confusions(open_evaluation(make(predictions=sixteen[:8])))) == ["pooled"]


def test_free_text_has_no_classes(make: Make) -> None:
    told = [Prediction("told", "1", "", "What?", "a man waves", "a man")]
    assert confusions(open_evaluation(make(predictions=told, kind="Told"))) == {}


def test_csv(make: Make, tmp_path: Path) -> None:
    matrices = confusions(open_evaluation(make()))
    write_confusion(matrices["pooled"], LABELS, tmp_path / "c.csv")
    assert read(tmp_path / "c.csv") == [
        ["truth", "sad", "happy", "neutral", "invalid", "support", "recall"],
        ["sad", "5", "1", "0", "0", "6", "83.33"],
        ["happy", "0", "2", "1", "1", "4", "50.00"],
        ["neutral", "1", "0", "4", "1", "6", "66.67"],
    ]
    write_classes(matrices, LABELS, tmp_path / "p.csv")
    rows = read(tmp_path / "p.csv")
    assert len(rows) == 1 + 3 * 3
    # Wilson for 5 of 6: (5 + z^2/2 -+ z sqrt(5/6 + z^2/4)) / (6 + z^2)
    assert rows[-3] == ["pooled", "sad", "6", "5", "83.33", "43.65", "96.99", "6", "83.33"]


def test_pictures_decode_and_grow_with_the_classes(tmp_path: Path) -> None:
    sizes = []
    for labels in (LABELS, tuple("abcdefghijk")):
        counts = np.eye(len(labels), len(labels) + 1, dtype=np.int64) * 3
        counts[0] = 0  # a class that never occurs
        draw_confusion(counts, labels, "toy", tmp_path / "c.png")
        with Image.open(tmp_path / "c.png") as picture:
            picture.load()
            sizes.append(picture.size)
            shade = np.asarray(picture.convert("RGB")).reshape(-1, 3)
            assert len(np.unique(shade, axis=0)) > 10
    assert sizes == [(852, 413), (1600, 959)]


def test_names_of_files() -> None:
    assert file_of("fold 1") == "confusion_fold_1"
    assert file_of("../../etc/passwd") == "confusion_etc_passwd"
    assert file_of("//") == "confusion_group"
