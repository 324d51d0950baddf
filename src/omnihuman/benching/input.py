"""CPU time from a file to the input of the encoders, beside the official way and a bare decode of every frame."""

import os
import statistics
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
import torch.nn.functional as F
import transformers
from omegaconf import DictConfig
from PIL import Image
from torch import Tensor

from omnihuman.benching.table import Table
from omnihuman.benching.turns import Seconds, measure_in_turns, take_medians
from omnihuman.build import build
from omnihuman.data import media
from omnihuman.data.bad_sample import BadSample
from omnihuman.data.decode.sampling import uniform_indices
from omnihuman.data.face import FaceInput
from omnihuman.data.plan.stored_frames import SUFFIX, StoredFrames
from omnihuman.data.reader.base import ReadOptions, load_readers
from omnihuman.data.record import Record
from omnihuman.data.steps import FrameSteps
from omnihuman.encoder.whisper import LogMel
from omnihuman.nn.frames import SquareFrames, pad_to_square

SIDE, BINS, GREY = 384, 128, (127, 127, 127)
"""Pixels of a frame, mel bins of the audio, and the padding: those of the 7B encoders."""

BARE, OFFICIAL, STACKED, OURS = "bare decode of every frame", "official", "stacked", "ours"
STORED = f"{OURS}, stored frames (media=frames)"

Way = Callable[[Path, media.Header, int], Any]


def measure(config: DictConfig, overrides: Sequence[str]) -> Iterator[Table]:
    """Yield a table for every number of frames, of clips that are read on one thread.

    Raises:
        ValueError: there is no clip, a file is no video, or what we read differs from what is read in planes.
    """
    clips = list_clips(config)
    for num_frames in map(int, config.num_frames):
        ways = list_ways()
        check_equal(clips, num_frames, ways)
        with tempfile.TemporaryDirectory() as folder:
            ways[STORED] = partial(load_stored, store_frames(clips, num_frames, Path(folder)))
            seconds = measure_clips(clips, num_frames, int(config.repeats), ways)
            peaks = {}
            if config.peak:
                peaks = {name: measure_peak(way, clips[0], num_frames) for name, way in ways.items()}
        yield build_table(seconds, num_frames, peaks)


def list_clips(config: DictConfig) -> list[Path]:
    """Return the clips of the command line, or the first ones of the training data.

    Raises:
        ValueError: a clip does not exist, or the data has none.
    """
    if config.clips is not None:
        clips = [Path(str(clip)).expanduser() for clip in config.clips]
        missing = [str(clip) for clip in clips if not clip.is_file()]
        if missing or not clips:
            raise ValueError(f"clips={missing}: expected a list of files, such as clips=[a.mp4,b.mp4].")
        return clips
    clips = list(islice(iterate_videos(config), int(config.num_clips)))
    if not clips:
        raise ValueError("the data has no video; name files by clips=[a.mp4,b.mp4].")
    return clips


def iterate_videos(config: DictConfig) -> Iterator[Path]:
    """Yield the files of the training data's videos, each one once."""
    files = set[Path]()
    for _, entry in build(config.data).read_entries("train"):
        record = entry if isinstance(entry, Record) else entry[1]
        if isinstance(record, BadSample) or record.kind != "video" or record.file in files:
            continue
        files.add(record.file)
        yield record.file


def list_ways() -> dict[str, Way]:
    """Return the ways by name; the official one if decord is installed."""
    ways: dict[str, Way] = {}
    if find_spec("decord"):
        pixels = transformers.models.siglip.SiglipImageProcessorPil(size={"height": SIDE, "width": SIDE})
        ways[OFFICIAL] = partial(load_official, pixels, transformers.WhisperFeatureExtractor(feature_size=BINS))
    return ways | {
        BARE: decode_all,
        STACKED: load_stacked,
        OURS: load_ours,
        f"{OURS}, with the probe of the header": partial(load_ours, is_probed=False),
        f"{OURS}, data.exact=false": partial(load_ours, exact=False),
    }


