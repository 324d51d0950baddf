"""Official ways of asking: exact prompts, frames, pixels and audio of HumanOmni; which way a folder takes."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image
from torch import Tensor
from transformers import AutoTokenizer, WhisperFeatureExtractor

from omnihuman.build import build, compose_config
from omnihuman.data.decode.sampling import uniform_indices
from omnihuman.data.media import probe
from omnihuman.data.module import OmniData
from omnihuman.data.packing import MicroBatch
from omnihuman.data.record import BadSample, Record
from omnihuman.inference.prompting import Prompting, choose_prompting, parse_prompting, read_prompting
from omnihuman.modality import View
from omnihuman.model.omni import OmniModel
from omnihuman.types import Batch

QUESTION = "What is the main emotion?\nhappy ,sad"
START = (
    "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\n"
    "<|im_start|>user\n"
)
VIDEO_SLOT, AUDIO_SLOT = "<vi_start>[video]<vi_end>\n", "<au_start>[audio]<au_end>\n"
END = "<|im_end|>\n<|im_start|>assistant\n"
PROMPTS = {
    "video_audio": f"{START}{VIDEO_SLOT}{AUDIO_SLOT}{QUESTION}{END}",
    "video": f"{START}{VIDEO_SLOT}{QUESTION}{END}",
    "audio": f"{START}{AUDIO_SLOT}{QUESTION}{END}",
}
FPS, WIDTH, HEIGHT, SAMPLE_RATE = 25, 96, 48, 16_000


def draw_frame(number: int) -> np.ndarray:
    """Draw a frame with a bar whose position and color depend on its number."""
    pixels = np.full((HEIGHT, WIDTH, 3), 3 * number % 200, dtype=np.uint8)
    pixels[:, 3 * number % WIDTH :][:, :6] = (255, 5 * number % 256, 128)
    return pixels


def write_clip(path: Path, num_frames: int, seconds: float = 0.0) -> Path:
    """Write a clip of frames, with a rising tone of some seconds."""
    with av.open(str(path), "w") as container:
        # the container needs all its streams before the first packet
        video = add_video_stream(container) if num_frames else None
        codec = "aac" if num_frames else "pcm_s16le"
        audio = container.add_stream(codec, rate=SAMPLE_RATE, layout="mono") if seconds else None
        if video is not None:
            for number in range(num_frames):
                container.mux(video.encode(av.VideoFrame.from_ndarray(draw_frame(number), format="rgb24")))
            container.mux(video.encode(None))
        if audio is not None:
            write_tone(container, audio, seconds)
    return path


def add_video_stream(container: Any) -> Any:
    stream = container.add_stream("libx264", rate=FPS, options={"g": "12", "preset": "ultrafast"})
    stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
    return stream


def write_tone(container: Any, stream: Any, seconds: float) -> None:
    times = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    tone = (9000 * np.sin(2 * np.pi * (200 + 9 * times) * times)).astype(np.int16)
    block = av.AudioFrame.from_ndarray(tone[None], format="s16", layout="mono")
    block.sample_rate = SAMPLE_RATE
    resampler = av.AudioResampler(stream.codec_context.format, "mono", SAMPLE_RATE, frame_size=1024)
    for piece in [*resampler.resample(block), *resampler.resample(None)]:
        container.mux(stream.encode(piece))
    container.mux(stream.encode(None))


def decode_frames(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def decode_audio(path: Path) -> np.ndarray:
    blocks = []
    with av.open(str(path)) as container:
        mono = av.AudioResampler(format="fltp", layout="mono")
        for frame in container.decode(audio=0):
            for piece in mono.resample(frame):
                blocks.append(piece.to_ndarray()[0])
    return np.concatenate(blocks)


@dataclass
class Preprocessor:
    """Builds the batch of a question about a file, with the data path of a model."""

    model: OmniModel
    data: OmniData

    def __call__(self, file: Path, view: str, kind: str = "video") -> Batch:
        slots = ("video", "audio") if kind == "video" else ("audio",)
        text = "".join(f"<{slot}>\n" for slot in slots) + QUESTION
        record = Record("question", file, kind, (("user", text), ("assistant", "")), slots).restrict(View.parse(view))
        assert record is not None
        return self.data.plan_question(record)[MicroBatch((0,), 0)]


def build_preprocessor(is_official: bool) -> Preprocessor:
    config = compose_config(["+experiment=humanomni_stage3", "size=nano"])
    if is_official:
        config = read_prompting("humanomni").apply(config)
    model = build(config.model).eval().requires_grad_(False)
    data: OmniData = build(config.data)
    data.connect(model.transforms, model.count_tokens, model.llm.tokenizer, model.llm.template)
    return Preprocessor(model, data)


@pytest.fixture(scope="module")
def official() -> Preprocessor:
    return build_preprocessor(is_official=True)


@pytest.fixture(scope="module")
def as_in_training() -> Preprocessor:
    return build_preprocessor(is_official=False)


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("clips")
    return {
        "talk": write_clip(folder / "talk.mp4", 25, 1.0),
        "silent": write_clip(folder / "silent.mp4", 100),
        "short": write_clip(folder / "short.mp4", 3),
        "long": write_clip(folder / "long.wav", 0, 31.0),
    }


def decode_prompt(ids: Sequence[int], tokenizer: Any) -> tuple[str, dict[str, int]]:
    """Return the text of a prompt with one ``[video]`` or ``[audio]`` for a slot, and the tokens of each slot."""
    text = ""
    counts = {"[video]": 0, "[audio]": 0}
    for placeholder, run in groupby(ids, key=lambda token: min(token, 0)):  # 0 for text
        tokens = list(run)
        if placeholder == 0:
            text += tokenizer.decode(tokens)
        else:
            name = {-201: "[video]", -202: "[audio]"}[placeholder]
            text += name
            counts[name] += len(tokens)
    return text, counts


@pytest.mark.parametrize("view", PROMPTS)
@pytest.mark.parametrize("clip", ["talk", "silent"])
def test_prompt_equals_the_official_one(official: Preprocessor, clips: dict[str, Path], view: str, clip: str) -> None:
    if (clip, view) == ("silent", "audio"):
        with pytest.raises(BadSample, match=r"silent\.mp4 has no audio"):
            official(clips[clip], view)
        return
    batch = official(clips[clip], view)
    ids, tokenizer = batch.input_ids[0].tolist(), official.model.llm.tokenizer
    text, counts = decode_prompt(ids, tokenizer)
    assert text == PROMPTS[view]
    expected_counts = {"[video]": 0, "[audio]": 0}
    if "video" in view:
        expected_counts["[video]"] = official.model.count_tokens({"frames": 8})["video"]
    if "audio" in view:
        expected_counts["[audio]"] = 500
    assert counts == expected_counts
    # the official code tokenizes every piece of text separately
    expected_ids = []
    for piece in PROMPTS[view].replace("[audio]", "[video]").split("[video]"):
        expected_ids += tokenizer.encode(piece, add_special_tokens=False)
    assert [token for token in ids if token >= 0] == expected_ids
    instruction_ids = batch.signals["instruction"].values[0].tolist()
    bert = AutoTokenizer.from_pretrained(official.model.encoders["instruction"].transform.tokenizer)
    assert instruction_ids == bert(QUESTION)["input_ids"]


def test_options_of_the_training_are_replaced_and_the_config_stays() -> None:
    """A converted folder has the training's three newlines; markers and system text are those of the folder."""
    options = ["data.separator='\n\n\n'", "data.missing=absent", "model.llm.template.system=null", "data.markers=false"]
    config = compose_config(["+experiment=humanomni_stage3", "size=nano", *options])
    changed, before = read_prompting("humanomni").apply(config), config.copy()
    assert (changed.data.separator, changed.data.missing) == ("\n", "fill")
    assert changed.model.llm.template.system is None and not changed.data.markers
    assert config == before and config.data.separator == "\n\n\n"


