from pathlib import Path

import pytest

from omnihuman.benchmark.base import Prediction, Question
from omnihuman.benchmark.fleurs import Fleurs
from omnihuman.build import build, compose_part

LINES = {
    "en_us": [
        (
            "1675",
            "141.wav",
            '"It has 23 rooms," she said.',
            "it has 23 rooms she said",
            "i t | h a s",
            "9600",
            "FEMALE",
        ),
        ("1675", "142.wav", '"It has 23 rooms," she said.', "it has 23 rooms she said", "i t | h a s", "9800", "MALE"),
    ],
    "cmn_hans_cn": [("1700", "77.wav", "它有23个房间。", "它 有 23 个 房 间", "它 有", "9600", "MALE")],
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for language, lines in LINES.items():
        audio = tmp_path / "fleurs/data" / language / "audio/test"
        audio.mkdir(parents=True)
        (audio.parents[1] / "test.tsv").write_text("".join("\t".join(line) + "\n" for line in lines), encoding="utf-8")
        for line in lines:
            (audio / line[1]).touch()
    return tmp_path / "fleurs"


def answer(question: Question, text: str | None) -> Prediction:
    return Prediction("fleurs", question.id, question.group, "", question.reference, text, meta=question.meta)


def test_questions(root: Path) -> None:
    questions = Fleurs(str(root)).questions()
    assert [question.id for question in questions] == ["en_us/141", "en_us/142", "cmn_hans_cn/77"]
    assert questions[0].reference == "it has 23 rooms she said" and questions[0].record.slots == ("audio",)
    assert questions[2].group == "cmn_hans_cn" and questions[2].meta == {"sentence": "1700"}
    raw = Fleurs(str(root / "data"), reference="raw transcription").questions()
    assert raw[0].reference == '"It has 23 rooms," she said.'  # quotes are not special in these files


def test_column_names_and_an_empty_table(root: Path) -> None:
    named = Fleurs(str(root), languages="en_us", reference="raw_transcription")
    assert [question.reference for question in named.questions()] == ['"It has 23 rooms," she said.'] * 2
    with pytest.raises(ValueError, match=r"reference=words: .*\btranscription, raw transcription"):
        Fleurs(str(root), reference="words")
    (root / "data/en_us/test.tsv").write_text("\n")
    with pytest.raises(ValueError, match=r"test\.tsv is empty"):
        Fleurs(str(root)).questions()


def test_scores_of_english_and_mandarin(root: Path) -> None:
    benchmark = Fleurs(str(root))
    answers = ["It has 23 rooms, she said.", None, "它有二十三个房子"]
    predictions = [answer(question, text) for question, text in zip(benchmark.questions(), answers, strict=True)]
    english, mandarin = benchmark.scores(predictions)
    assert english.name == "wer/en_us" and english.value == pytest.approx(100 * 6 / 12)
    assert english.clusters == ("en_us/1675", "en_us/1675")
    # 它有二十三个房间: one of eight
    assert mandarin.name == "cer/cmn_hans_cn" and mandarin.value == pytest.approx(100 / 8)
    assert Fleurs(str(root), languages=["cmn_hans_cn"]).scores(predictions)[0].name == "cer/cmn_hans_cn"


def test_audio_next_to_the_table(root: Path) -> None:
    (root / "data/en_us/audio/test").rename(root / "data/en_us/test")
    assert Fleurs(str(root), languages=["en_us"]).questions()[0].record.file.parent.name == "test"


def test_a_packed_archive_raises(root: Path) -> None:
    (root / "data/en_us/audio/test").rename(root / "data/en_us/audio/elsewhere")
    (root / "data/en_us/audio/test.tar.gz").touch()
    with pytest.raises(ValueError, match=r"test\.tar\.gz: .*tar -xzf"):
        Fleurs(str(root)).questions()


def test_invalid_files_raise(root: Path) -> None:
    (root / "data/cmn_hans_cn/audio/test/77.wav").unlink()
    with pytest.raises(ValueError, match=r"cmn_hans_cn/test\.tsv:1: file name: .*no file .*/77\.wav"):
        Fleurs(str(root)).questions()
    assert len(Fleurs(str(root), missing_media="skip").questions()) == 2
    table = root / "data/en_us/test.tsv"
    table.write_text("1675\t141.wav\tonly three\n")
    with pytest.raises(ValueError, match=r"test\.tsv:1: .*3 columns.*7: id, file name"):
        Fleurs(str(root)).questions()
    table.write_text("\t".join(LINES["en_us"][0]) + "\n" + "\t".join(LINES["en_us"][0]) + "\n")
    with pytest.raises(ValueError, match="'en_us/141' is duplicated"):
        Fleurs(str(root), missing_media="skip").questions()
    table.unlink()
    with pytest.raises(ValueError, match=r"en_us/test\.tsv: .*no such file.*root.*google/fleurs"):
        Fleurs(str(root)).questions()
    with pytest.raises(ValueError, match=r"languages=\['de_de'\]: .*\ben_us, cmn_hans_cn"):
        Fleurs(str(root), languages=["de_de"])

    with pytest.raises(ValueError, match=r"normalizer=english: .*\bwhisper_english"):
        Fleurs(str(root), normalizer="english")


def test_yaml_has_the_default_options(root: Path) -> None:
    built, plain = build(compose_part("benchmark", "fleurs", [f"benchmark.root={root}"])), Fleurs(str(root))
    assert built.protocol() == plain.protocol() and built.languages == plain.languages
    assert built.max_new_tokens == plain.max_new_tokens