def load_official(pixels: Any, mel: Any, path: Path, header: media.Header, num_frames: int) -> Any:
    """HumanOmni: decord, Pillow's square with grey, SigLIP's processor, decord's audio, Whisper's extractor."""
    decord: Any = import_module("decord")  # no dependency of ours
    reader = decord.VideoReader(str(path), num_threads=1)
    frames = reader.get_batch(uniform_indices(len(reader), num_frames)).asnumpy()
    squares = []
    for frame in frames:
        height, width = frame.shape[:2]
        square = Image.new("RGB", (max(height, width),) * 2, GREY)
        square.paste(Image.fromarray(frame), ((max(height, width) - width) // 2, (max(height, width) - height) // 2))
        squares.append(square)
    values = pixels(squares, return_tensors="pt")["pixel_values"]
    if not header.has_audio:
        return values, None
    waveform = decord.AudioReader(str(path), sample_rate=media.SAMPLE_RATE, mono=True)[:].asnumpy()[0]
    return values, mel(waveform, sampling_rate=media.SAMPLE_RATE, return_tensors="pt")["input_features"]


def load_ours(path: Path, header: media.Header, num_frames: int, *, exact: bool = True, is_probed: bool = True) -> Any:
    """Frames become squares while they are decoded, as in the loader."""
    header = header if is_probed else media.probe(path)
    record = Record("1", path, "video", (), ("video", "audio"))
    readers = load_readers(ReadOptions(num_frames, FaceInput(), exact=exact))
    transform = SquareFrames(SIDE)
    take = FrameSteps(record, readers, [("frames", transform)])
    clip = media.read_clip(record, header, num_frames, header.num_samples(), 60.0, "midpoints", take)
    value = readers["frames"].read(record, clip)
    frames, _ = readers["frames"].to_signal(value, transform, torch.zeros(1, 3, SIDE, SIDE, dtype=torch.uint8))
    return frames, None if clip.waveform is None else LogMel(BINS)(clip.waveform)


def store_frames(clips: Sequence[Path], num_frames: int, folder: Path) -> dict[Path, tuple[Path, media.Header]]:
    """Write the file of each clip as ``omnihuman index media=frames`` does, and return these with their headers."""
    stored = {}
    for number, clip in enumerate(clips):
        record = Record("1", clip, "video", (), ("video", "audio"))
        file = folder / f"{number}{SUFFIX}"
        file.write_bytes(StoredFrames(num_frames, SIDE).encode(record, media.probe(clip), 60.0))
        stored[clip] = (file, media.probe(file))
    return stored


def load_stored(
    stored: Mapping[Path, tuple[Path, media.Header]], path: Path, header: media.Header, num_frames: int
) -> Any:
    """The same from the stored frames; JPEG changes their values a little."""
    return load_ours(*stored[path], num_frames)


def load_stacked(path: Path, header: media.Header, num_frames: int) -> Any:
    """The same in planes: all frames of the file are stacked, padded and resized at once."""
    planes: list[Tensor] = []

    def take(frame: Any) -> Tensor:
        image: Tensor = frame.image.contiguous()
        planes.append(image)
        return image

    clip = media.read_file(path, num_frames, header.num_samples(), (0.0, None), header, 60.0, "midpoints", take)
    frames = pad_to_square(torch.stack(clip.steps))
    squares = F.interpolate(frames, (SIDE, SIDE), mode="bicubic", antialias=True)
    return squares, None if clip.waveform is None else LogMel(BINS)(clip.waveform)


def decode_all(path: Path, header: media.Header, num_frames: int) -> int:
    """Decode every frame and nothing else."""
    with av.open(str(path)) as container:
        container.streams.video[0].thread_type = "NONE"
        return sum(1 for _ in container.decode(video=0))


def check_equal(clips: Sequence[Path], num_frames: int, ways: Mapping[str, Way]) -> None:
    """Check that our frames equal those that are stacked, padded and resized at once, bit for bit.

    Raises:
        ValueError: a file is no video, or its frames differ.
    """
    for clip in clips:
        header = media.probe(clip)
        if not header.num_frames:
            raise ValueError(f"{clip}: expected a video.")
        frames = [ways[name](clip, header, num_frames)[0] for name in (OURS, STACKED)]
        if not torch.equal(*frames):
            raise ValueError(f"{clip}: the frames of our way differ from those that are resized at once.")


def measure_clips(clips: Sequence[Path], num_frames: int, repeats: int, ways: Mapping[str, Way]) -> Seconds:
    """Return the median CPU seconds of every way for every clip; all ways take turns, clip by clip."""
    seconds: Seconds = {name: [] for name in ways}
    for clip in clips:
        header = media.probe(clip)
        turns = measure_in_turns({name: partial(way, clip, header, num_frames) for name, way in ways.items()}, repeats)
        for name, median in take_medians(turns).items():
            seconds[name].append(median)
    return seconds


def measure_peak(way: Way, clip: Path, num_frames: int) -> float:
    """Return the MB by which the memory of a process grows at most while it loads a clip."""
    header = media.probe(clip)
    way(clip, header, 1)
    receiver, sender = os.pipe()
    child = os.fork()
    if not child:
        before = read_status("VmRSS")
        way(clip, header, num_frames)
        os.write(sender, str(read_status("VmHWM") - before).encode())
        os._exit(0)
    os.waitpid(child, 0)
    return int(os.read(receiver, 99)) / 1000


def read_status(key: str) -> int:
    """Return a line of the status of this process, in KiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key))


def build_table(seconds: Seconds, num_frames: int, peaks: Mapping[str, float]) -> Table:
    """Return mean ms per clip, the ratios of the sums to each reference, and the median ratio of a clip."""
    references = [name for name in (OFFICIAL, BARE) if name in seconds]
    columns = ["way", "ms"]
    for reference in references:
        columns += [f"{reference} / way", f"{reference} / way, median clip"]
    table = Table(f"{num_frames} frames, {len(seconds[BARE])} clips, CPU", columns)
    if peaks:
        table.columns = [*columns, "MB more"]
    for name, values in seconds.items():
        row: list[Any] = [name, 1000 * statistics.mean(values)]
        for reference in references:
            ratios = np.array(seconds[reference]) / np.array(values)
            row += [sum(seconds[reference]) / sum(values), float(np.median(ratios))]
        table.rows.append([*row, peaks[name]] if peaks else row)
    return table
