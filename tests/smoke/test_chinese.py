"""Chinese records: imported from a table, trained on, asked, parsed and scored."""

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.programs import run_program

SENTENCES = ("今天的天气怎么样？", "门口坐着两只狗。", "我反对！", "他穿着棕色的大衣，很暖和。")
EMOTIONS = {"happy": "高兴", "sad": "难过", "angry": "愤怒", "neutral": "中性"}
TINY = ["frames=2", "data.num_workers=0", "data.features=null", "recipe.batch_size=4", "validate_first=false"]


def call(verb: str, *arguments: str) -> str:
    """Return the output of a verb that must succeed."""
    process = run_program(f"omnihuman.{verb}", *arguments)
    assert process.returncode == 0, f"{verb}: {process.stdout[-3000:]}{process.stderr[-3000:]}"
    return process.stdout + process.stderr


@pytest.fixture
def table(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a table in Chinese of some clips, in the working folder."""
    (tmp_path / "片段").mkdir()
    rows = []
    for split in ("train", "val"):
        for record in json.loads((corpus / f"{split}.json").read_text()):
            emotion = EMOTIONS.get(record["meta"]["emotion"])
            has_audio = "<audio>" in record["conversations"][0]["value"]
            if emotion and record["task"] == "emotion" and "video" in record and has_audio:
                name = f"片段/{Path(record['video']).name}"
                if not (tmp_path / name).exists():
                    shutil.copyfile(corpus / record["video"], tmp_path / name)
                    place = split if split == "train" else ("val", "test")[len(rows) % 2]
                    rows.append([name, emotion, SENTENCES[len(rows) % 4], place])
    with (tmp_path / "标注.csv").open("w", newline="", encoding="utf-8-sig") as file:
        csv.writer(file).writerows([["文件", "情绪", "内容", "划分"], *rows])
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.slow
def test_from_a_chinese_table_to_scores(table: Path, model_folder: Callable[[str], Path]) -> None:
    columns = ["source=table", "path=标注.csv", "video=文件", "split=划分"]
    labels = f"options=[{','.join(EMOTIONS.values())}]"
    call("records", *columns, "answer=情绪", "questions=emotion_zh", labels, "out=情绪/")
    call("records", *columns, "answer=内容", "questions=transcription_zh", "options=open", "task=转写", "out=转写/")
    assert "高兴 ,难过" in Path("情绪/test.json").read_text(encoding="utf-8")
    base = model_folder("humanomni_stage1_face")
    call("train", "+experiment=finetune", f"base={base}", "data=情绪/", "trainer=smoke", *TINY)
    run = "run=finetune"
    answer = call("generate", run, f"video={next(Path('片段').iterdir())}", "instruction=视频中男子有什么情绪吗？")
    assert answer.strip()
    for name, kind, score in (("情绪", "auto", "war"), ("转写", "speech", "cer")):
        options = [f"benchmark.path={name}/test.json", f"benchmark.kind={kind}", f"tag={score}", "cards=1"]
        call("evaluate", run, "benchmark=records", *options, "num_workers=0")
        (folder,) = Path("runs/nano/finetune").glob(f"*/evaluation/records/*-{score}")
        metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
        assert next(iter(metrics["scores"])) == score
        page = (folder / "index.html").read_text(encoding="utf-8")
        texts = SENTENCES if kind == "speech" else ["高兴"]
        assert any(text in page for text in texts), "the question of the one card"