def test_bert_reads_what_is_left_of_the_slots_in_the_training_form(
    official: Preprocessor, clips: dict[str, Path]
) -> None:
    """The official trainer removes ``<video>`` and all line breaks, not the markers and ``<audio>``."""
    config = read_prompting("humanomni_training").apply(compose_config(["+experiment=humanomni_stage3", "size=nano"]))
    data: OmniData = build(config.data)
    model = official.model
    data.connect(model.transforms, model.count_tokens, model.llm.tokenizer, model.llm.template)
    preprocessor = Preprocessor(model, data)
    bert = AutoTokenizer.from_pretrained(model.encoders["instruction"].transform.tokenizer)
    question = "What is the main emotion?happy ,sad"
    for view, slots in {
        "VA": "<vi_start><vi_end><au_start><audio><au_end>",
        "V": "<vi_start><vi_end>",
        "A": "<au_start><audio><au_end>",
    }.items():
        ids = preprocessor(clips["talk"], view).signals["instruction"].values[0].tolist()
        assert ids == bert(slots + question)["input_ids"]


@pytest.mark.parametrize("count", [1, 2, 3, 9, 24, 25, 32, 33, 97, 100, 161, 750, 1001])
@pytest.mark.parametrize("num_frames", [1, 4, 8, 16, 32])
def test_frames_are_the_midpoints_of_equal_segments(count: int, num_frames: int) -> None:
    segment = (count - 1) / num_frames
    midpoints = np.array([(segment * number + segment * (number + 1)) / 2 for number in range(num_frames)])
    assert uniform_indices(count, num_frames) == np.round(midpoints + 1e-6).astype(int).tolist()


