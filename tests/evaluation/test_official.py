"""A HumanOmni asked as its released inference asks: exact strings, frames, pixels and sound."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from transformers import AutoTokenizer, WhisperFeatureExtractor

from omnihuman.build import build, compose_config
from omnihuman.data.decode import uniform_indices
from omnihuman.data.media import probe
from omnihuman.data.module import OmniData
from omnihuman.data.plan import Row
from omnihuman.data.record import BadSample, Record
from omnihuman.evaluation.official import DTYPE, HOW, as_released
from omnihuman.model.omni import OmniModel
from omnihuman.types import Batch

QUESTION = "What is the main emotion?\nhappy ,sad"
START = (
    "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\n"
    "<|im_start|>user\n"
)
SEE, HEAR, END = "<vi_start>[video]<vi_end>\n", "<au_start>[audio]<au_end>\n", "<|im_end|>\n<|im_start|>assistant\n"
TEXTS = {
    "video_audio": f"{START}{SEE}{HEAR}{QUESTION}{END}",
    "video": f"{START}{SEE}{QUESTION}{END}",
    "audio": f"{START}{HEAR}{QUESTION}{END}",
}
RATE, SIZE = 25, (96, 48)


def write(path: Path, frames: int, seconds: float = 0.0) -> Path:
    """A clip in whose every frame a bar stands elsewhere, with a tone that rises."""
    with av.open(str(path), "w") as out:
        video = out.add_stream("libx264", rate=RATE, options={"g": "12", "preset": "ultrafast"}) if frames else None
        sound = out.add_stream("aac" if frames else "pcm_s16le", rate=16000, layout="mono") if seconds else None
        if video:
            video.width, video.height, video.pix_fmt = *SIZE, "yuv420p"
        for number in range(frames):
            pixels = np.full((SIZE[1], SIZE[0], 3), 3 * number % 200, dtype=np.uint8)
            pixels[:, 3 * number % SIZE[0] :][:, :6] = (255, 5 * number % 256, 128)
            out.mux(video.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        if video:
            out.mux(video.encode(None))
        if sound:
            t = np.arange(round(seconds * 16000)) / 16000
            tone = (9000 * np.sin(2 * np.pi * (200 + 9 * t) * t)).astype(np.int16)
            block = av.AudioFrame.from_ndarray(tone[None], format="s16", layout="mono")
            block.sample_rate = 16000
            fit = av.AudioResampler(format=sound.codec_context.format, layout="mono", rate=16000, frame_size=1024)
            for piece in [*fit.resample(block), *fit.resample(None)]:
                out.mux(sound.encode(piece))
            out.mux(sound.encode(None))
    return path


def all_frames(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def all_sound(path: Path) -> np.ndarray:
    with av.open(str(path)) as container:
        mono = av.AudioResampler(format="fltp", layout="mono")
        blocks = [piece.to_ndarray()[0] for frame in container.decode(audio=0) for piece in mono.resample(frame)]
    return np.concatenate(blocks)


@dataclass
class Asked:
    """A model and its data path, and what it makes of a question about a file."""

    model: OmniModel
    data: OmniData

    def __call__(self, file: Path, modal: str, kind: str = "video") -> Batch:
        slots = ("video", "audio") if kind == "video" else ("audio",)
        text = "".join(f"<{slot}>\n" for slot in slots) + QUESTION
        record = Record("question", file, kind, (("user", text), ("assistant", "")), slots).seen_as(modal)
        assert record is not None
        return self.data.question(record)[Row((0,), 0)]


def asked(released: bool, model: OmniModel | None = None) -> Asked:
    config = compose_config(["+experiment=humanomni_stage3", "size=nano"])
    config = as_released(config) if released else config
    built = model or build(config.model).eval().requires_grad_(False)
    data: OmniData = build(config.data, make=None)
    data.connect(built.transforms, built.layouts, built.llm.tokenizer, built.llm.chat)
    return Asked(built, data)


@pytest.fixture(scope="module")
def official() -> Asked:
    return asked(True)


@pytest.fixture(scope="module")
def trained() -> Asked:
    return asked(False)


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("clips")
    return {
        "talk": write(folder / "talk.mp4", 25, 1.0),
        "silent": write(folder / "silent.mp4", 100),
        "short": write(folder / "short.mp4", 3),
        "long": write(folder / "long.wav", 0, 31.0),
    }


def told(ids: Sequence[int], tokenizer: object) -> tuple[str, dict[str, int]]:
    """Ids as text, every run of a slot as one ``[video]`` or ``[audio]``, and how long the runs are."""
    text, counts, words = "", {"[video]": 0, "[audio]": 0}, list[int]()
    for token in [*ids, 0]:
        name = {-201: "[video]", -202: "[audio]"}.get(token)
        if name is None:
            words.append(token)
            continue
        if words:
            text += tokenizer.decode(words) + name  # type: ignore[attr-defined]
        counts[name], words = counts[name] + 1, []
    return text + tokenizer.decode(words[:-1]), counts  # type: ignore[attr-defined]


@pytest.mark.parametrize("modal", TEXTS)
@pytest.mark.parametrize("clip", ["talk", "silent"])
def test_strings(official: Asked, clips: dict[str, Path], modal: str, clip: str) -> None:
    if (clip, modal) == ("silent", "audio"):
        with pytest.raises(BadSample, match=r"silent\.mp4 has no audio"):
            official(clips[clip], modal)
        return
    batch = official(clips[clip], modal)
    ids, tokenizer = batch.input_ids[0].tolist(), official.model.llm.tokenizer
    text, counts = told(ids, tokenizer)
    assert text == TEXTS[modal]
    frames = official.model.layouts({"frames": 8})["video"]
    assert counts == {"[video]": frames if "video" in modal else 0, "[audio]": 500 if "audio" in modal else 0}
    # every piece of text is tokenised on its own, as the official code does
    pieces = TEXTS[modal].replace("[audio]", "[video]").split("[video]")
    plain = [token for piece in pieces for token in tokenizer.encode(piece, add_special_tokens=False)]
    assert [token for token in ids if token >= 0] == plain
    words = batch.signals["instruction"].values[0].tolist()
    bert = AutoTokenizer.from_pretrained(official.model.encoders["instruction"].transform.tokenizer)
    assert words == bert(QUESTION)["input_ids"]


def test_a_run_that_asks_otherwise_asks_so() -> None:
    """A converted folder has the training's three newlines."""
    options = ["data.separator='\n\n\n'", "data.missing=absent", "model.llm.system=null", "data.markers=false"]
    config = compose_config(["+experiment=humanomni_stage3", "size=nano", *options])
    changed, before = as_released(config), config.copy()
    assert (changed.data.separator, changed.data.missing) == ("\n", "fill")
    assert changed.model.llm.system.startswith("You are Qwen, ") and not changed.data.markers
    assert config == before and config.data.separator == "\n\n\n"


