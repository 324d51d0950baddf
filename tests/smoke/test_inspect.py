"""The verb ``inspect`` on the command line, with clips of one's own and with the built-in corpus."""

import json
from pathlib import Path

from PIL import Image

from tests.data.conftest import write_clip

from .test_generate import run_verb


def test_inspect_counts_draws_and_lists_errors(tmp_path: Path) -> None:
    write_clip(tmp_path / "talk.mp4")
    write_clip(tmp_path / "tone.wav", num_frames=0, audio_codec="pcm_s16le", sample_rate=16000, layout="mono")
    lines = []
    for number, (key, name, text) in enumerate(
        [
            ("video", "talk.mp4", "<video>\n<audio>\nWho?"),
            ("audio", "tone.wav", "<audio>\nWhat?"),
            ("video", "gone.mp4", "<video>\nWho?"),
        ]
    ):
        turns = [{"from": "human", "value": text}, {"from": "gpt", "value": "Me."}]
        lines.append(json.dumps({"id": str(number), key: name, "task": "who", "end": 1.5, "conversations": turns}))
    records = tmp_path / "mine.jsonl"
    records.write_text("\n".join(lines))
    (tmp_path / "cut.mp4").write_bytes((tmp_path / "talk.mp4").read_bytes()[:3000])
    (tmp_path / "cut.jsonl").write_text(lines[0].replace("talk.mp4", "cut.mp4"))
    (tmp_path / "empty.jsonl").write_text("")
    files = ",".join(str(tmp_path / name) for name in ("mine.jsonl", "cut.jsonl", "empty.jsonl"))
    output = run_verb(
        "inspect", "data=jsonl", f"data.records=[{files}]", f"data.root={tmp_path}", f"out={tmp_path}/out"
    )
    assert "FAILED" in output, "the exit code is not 0"
    assert f"bad clip: unreadable: {tmp_path}/cut.jsonl:1 (0): {tmp_path}/cut.mp4" in output, output
    assert f"no record: {tmp_path}/empty.jsonl" in output
    assert (tmp_path / "out" / "cut_records.png").is_file()
    assert f"{records}: 2 records of 2 files, 1 invalid" in output, output
    assert "3.0 s in the 2 records that name an end" in output
    assert ["who", "video+audio", "1"] in [line.split() for line in output.splitlines()]
    assert f"invalid: missing_file: {records}:3: video 'gone.mp4'" in output
    assert Image.open(tmp_path / "out" / "mine_records.png").size[0] > 600


def test_inspect_draws_the_built_in_corpus(corpus: Path, tmp_path: Path) -> None:
    output = run_verb("inspect", "data=sample", f"data.root={corpus}", f"out={tmp_path}", "num_records=3")
    assert f"{corpus}/train.json: " in output and "emotion" in output and "FAILED" not in output, output
    sheets = {path.name: Image.open(path).size[0] for path in tmp_path.glob("*.png")}
    assert set(sheets) == {"train_records.png", "contact_sheet.png", "listening_sheet.png"}
    assert min(sheets.values()) > 600


def test_decode_checks_every_record_as_training_does(corpus: Path, tmp_path: Path) -> None:
    options = [
        "+experiment=humanomni_stage3",
        "data=sample",
        f"data.root={corpus}",
        f"out={tmp_path}/out",
        "decode=true",
    ]
    options += [f"runs={tmp_path}/runs", "person=meta.identity", "workers=1"]
    output = run_verb("inspect", *options)
    assert "FAILED" not in output and "problem:" not in output, output
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["complete"] and not report["problems"] and report["settings"]["experiment"] == "humanomni_stage3"
    train = report["splits"]["train"]
    assert train["samples"] > train["records"] == train["checked"] > train["clips"] > 0, "several views, one clip"
    assert train["faces"]["share"] > 0 and 0 < train["tokens"]["min"] < train["tokens"]["max"]
    assert f"report: {tmp_path}/out/report.html" in output
