"""Frame sampling: the indices of the official code, and frames, counts and seconds that agree with them."""

from pathlib import Path

import pytest
import torch

from omnihuman.data.decode.sampling import Sampling, count_frames, count_in_span, select_indices
from omnihuman.data.media import probe, read_clip
from omnihuman.data.record import Record
from tests.inference.test_prompting import decode_frames, write_clip

OFFICIAL: dict[tuple[int, int, Sampling], list[int]] = {
    # np.linspace(0, n - 1, N, dtype=int) of LLaVA-OneVision's tutorial
    (100, 8, "ends"): [0, 14, 28, 42, 56, 70, 84, 99],
    (25, 8, "ends"): [0, 3, 6, 10, 13, 17, 20, 24],
    (3, 4, "ends"): [0, 0, 1, 2],
    (100, 1, "ends"): [0],
    # get_index of VideoChat2's notebook, whose np.round takes the even one of two
    (100, 8, "steps"): [6, 18, 31, 43, 56, 68, 80, 93],
    (25, 8, "steps"): [1, 4, 7, 10, 13, 16, 19, 22],
    (3, 4, "steps"): [0, 0, 1, 2],
    # frame_sample of HumanOmni
    (100, 8, "midpoints"): [6, 19, 31, 43, 56, 68, 80, 93],
    # range(0, n, round(fps)) of LLaVA-OneVision's training, linspace above frames_upbound
    (100, 8, "fps"): [0, 25, 50, 75],
    (201, 8, "fps"): [0, 28, 57, 85, 114, 142, 171, 200],
    (10, 8, "fps"): [0],
}


@pytest.mark.parametrize("case", OFFICIAL, ids=lambda case: f"{case[2]} {case[1]} of {case[0]}")
def test_indices_are_the_official_ones(case: tuple[int, int, Sampling]) -> None:
    count, limit, sampling = case
    num_frames = count_frames(count, limit, sampling, 25.0)
    assert select_indices(count, num_frames, sampling, 25.0) == OFFICIAL[case]


def test_frames_of_a_span() -> None:
    assert count_in_span(100, 25.0, (0.0, None)) == (0, 100)
    assert count_in_span(100, 25.0, (0.98, 2.0)) == (25, 25)
    assert count_in_span(100, 25.0, (9.0, None)) == (99, 1)
    assert count_in_span(100, 29.97, (1.0, 2.0)) == (30, 30)


@pytest.mark.parametrize(("sampling", "limit"), [("ends", 5), ("steps", 5), ("fps", 8), ("fps", 2)])
@pytest.mark.parametrize("span", [(0.0, None), (1.0, 3.5)])
def test_decoded_frames_are_those_of_the_header(
    tmp_path: Path, sampling: Sampling, limit: int, span: tuple[float, float | None]
) -> None:
    """The plan, which knows the header only, has the frames that are decoded."""
    file = write_clip(tmp_path / "clip.mp4", 100)
    header = probe(file)
    first, count = count_in_span(header.num_frames, header.fps, span)
    num_frames = count_frames(count, limit, sampling, header.fps)
    indices = [first + index for index in select_indices(count, num_frames, sampling, header.fps)]
    record = Record("a", file, "video", (("user", "<video>"), ("assistant", "")), ("video",), *span)
    clip = read_clip(record, header, num_frames, 0, sampling=sampling)
    assert clip.frames is not None
    assert [round(time * header.fps) for time in clip.times] == indices
    expected = [torch.from_numpy(decode_frames(file)[index]).permute(2, 0, 1) for index in indices]
    assert (clip.frames.int() - torch.stack(expected).int()).abs().max() <= 2
