"""Modalities, placeholders and views."""

from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

import omnihuman
from omnihuman.data.dataset import Samples  # noqa: F401  (its import loads every reader)
from omnihuman.modality import (
    INSTRUCTION,
    KINDS,
    MODALITIES,
    NAMES,
    PLACEHOLDERS,
    SLOTS,
    TAGS,
    View,
    check_field,
    prompt_head,
    strip_tags,
    tags_of,
)


def test_letters_fields_and_nouns_are_unique() -> None:
    for attribute in ("letter", "field", "noun"):
        values = [getattr(modality, attribute) for modality in MODALITIES]
        assert len(set(values)) == len(values), attribute
    assert INSTRUCTION not in [modality.field for modality in MODALITIES]


def test_every_modality_is_planned_from_a_field() -> None:
    assert {modality.planned_from for modality in MODALITIES} <= {modality.field for modality in MODALITIES}


def test_modalities_and_readers_correspond() -> None:
    for modality in MODALITIES:
        assert find_spec(f"omnihuman.data.reader.{modality.field}"), modality
    folder = Path(omnihuman.__file__).parent / "data" / "reader"
    modules = {path.stem for path in folder.glob("*.py")} - {"__init__", "base"}
    assert modules == {modality.field for modality in MODALITIES}


def test_ids_tags_and_markers_equal_the_official_ones() -> None:
    assert (SLOTS["video"], SLOTS["audio"]) == (-201, -202) and len(set(SLOTS.values())) == len(SLOTS)
    assert (TAGS["<video>"], TAGS["<image>"], TAGS["<audio>"]) == ("video", "video", "audio")
    assert list(TAGS) == list(PLACEHOLDERS)
    assert PLACEHOLDERS["<video>"].markers == ("<vi_start>", "<vi_end>")
    assert PLACEHOLDERS["<image>"].markers == ("<im_start>", "<im_end>")
    assert PLACEHOLDERS["<audio>"].markers == ("<au_start>", "<au_end>")
    assert KINDS[:3] == ("video", "image", "audio")
    assert [tags_of(kind)[:2] for kind in KINDS[:3]] == [("<video>", "<audio>"), ("<image>",), ("<audio>",)]


def test_a_blank_has_the_shape_and_dtype_of_its_modality() -> None:
    blanks = {modality.letter: modality.blank() for modality in MODALITIES}
    assert blanks["V"].shape == (1, 3, 8, 8) and blanks["V"].dtype == torch.uint8
    assert blanks["A"].shape == (1600,) and blanks["A"].dtype == torch.float32


@pytest.mark.parametrize(("name", "letters"), NAMES.items())
def test_a_name_is_parsed_as_its_letters(name: str, letters: str) -> None:
    view = View.parse(name)
    assert set(view.letters) == set(letters) and view == View.parse(name.upper())
    assert str(view) == (letters or "text")


@pytest.mark.parametrize("spec", ["VAF", "fav", "AVF", "aVf"])
def test_order_and_case_of_letters_do_not_matter(spec: str) -> None:
    assert str(View.parse(spec)) == "VAF"
    assert View.parse(View.parse(spec)) == View.parse("video_audio")


@pytest.mark.parametrize("spec", ["smell", "VX", "VV", "", "video audio"])
def test_unknown_view_raises(spec: str) -> None:
    with pytest.raises(ValueError, match=r"data\.views=.*: unknown view; .*\bV \(frames\)"):
        View.parse(spec, "data.views")


@pytest.mark.parametrize(
    ("view", "slots", "hidden"),
    [
        ("VAF", ("video", "audio"), ()),
        ("VF", ("video",), ()),
        ("A", ("audio",), ()),
        ("VA", ("video", "audio"), ("faces",)),
        ("V", ("video",), ("faces",)),
        ("AF", ("video", "audio"), ("frames",)),
        ("F", ("video",), ("frames",)),
        ("text", (), ()),
    ],
)
def test_slots_and_hidden_fields_of_a_view(view: str, slots: tuple[str, ...], hidden: tuple[str, ...]) -> None:
    parsed = View.parse(view)
    known = [name for name in parsed.hidden(slots) if name in ("frames", "waveform", "faces")]
    assert parsed.slots == slots and tuple(known) == hidden


def test_views_support_set_operations() -> None:
    view = View.parse("VAF")
    assert str(view & View.parse("AF")) == "AF" and str(view - View.parse("A")) == "VF"
    assert not View.parse("text") and view and view.nouns == ("frames", "audio", "faces")
    assert [str(part) for part in view.subviews()] == ["VAF", "VA", "VF", "AF", "V", "A", "F", "text"]
    assert View.parse("VAF") & View.of_kind("video") == View.parse("VAF") and not View.of_kind("text")


def test_tags_are_removed_with_their_line_breaks() -> None:
    assert prompt_head("text") == ""
    assert prompt_head("video").startswith("<video>\n<audio>\n")
    assert strip_tags(prompt_head("video") + "Who is <image>it?") == "Who is it?"
    assert strip_tags("<video>\n<audio>\nWho?", ["<audio>"]) == "<video>\nWho?"


def test_unknown_field_raises() -> None:
    check_field("faces")
    check_field(INSTRUCTION)
    with pytest.raises(ValueError, match=r"reads=smell: .*\bframes, waveform, faces\b"):
        check_field("smell")
