"""Tracks of people: of the records' boxes, and of detectors of transformers in their official layout."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import (
    AutoImageProcessor,
    AutoModelForObjectDetection,
    DFineConfig,
    HGNetV2Config,
    RfDetrConfig,
    RfDetrImageProcessor,
    RTDetrImageProcessor,
)
from transformers.models.rf_detr.configuration_rf_detr import RfDetrDinov2Config

from omnihuman.operator.base import Failed
from omnihuman.operator.persons import Persons
from tests.operator.conftest import apply_one, build_row

LABELS = {"id2label": {0: "person", 1: "dog"}, "label2id": {"person": 0, "dog": 1}}
BOX = [8.0, 6.0, 56.0, 42.0]


def write_dfine(folder: Path) -> None:
    backbone = HGNetV2Config(
        stage_in_channels=[8, 8, 8, 16],
        stage_mid_channels=[4] * 4,
        stage_out_channels=[8, 8, 16, 16],
        stage_num_blocks=[1] * 4,
        stage_numb_of_layers=[1] * 4,
        stage_kernel_size=[3] * 4,
        stem_channels=[3, 4, 8],
        embedding_size=8,
        hidden_sizes=[8, 8, 16, 16],
        depths=[1] * 4,
        out_features=["stage2", "stage3", "stage4"],
    )
    config = DFineConfig(
        backbone_config=backbone,
        encoder_hidden_dim=16,
        encoder_in_channels=[8, 16, 16],
        encoder_ffn_dim=16,
        encoder_attention_heads=2,
        d_model=16,
        num_queries=8,
        decoder_in_channels=[16] * 3,
        decoder_ffn_dim=16,
        decoder_attention_heads=2,
        decoder_layers=2,
        decoder_n_points=[2, 2, 2],
        num_denoising=0,
        **LABELS,
    )
    AutoModelForObjectDetection.from_config(config).save_pretrained(folder)
    RTDetrImageProcessor(size={"height": 64, "width": 64}).save_pretrained(folder)


def write_rf_detr(folder: Path) -> None:
    backbone = RfDetrDinov2Config(
        hidden_size=16,
        num_hidden_layers=4,
        num_attention_heads=2,
        image_size=56,
        patch_size=14,
        mlp_ratio=2,
        num_windows=2,
        out_features=["stage2", "stage4"],
        window_block_indexes=[0, 1],
    )
    config = RfDetrConfig(
        backbone_config=backbone,
        d_model=16,
        num_queries=8,
        decoder_ffn_dim=16,
        decoder_layers=2,
        decoder_cross_attention_heads=2,
        decoder_self_attention_heads=2,
        group_detr=1,
        intermediate_size=16,
        **LABELS,
    )
    AutoModelForObjectDetection.from_config(config).save_pretrained(folder)
    RfDetrImageProcessor(size={"height": 56, "width": 56}).save_pretrained(folder)


@pytest.fixture(scope="module")
def dfine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("dfine")
    write_dfine(folder)
    return folder


def encode(seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 255, (24, 32, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def detect_directly(folder: Path, jpeg: bytes, threshold: float) -> list[tuple[list[float], float]]:
    """Return boxes and scores of people, in pixels of a file of twice the size of the frame."""
    processor = AutoImageProcessor.from_pretrained(folder)
    model = AutoModelForObjectDetection.from_pretrained(folder).eval()
    image = Image.open(io.BytesIO(jpeg))
    with torch.no_grad():
        outputs = model(**processor(images=image, return_tensors="pt"))
    (result,) = processor.post_process_object_detection(outputs, threshold=threshold, target_sizes=[(48, 64)])
    entries = zip(result["boxes"].tolist(), result["scores"].tolist(), result["labels"].tolist(), strict=True)
    return sorted((box, score) for box, score, label in entries if label == 0)


@pytest.mark.parametrize("write", [write_dfine, write_rf_detr])
def test_boxes_are_those_of_the_model(tmp_path: Path, write: Callable[[Path], None]) -> None:
    torch.manual_seed(0)
    write(tmp_path)
    jpegs = [encode(seed) for seed in range(3)]
    frames = [{"time": float(number), "jpeg": jpeg} for number, jpeg in enumerate(jpegs)]
    operator = Persons(weights=str(tmp_path), threshold=0.0, batch_size=2, least_overlap=2.0)  # a track for each box
    result = apply_one(operator, tmp_path, build_row(tmp_path / "a.mp4", frames=frames))
    expected = []
    for time, jpeg in enumerate(jpegs):
        expected += [(float(time), *entry) for entry in detect_directly(tmp_path, jpeg, 0.0)]
    actual = []
    for track in result["persons"]:
        actual.append((track["times"][0], list(track["boxes"][0]), track["scores"][0]))
    assert len(actual) == len(expected) and result["person_share"] == 1.0
    for first, second in zip(sorted(actual), expected, strict=True):
        assert first[0] == second[0]
        np.testing.assert_allclose(first[1], second[1], atol=1e-3)
        assert first[2] == pytest.approx(second[2], abs=1e-5)


def test_boxes_of_records_become_tracks(tmp_path: Path) -> None:
    persons = [{"time": time, "box": BOX} for time in (0.0, 0.5)] + [{"time": 1.0, "box": None}]
    record = json.dumps({"persons": persons})
    result = apply_one(Persons("truth"), tmp_path, build_row(tmp_path / "a.mp4", records=["{}", record]))
    assert result["num_persons"] == 1 and result["persons"][0]["times"] == [0.0, 0.5]
    assert result["persons"][0]["scores"] == [1.0, 1.0] and result["person_share"] == pytest.approx(2 / 3)


def test_records_without_boxes_fail(tmp_path: Path) -> None:
    outcome = apply_one(Persons("truth"), tmp_path, build_row(tmp_path / "a.mp4", records=["{}"]))
    assert isinstance(outcome, Failed) and outcome.why == "no_boxes"


def test_equal_weights_have_one_identity(dfine: Path, tmp_path: Path) -> None:
    (tmp_path / "copy").mkdir()
    for file in dfine.iterdir():
        (tmp_path / "copy" / file.name).write_bytes(file.read_bytes())
    first, second = Persons(weights=str(dfine)), Persons(weights=str(tmp_path / "copy"))
    assert first.identity() == second.identity() != Persons(weights="a/b").identity() == {"weights": "a/b"}
    (tmp_path / "copy" / "config.json").write_text("{}")
    assert first.identity() != second.identity()


def test_missing_parameters_raise(dfine: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    for file in dfine.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    state = load_file(dfine / "model.safetensors")
    del state["model.encoder_input_proj.0.0.weight"]
    save_file(state, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match=r"1 missing parameters.*encoder_input_proj"):
        Persons(weights=str(tmp_path)).setup(tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, r"weights=.*dfine.*boxes=truth"),
        ({"weights": "/no/such/folder"}, r"weights=/no/such/folder.*no such folder"),
    ],
)
def test_mistakes_name_the_key(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Persons(**options)


def test_a_label_that_no_class_has_is_named(dfine: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"label=human.*dog, person"):
        Persons(weights=str(dfine), label="human").setup(tmp_path)