@pytest.mark.parametrize("count", [1, 2, 3, 9, 24, 25, 32, 33, 97, 100, 161, 750, 1001])
@pytest.mark.parametrize("wanted", [1, 4, 8, 16, 32])
def test_indices(count: int, wanted: int) -> None:
    part = (count - 1) / wanted
    middles = np.array([(part * number + part * (number + 1)) / 2 for number in range(wanted)])
    assert uniform_indices(count, wanted) == np.round(middles + 1e-6).astype(int).tolist()


@pytest.mark.parametrize(
    ("clip", "places"),
    [
        ("silent", [6, 19, 31, 43, 56, 68, 80, 93]),
        ("talk", [2, 5, 8, 11, 14, 17, 20, 23]),
        ("short", [0, 0, 1, 1, 1, 1, 2, 2]),
    ],
)
def test_frames_are_squashed_ones_of_these_places(
    official: Asked, trained: Asked, clips: dict[str, Path], clip: str, places: list[int]
) -> None:
    frames, side = all_frames(clips[clip]), 112
    pictures = [Image.fromarray(frames[place]).resize((side, side), Image.Resampling.BICUBIC) for place in places]
    squashed = torch.from_numpy(np.stack([np.asarray(picture) for picture in pictures])).permute(0, 3, 1, 2).int()
    seen = official(clips[clip], "video").signals["video"].values[0].int()
    assert (seen - squashed).abs().max() <= 1, "one level of 255"
    padded = trained(clips[clip], "video").signals["video"].values[0].int()
    bars = padded[:, :, : side // 4 - 2]
    assert (bars == 127).all() and not (squashed[:, :, : bars.shape[2]] == 127).all()
    assert (padded - squashed).abs().max() > 50


def test_sound_is_the_window_of_the_first_30_seconds(official: Asked, clips: dict[str, Path]) -> None:
    extract = WhisperFeatureExtractor(feature_size=80)

    def mel(sound: np.ndarray) -> Tensor:
        return extract(sound, sampling_rate=16000, return_tensors="pt")["input_features"][0].T

    heard = official(clips["talk"], "audio").signals["audio"].values[0]
    samples = probe(clips["talk"]).num_samples()  # what a codec adds behind the end that the header tells is no sound
    assert torch.allclose(heard, mel(all_sound(clips["talk"])[:samples]), atol=1e-4)
    sound = all_sound(clips["long"])
    assert len(sound) == 31 * 16000
    heard = official(clips["long"], "audio", kind="audio").signals["audio"].values[0]
    assert torch.allclose(heard, mel(sound[: 30 * 16000]), atol=1e-4)
    assert not torch.allclose(heard, mel(sound[16000:]), atol=1e-2)
    silence = official(clips["silent"], "video_audio").signals["audio"].values[0]
    assert silence.shape == (3000, 80) and (silence == -1.5).all()
    assert torch.equal(silence, mel(np.zeros(160000, np.float32)))


def test_it_answers_in_half_precision(clips: dict[str, Path]) -> None:
    half = asked(True)
    half.model.to(getattr(torch, DTYPE))
    assert HOW == {"do_sample": False, "max_new_tokens": 2048}
    batch = half(clips["talk"], "video_audio")
    assert torch.isfinite(half.model(Batch(batch.signals, batch.input_ids, batch.input_ids.clamp(min=0),
                                           batch.position_ids, batch.bounds, 1)).loss)  # fmt: skip


@pytest.mark.parametrize("experiment", ["humanomni_stage1", "humanomni_stage3"])
def test_a_humanomni_is_known(experiment: str) -> None:
    assert as_released(compose_config([f"+experiment={experiment}"])).model.encoders.video.aspect == "squash"


@pytest.mark.parametrize(
    ("overrides", "what"),
    [
        (["+experiment=omni_emotion_stage3"], "omni_emotion_stage3 is no HumanOmni .*fusions.gate is not there"),
        (["+experiment=favchat_stage3"], "favchat_stage3 is no HumanOmni .*encoders.video is omnihuman.encoder.umt"),
        (["+experiment=humanomni_stage2"], "encoders.video is not there"),
        (["+experiment=humanomni_stage1_face"], "fusions.gate is not there"),
        (["fusion@model.fusions.gate=weighted_sum"], "fusions.gate is omnihuman.fusion.weighted_sum"),
        (["model.llm.template=mistral"], "llm.template is mistral"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_another_model_is_refused(overrides: list[str], what: str) -> None:
    with pytest.raises(ValueError, match=what) as caught:
        as_released(compose_config(overrides))
    assert "official_prompt" in str(caught.value)
