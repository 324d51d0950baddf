"""Words of the records, and of a Whisper in its official layout."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers.pre_tokenizers import ByteLevel
from transformers import (
    AutomaticSpeechRecognitionPipeline,
    GenerationConfig,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
    WhisperTokenizer,
)

from omnihuman.operator.base import Failed
from omnihuman.operator.sound import read_sound
from omnihuman.operator.transcribe import Transcribe
from tests.data.conftest import write_clip
from tests.operator.conftest import apply_one, build_row

END, START, PREVIOUS, NO_TIMES = "<|endoftext|>", "<|startoftranscript|>", "<|startofprev|>", "<|notimestamps|>"
TASKS, LANGUAGES = ["<|translate|>", "<|transcribe|>"], ["<|en|>", "<|de|>"]


@pytest.fixture(scope="module")
def whisper(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a tiny Whisper with the tokens and the generation config of the official ones."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("whisper")
    vocabulary = {letter: number for number, letter in enumerate(sorted(ByteLevel.alphabet()))}
    tokenizer = WhisperTokenizer(vocab=vocabulary | {END: len(vocabulary)}, merges=[])
    special = [START, *LANGUAGES, *TASKS, "<|startoflm|>", PREVIOUS, "<|nospeech|>", NO_TIMES]
    tokenizer.add_special_tokens({"additional_special_tokens": special})
    tokenizer.add_tokens([f"<|{number * 0.02:.2f}|>" for number in range(1501)])
    ids = {name: tokenizer.convert_tokens_to_ids(name) for name in [END, *special]}
    shared = {"decoder_start_token_id": ids[START], **dict.fromkeys(("eos_token_id", "pad_token_id"), ids[END])}
    config = WhisperConfig(
        vocab_size=len(tokenizer),
        num_mel_bins=80,
        d_model=16,
        encoder_layers=1,
        encoder_attention_heads=2,
        encoder_ffn_dim=16,
        decoder_layers=2,
        decoder_attention_heads=2,
        decoder_ffn_dim=16,
        max_target_positions=64,
        bos_token_id=ids[END],
        **shared,
    )
    model = WhisperForConditionalGeneration(config)
    model.generation_config = GenerationConfig(
        max_length=24,
        is_multilingual=True,
        lang_to_id={name: ids[name] for name in LANGUAGES},
        task_to_id={name.strip("<|>"): ids[name] for name in TASKS},
        no_timestamps_token_id=ids[NO_TIMES],
        prev_sot_token_id=ids[PREVIOUS],
        alignment_heads=[[0, 0], [1, 1]],
        suppress_tokens=[],
        begin_suppress_tokens=[ids[END]],
        bos_token_id=ids[END],
        **shared,
    )
    for part in (model, tokenizer, WhisperFeatureExtractor(feature_size=80)):
        part.save_pretrained(folder)
    return folder


def write_row(folder: Path, **fields: Any) -> Any:
    return build_row(write_clip(folder / "a.mp4", num_frames=25, seconds=1.0), has_sound=True, **fields)


def test_words_are_those_of_the_model(whisper: Path, tmp_path: Path) -> None:
    row = write_row(tmp_path)
    operator = Transcribe(weights=str(whisper), language="en")
    result = apply_one(operator, tmp_path, row)
    pipeline = AutomaticSpeechRecognitionPipeline(
        WhisperForConditionalGeneration.from_pretrained(whisper).eval(),
        feature_extractor=WhisperFeatureExtractor.from_pretrained(whisper),
        tokenizer=WhisperTokenizer.from_pretrained(whisper),
    )
    waveform = read_sound(row, 60.0)[0]
    assert waveform is not None and len(waveform) == pytest.approx(16000, abs=1)
    options = {"language": "en", "task": "transcribe", "num_beams": 1}
    expected = pipeline(waveform.numpy(), return_timestamps="word", generate_kwargs=options)
    chunks = [chunk["text"].strip() for chunk in expected["chunks"]]
    assert result["speech"] == expected["text"].strip() and len(chunks) > 1
    assert [word["word"] for word in result["words"]] == [chunk for chunk in chunks if chunk]
    assert all(0.0 <= word["start"] <= word["end"] <= 1.0 for word in result["words"])


def test_no_sound_is_no_speech(whisper: Path, tmp_path: Path) -> None:
    row = build_row(tmp_path / "none.mp4", has_sound=False)
    assert apply_one(Transcribe(weights=str(whisper)), tmp_path, row) == {"words": [], "speech": ""}


def test_words_of_records_within_the_span(tmp_path: Path) -> None:
    words = []
    for time, word in enumerate(("she", "runs", "home")):
        words.append({"word": word, "start": float(time), "end": time + 0.5})
    row = build_row(tmp_path / "a.mp4", records=["{}", json.dumps({"words": words})], has_sound=True)
    result = apply_one(Transcribe("truth"), tmp_path, row | {"start": 1.0, "end": 2.2})
    assert result == {"words": words[1:2], "speech": "runs"}


def test_records_without_words_fail(tmp_path: Path) -> None:
    row = build_row(tmp_path / "a.mp4", records=["{}"], has_sound=True)
    outcome = apply_one(Transcribe("truth"), tmp_path, row)
    assert isinstance(outcome, Failed) and outcome.why == "no_words"


def test_times_need_alignment_heads(whisper: Path, tmp_path: Path) -> None:
    for file in whisper.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    config = json.loads((whisper / "generation_config.json").read_text())
    del config["alignment_heads"]
    (tmp_path / "generation_config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"alignment_heads"):
        Transcribe(weights=str(tmp_path)).setup(tmp_path)


def test_a_missing_model_is_named() -> None:
    with pytest.raises(ValueError, match=r"words=whisper.*weights=.*words=truth"):
        Transcribe()
