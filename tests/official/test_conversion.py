"""A conversion reports on every key, and writes a complete folder or none."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer

from omnihuman.build import compose_part
from omnihuman.official import conversion as convert_module
from omnihuman.official.checkpoint import open_checkpoint
from omnihuman.official.conversion import (
    Conversion,
    MappedCheckpoint,
    Request,
    check_tensors,
    compare_templates,
    convert,
    copy_tokenizer,
    format_report,
)
from omnihuman.official.keys import KeyReport, build_report
from tests.official.folders import OfficialFolder, write_files, write_official
from tests.programs import run_program

SHAPES = {"part.a.weight": (2, 3), "part.b.bias": (3,)}


@pytest.fixture(scope="module")
def official(tmp_path_factory: pytest.TempPathFactory) -> OfficialFolder:
    return write_official(tmp_path_factory.mktemp("official") / "0_5b", "0_5b")


def make_conversion(folder: Path, **state: torch.Tensor) -> Conversion:
    """``a`` and ``b`` have names, ``c`` is dropped."""
    folder.mkdir(exist_ok=True)
    write_files(folder, {"a": torch.ones(2, 3), "b": torch.ones(3), "c": torch.ones(1)} | state, "single")
    checkpoint = open_checkpoint(folder)
    names = {"a": "part.a.weight", "b": "part.b.bias", "d": "part.d"}
    report = build_report(checkpoint, names.get, {"c": "not needed"}.get, "the test")
    return Conversion((MappedCheckpoint(checkpoint, report),), SHAPES, hints={"part.b.*": "give b="})


def test_report_counts_names_and_reasons(tmp_path: Path) -> None:
    conversion = make_conversion(tmp_path / "x", b=torch.ones(3).bfloat16())
    check_tensors(conversion)
    text = format_report(conversion, {tensor.name: tensor.header for tensor in conversion.tensors()})
    assert "taken          1  part.a" in text and "dropped        1  not needed" in text
    assert "2  tensors, 0.0 M values, 1 float32, 1 bfloat16" in text


def test_tensors_that_do_not_fit_the_model_raise(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"\ba is \[3, 2\], part\.a\.weight .* is \[2, 3\]"):
        check_tensors(make_conversion(tmp_path / "1", a=torch.ones(3, 2)))
    with pytest.raises(ValueError, match=r"\ba is int64.*floats"):
        check_tensors(make_conversion(tmp_path / "2", a=torch.ones(2, 3, dtype=torch.int64)))
    with pytest.raises(ValueError, match=r"\b1 keys .*not in .*'d'"):
        check_tensors(make_conversion(tmp_path / "3", d=torch.ones(1)))
    conversion = make_conversion(tmp_path / "4")
    partial = MappedCheckpoint(conversion.checkpoints[0].checkpoint, KeyReport({"a": "part.a.weight"}, {}))
    with pytest.raises(ValueError, match=r"\b1 parameters .*missing.*\['part\.b\.bias'\]: give b="):
        check_tensors(Conversion((partial,), SHAPES, hints=conversion.hints))
    duplicate = Conversion((*conversion.checkpoints, *make_conversion(tmp_path / "5").checkpoints), SHAPES)
    with pytest.raises(ValueError, match=r"part\.a\.weight .*two places.*4/model.* \(a\) and .*5/model"):
        check_tensors(duplicate)


def test_invalid_requests_raise(official: OfficialFolder, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"official=humanomi: .*\bhumanomni\b"):
        convert(Request("humanomi", str(official.folder), tmp_path / "out"))
    with pytest.raises(ValueError, match=r"dtype=int8: .*\bfloat32\b"):
        convert(Request("humanomni", str(official.folder), tmp_path / "out", dtype="int8"))
    with pytest.raises(ValueError, match=r"out=.* exists already: choose another\."):
        convert(Request("humanomni", str(official.folder), tmp_path, official.options, overwrite=True))


def raise_full_disk(*args: Any, **kwargs: Any) -> None:
    raise OSError("no space")


def test_failed_conversion_leaves_nothing(
    official: OfficialFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(convert_module, "write_sharded", raise_full_disk)
    with pytest.raises(OSError, match="no space"):
        convert(Request("humanomni", str(official.folder), tmp_path / "out", official.options))
    assert not list(tmp_path.iterdir())


def test_overwrite_replaces_an_earlier_conversion(official: OfficialFolder, tmp_path: Path) -> None:
    out = tmp_path / "out"
    request = Request("humanomni", str(official.folder), out, official.options)
    convert(request)
    with pytest.raises(ValueError, match=r"out=.* exists .*overwrite=true"):
        convert(request)
    (out / "old").touch()
    convert(Request("humanomni", str(official.folder), out, official.options, overwrite=True))
    assert not (out / "old").exists() and [path.name for path in tmp_path.iterdir()] == ["out"]


def test_missing_tokenizer_raises(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no tokenizer: .*tokenizer="):
        copy_tokenizer(tmp_path, tmp_path / "tokenizer")


def test_template_that_differs_from_the_tokenizer_is_a_note(tokenizer_folder: str, tmp_path: Path) -> None:
    chatml, mistral = (compose_part("llm/template", name) for name in ("chatml", "mistral"))
    assert compare_templates(Path(tokenizer_folder), chatml) == ()
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder)
    tokenizer.chat_template = "{{ messages[0]['content'] }}"
    tokenizer.save_pretrained(tmp_path)
    (note,) = compare_templates(tmp_path, chatml)
    assert re.search(r"chatml differs .*0 tokens", note)
    (note,) = compare_templates(tmp_path, mistral)
    assert "splits <s>" in note


def test_command(official: OfficialFolder, tmp_path: Path) -> None:
    overrides = [f"path={official.folder}", f"out={tmp_path / 'out'}", f"instruction_encoder={official.bert}"]
    command = ["omnihuman.convert", "official=humanomni", *overrides]
    first = run_program(*command)
    assert "missing        0" in first.stdout and f"generate run={tmp_path / 'out'}" in first.stdout
    second = run_program(*command)
    assert second.returncode and "overwrite=true" in second.stderr