@pytest.mark.parametrize(
    ("clip", "indices"),
    [
        ("silent", [6, 19, 31, 43, 56, 68, 80, 93]),
        ("talk", [2, 5, 8, 11, 14, 17, 20, 23]),
        ("short", [0, 0, 1, 1, 1, 1, 2, 2]),
    ],
)
def test_frames_are_squashed_to_squares(
    official: Preprocessor, as_in_training: Preprocessor, clips: dict[str, Path], clip: str, indices: list[int]
) -> None:
    frames, side = decode_frames(clips[clip]), 112
    resized = []
    for index in indices:
        image = Image.fromarray(frames[index]).resize((side, side), Image.Resampling.BICUBIC)
        resized.append(np.asarray(image))
    squashed = torch.from_numpy(np.stack(resized)).permute(0, 3, 1, 2).int()
    values = official(clips[clip], "video").signals["video"].values[0].int()
    assert (values - squashed).abs().max() <= 1, "one level of 255"
    padded = as_in_training(clips[clip], "video").signals["video"].values[0].int()
    bars = padded[:, :, : side // 4 - 2]
    assert (bars == 127).all() and not (squashed[:, :, : bars.shape[2]] == 127).all()
    assert (padded - squashed).abs().max() > 50


def test_audio_is_the_window_of_the_first_30_seconds(official: Preprocessor, clips: dict[str, Path]) -> None:
    extract = WhisperFeatureExtractor(feature_size=80)

    def compute_mel(waveform: np.ndarray) -> Tensor:
        return extract(waveform, sampling_rate=SAMPLE_RATE, return_tensors="pt")["input_features"][0].T

    mel = official(clips["talk"], "audio").signals["audio"].values[0]
    num_samples = probe(clips["talk"]).num_samples()  # the codec adds samples after the end that the header states
    assert torch.allclose(mel, compute_mel(decode_audio(clips["talk"])[:num_samples]), atol=1e-4)
    waveform = decode_audio(clips["long"])
    assert len(waveform) == 31 * SAMPLE_RATE
    mel = official(clips["long"], "audio", kind="audio").signals["audio"].values[0]
    assert torch.allclose(mel, compute_mel(waveform[: 30 * SAMPLE_RATE]), atol=1e-4)
    assert not torch.allclose(mel, compute_mel(waveform[SAMPLE_RATE:]), atol=1e-2)


def test_missing_audio_of_a_video_is_ten_seconds_of_zeros(official: Preprocessor, clips: dict[str, Path]) -> None:
    extract = WhisperFeatureExtractor(feature_size=80)
    zeros = np.zeros(10 * SAMPLE_RATE, np.float32)
    expected = extract(zeros, sampling_rate=SAMPLE_RATE, return_tensors="pt")["input_features"][0].T
    mel = official(clips["silent"], "video_audio").signals["audio"].values[0]
    assert mel.shape == (3000, 80) and (mel == -1.5).all()
    assert torch.equal(mel, expected)


def test_loss_is_finite_in_half_precision(clips: dict[str, Path]) -> None:
    preprocessor = build_preprocessor(is_official=True)
    prompting = read_prompting("humanomni")
    assert (prompting.dtype, prompting.max_new_tokens) == ("float16", 2048)
    model = preprocessor.model.to(torch.float16)
    batch = preprocessor(clips["talk"], "video_audio")
    labels = batch.input_ids.clamp(min=0)
    output = model(Batch(batch.signals, batch.input_ids, labels, batch.position_ids, batch.bounds, 1))
    assert torch.isfinite(output.loss)


@pytest.mark.parametrize("experiment", ["humanomni_stage1", "humanomni_stage3"])
def test_humanomni_is_accepted(experiment: str) -> None:
    config = read_prompting("humanomni").apply(compose_config([f"+experiment={experiment}"]))
    assert config.model.encoders.video.aspect == "squash"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["+experiment=omni_emotion_stage3"], "omni_emotion_stage3 .*fusions.gate is missing"),
        (["+experiment=favchat_stage3"], "favchat_stage3 .*encoders.video is omnihuman.encoder.umt"),
        (["+experiment=humanomni_stage2"], "encoders.video is missing"),
        (["+experiment=humanomni_stage1_face"], "fusions.gate is missing"),
        (["fusion@model.fusions.gate=weighted_sum"], "fusions.gate is omnihuman.fusion.weighted_sum"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_another_model_raises(overrides: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        read_prompting("humanomni").apply(compose_config(overrides))
    assert "official_prompt" in str(error.value)


def write_folder(folder: Path, prompting: dict[str, Any] | None, is_untouched: bool) -> Path:
    """Write what decides how a folder is asked: its config, and the file that only a conversion writes."""
    folder.mkdir()
    config = {"name": folder.name, "model": {}, "data": {}}
    OmegaConf.save(config if prompting is None else config | {"prompting": prompting}, folder / "config.yaml")
    (folder / "finished").touch()
    (folder / "weights.safetensors").touch()
    if is_untouched:
        (folder / "official.json").write_text("{}")
    return folder


DESCRIPTION: dict[str, Any] = {"name": "mine", "parts": {}, "question": "{question} Think.", "max_new_tokens": 7}


def test_a_conversion_is_asked_officially_until_it_is_trained(tmp_path: Path) -> None:
    untouched = write_folder(tmp_path / "untouched", DESCRIPTION, True)
    trained = write_folder(tmp_path / "trained", DESCRIPTION, False)
    plain = write_folder(tmp_path / "plain", None, False)
    expected = parse_prompting(DESCRIPTION, "here")
    assert choose_prompting(untouched, None) == choose_prompting(trained, True) == expected
    assert expected == Prompting("mine", {}, question="{question} Think.", max_new_tokens=7)
    for folder, official in ((trained, None), (plain, None), (untouched, False), (plain, False)):
        assert choose_prompting(folder, official) is None
    assert choose_prompting(plain, "r1_omni") == read_prompting("r1_omni")
    with pytest.raises(ValueError, match=r"plain .*official_prompt=<humanomni\|"):
        choose_prompting(plain, True)
    with pytest.raises(ValueError, match=r"official_prompt=r2: .*humanomni, .*r1_omni"):
        choose_prompting(plain, "r2")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"turns": 2}, "may have .*, got .*turns"),
        ({"max_new_tokens": "many"}, "max_new_tokens is 'many'; .*int"),
        ({"question": "Think."}, r"question is 'Think.'; .*{question}"),
        ({"model": {"encoders": 5}}, r"\.model\.encoders is 5; .*remove it"),
        ({"model": {"encoders": {"video": ["squash"]}}}, r"\.model\.encoders\.video is \['squash'\]; .*remove it"),
        ({"model": {"llm": "chatml"}}, r"\.model\.llm is 'chatml'; .*remove it"),
        ({"model": {"encoder": {}}}, r"\.model\.encoder: .*encoders, projectors, .*llm"),
    ],
)
def test_invalid_description_raises(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    folder = write_folder(tmp_path / "bad", DESCRIPTION | changes, True)
    with pytest.raises(ValueError, match=rf"bad/config.yaml: prompting.*{message}"):
        choose_prompting(folder, None)
