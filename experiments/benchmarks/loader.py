"""Compare the CPU time from file to input of the encoders with that of the official way.

python experiments/benchmarks/loader.py clips/*.mp4 --frames 8 32 --repeats 5

The official way needs decord (pip install decord); without it, the ratios are to a bare decode of every frame.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
import torch.nn.functional as F
import transformers
from PIL import Image
from torch import Tensor

from omnihuman.data import media
from omnihuman.data.decode.sampling import uniform_indices
from omnihuman.data.face import FaceInput
from omnihuman.data.reader.base import ReadOptions, load_readers
from omnihuman.data.record import Record
from omnihuman.data.steps import FrameSteps
from omnihuman.encoder.whisper import LogMel
from omnihuman.nn.frames import SquareFrames, pad_to_square

SIDE, BINS, GREY = 384, 128, (127, 127, 127)
Way = Callable[[Path, media.Header, int], Any]


def load_official(decord: Any, pixels: Any, mel: Any, path: Path, header: media.Header, num_frames: int) -> Any:
    """HumanOmni: decord, Pillow's square with grey, SigLIP's processor, decord's audio, Whisper's extractor."""
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
        return values
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


def load_stacked(path: Path, header: media.Header, num_frames: int) -> Any:
    """The same in planes: all frames of the file are stacked, padded and resized at once."""
    planes = []

    def take(frame: Any) -> Tensor:
        planes.append(frame.image.contiguous())
        return planes[-1]

    clip = media.read_file(path, num_frames, header.num_samples(), (0.0, None), header, 60.0, "midpoints", take)
    frames = pad_to_square(torch.stack(clip.steps))
    squares = F.interpolate(frames, (SIDE, SIDE), mode="bicubic", antialias=True)
    return squares, None if clip.waveform is None else LogMel(BINS)(clip.waveform)


def decode_all(path: Path, header: media.Header, num_frames: int) -> int:
    """Decode every frame and nothing else."""
    with av.open(str(path)) as container:
        container.streams.video[0].thread_type = "NONE"
        return sum(1 for _ in container.decode(video=0))


def list_ways() -> dict[str, Way]:
    """Return the ways by name; the first one is what the others are compared with."""
    ways: dict[str, Way] = {}
    try:
        import decord
    except ImportError:
        pass
    else:
        size = {"height": SIDE, "width": SIDE}
        pixels = transformers.models.siglip.SiglipImageProcessorPil(size=size)
        mel = transformers.WhisperFeatureExtractor(feature_size=BINS)
        ways["official"] = partial(load_official, decord, pixels, mel)
    return ways | {
        "bare decode": decode_all,
        "stacked": load_stacked,
        "ours": load_ours,
        "ours, with the probe": partial(load_ours, is_probed=False),
        "ours, exact=false": partial(load_ours, exact=False),
    }


def measure_seconds(clips: Sequence[Path], num_frames: int, repeats: int, ways: Mapping[str, Way]) -> dict[str, Any]:
    """Return the median CPU seconds of every way for every clip; all ways take turns, clip by clip."""
    headers = {clip: media.probe(clip) for clip in clips}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for clip in clips:
        runs: dict[str, list[float]] = {name: [] for name in ways}
        for number in range(repeats + 1):  # the first one warms up
            for name, way in ways.items():
                begin = time.process_time()
                way(clip, headers[clip], num_frames)
                if number:
                    runs[name].append(time.process_time() - begin)
        for name, values in runs.items():
            seconds[name].append(statistics.median(values))
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


def print_table(seconds: Mapping[str, list[float]], num_frames: int) -> None:
    """Print mean ms per clip, the ratio of the sums, and the median ratio of a clip."""
    reference = next(iter(seconds))
    print(f"\n{num_frames} frames, {len(seconds[reference])} clips\n")
    print(f"| way | ms | {reference} / way, sums | median clip |\n|---|---|---|---|")
    for name, values in seconds.items():
        ratios = np.array(seconds[reference]) / np.array(values)
        total = sum(seconds[reference]) / sum(values)
        print(f"| {name} | {1000 * statistics.mean(values):.0f} | {total:.2f} | {np.median(ratios):.2f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", nargs="+", type=Path)
    parser.add_argument("--frames", nargs="+", type=int, default=[32, 8])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--peak", action="store_true", help="print the largest memory of each way for the first clip")
    args = parser.parse_args()
    torch.set_num_threads(1)
    print(f"torch {torch.__version__}, transformers {transformers.__version__}, PyAV {av.__version__}, one thread")
    ways = list_ways()
    for num_frames in args.frames:
        print_table(measure_seconds(args.clips, num_frames, args.repeats, ways), num_frames)
    for name, way in ways.items() if args.peak else ():
        print(f"{name}: at most {measure_peak(way, args.clips[0], max(args.frames)):.0f} MB more")


if __name__ == "__main__":
    main()
