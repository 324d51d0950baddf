"""The data of a run: mixture, views, validation, exact resume, ranks, quarantine."""

import gc
import json
import os
import re
import time
from collections import Counter
from collections.abc import Callable, Iterable
from itertools import chain
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import pytest
import torch

from omnihuman.data import media
from omnihuman.data.ceiling import TooManySkippedError
from omnihuman.data.module import OmniData
from omnihuman.data.notices import Notices
from omnihuman.data.packing import MicroBatch
from omnihuman.data.record import BadSample
from omnihuman.modality import View
from omnihuman.source.json import JsonSource
from omnihuman.source.jsonl import JsonlSource
from omnihuman.types import Batch, Batches

from .conftest import write_clip, write_records


def number_ids(prefix: str, count: int) -> list[str]:
    return [f"{prefix}{number}" for number in range(count)]


def step_ids(step: Batches) -> list[str]:
    ids: list[str] = []
    for batch in step:
        ids += [meta["id"] for meta in batch.meta]
    return ids


def list_steps(steps: Iterable[Batches]) -> list[list[str]]:
    """Return the ids of every step."""
    return [step_ids(step) for step in steps]


def list_ids(steps: Iterable[Batches]) -> list[str]:
    """Return the ids of all steps in one list."""
    return list(chain.from_iterable(list_steps(steps)))


def list_skipped(steps: Iterable[Batches]) -> list[Any]:
    """Return the descriptions of the skipped samples."""
    return list(chain.from_iterable(batch.skipped for batch in chain.from_iterable(steps)))


def load_epoch(loader: Any, epoch: int) -> list[Batches]:
    """Return the steps of an epoch, which is set as Lightning does."""
    loader.sampler.set_epoch(epoch)
    return list(loader)


def load_epochs(loader: Any, epochs: Iterable[int]) -> list[Batches]:
    steps = []
    for epoch in epochs:
        steps += load_epoch(loader, epoch)
    return steps


def is_equal(step: Batches, other: Batches) -> bool:
    return all(is_equal_batch(first, second) for first, second in zip(step, other, strict=True))


def is_equal_batch(batch: Batch, other: Batch) -> bool:
    pairs = [(batch.input_ids, other.input_ids), (batch.labels, other.labels)]
    for name, signal in batch.signals.items():
        pairs.append((signal.values, other.signals[name].values))
        pairs.append((signal.mask, other.signals[name].mask))
    is_same = batch.bounds == other.bounds and batch.step_targets == other.step_targets
    return is_same and all(torch.equal(a, b) for a, b in pairs)


def test_an_epoch_uses_every_record_once(build_data: Any) -> None:
    loader = build_data().train_dataloader()
    epochs = [list_steps(load_epoch(loader, epoch)) for epoch in range(3)]
    for steps in epochs:
        assert Counter(chain(*steps)) == Counter(number_ids("r", 13))
    assert epochs[0] != epochs[1] != epochs[2]
    assert list_steps(build_data().train_dataloader()) == epochs[0]
    assert list_steps(build_data(seed=7).train_dataloader()) != epochs[0]


def test_the_weight_of_a_file_sets_how_often_its_records_are_used(build_data: Any, tmp_path: Path) -> None:
    half, twice = write_records(tmp_path / "a.jsonl", 6, "a"), write_records(tmp_path / "b.jsonl", 3, "b")
    data = build_data([{"path": half, "weight": 0.5}, {"path": twice, "weight": 2.0}])
    loader = data.train_dataloader()
    epochs = [Counter(list_ids(load_epoch(loader, epoch))) for epoch in range(4)]
    for counts in epochs:
        assert sum(counts.values()) == 9
        assert [counts[name] for name in ("b0", "b1", "b2")] == [2, 2, 2]
    assert len({frozenset(counts) for counts in epochs}) > 1, "another half in another epoch"
    assert data.count_planned(3) == 9 and data.count_planned(4) == 13


def test_a_mixture_takes_paths_and_sources(build_data: Any, media_root: Path, tmp_path: Path) -> None:
    files = [write_records(tmp_path / f"{name}.jsonl", 2, name) for name in "abc"]
    more = tmp_path / "d.json"
    more.write_text(json.dumps([json.loads(line) for line in Path(files[2]).read_text().splitlines()]))
    sources = [JsonlSource(files[1], media_root), {"source": JsonSource(more, media_root), "weight": 2}]
    data = build_data([files[0], *sources], val_records=JsonlSource(files[1], media_root))
    ids = [data.train_samples.planned[index].record.id for index in data.order(0)]
    assert Counter(ids) == {"a0": 1, "a1": 1, "b0": 1, "b1": 1, "c0": 2, "c1": 2}
    assert [planned.record.id for planned in data.val_samples.planned] == ["b0", "b1"]


def test_an_invalid_entry_raises(build_data: Any, tmp_path: Path) -> None:
    path = write_records(tmp_path / "a.jsonl", 6)
    source = JsonlSource(path, tmp_path)
    for entry in (
        {"path": path, "wieght": 1},
        {"path": path, "weight": -1},
        {"weight": 1},
        {"path": path, "source": source},
        {"source": {"path": path}},
    ):
        with pytest.raises(ValueError, match=r"data\.records"):
            build_data([entry])
    with pytest.raises(ValueError, match=r"train\.jsonl' needs data\.source"):
        build_data(source=None)


def test_tasks_and_views_select_samples(build_data: Any, tmp_path: Path) -> None:
    files = [write_records(tmp_path / f"{task}.jsonl", 2, task[0], task=task) for task in ("sad", "glad")]
    data = build_data(files, tasks=["glad"], views=["VAF", "video", "A"])
    ids = [planned.record.id for planned in data.train_samples.planned]
    assert ids == ["g0", "g0#VF", "g0#A", "g1", "g1#VF", "g1#A"]
    with pytest.raises(ValueError, match=r"data\.views"):
        build_data(files, views=["smell"])


@pytest.mark.parametrize(
    ("workers", "num_batches"),
    [(2, 3), (0, 4), pytest.param(2, 4, marks=pytest.mark.slow), pytest.param(0, 3, marks=pytest.mark.slow)],
)
def test_resume_is_exact(workers: int, num_batches: int, build_data: Any) -> None:
    batches = load_epochs(build_data().train_dataloader(), [0, 1])
    length = len(batches) // 2
    num_yielded = min(num_batches, length)
    first = build_data(num_workers=workers).train_dataloader()
    iterator = iter(first)
    for number in range(num_yielded):
        assert is_equal(next(iterator), batches[number]), "the number of workers does not change batches"
    state = first.state_dict()
    assert state == {"epoch": 0, "steps": num_yielded} and json.dumps(state)
    resumed = build_data(num_workers=workers).train_dataloader()
    resumed.load_state_dict(state)
    remaining = load_epochs(resumed, [1] if num_yielded == length else [0, 1])
    assert len(remaining) == 2 * length - num_yielded
    for batch, expected in zip(remaining, batches[num_yielded:], strict=True):
        assert is_equal(batch, expected)


def test_every_iterator_starts_at_the_first_step(build_data: Any) -> None:
    loader = build_data().train_dataloader()
    first = next(iter(loader))
    assert is_equal(next(iter(loader)), first), "an iterator that was not exhausted leaves no state behind"
    assert len(list_ids(loader)) == 13
    assert loader.state_dict() == {"epoch": 0, "steps": len(loader)}


def test_the_global_random_state_does_not_change(build_data: Any) -> None:
    loader = build_data().train_dataloader()
    torch.manual_seed(3)
    before = torch.get_rng_state()
    list(loader)
    assert torch.equal(torch.get_rng_state(), before)


def build_trainer(world: int, rank: int) -> SimpleNamespace:
    return SimpleNamespace(world_size=world, global_rank=rank)


def test_two_ranks_share_each_step(build_data: Any) -> None:
    steps = list_steps(build_data(max_tokens=10_000).train_dataloader())
    ranks = []
    for rank in (0, 1):
        data = build_data(max_tokens=10_000)
        data.trainer = build_trainer(world=2, rank=rank)
        ranks.append(list_steps(data.train_dataloader()))
    assert [len(rank) for rank in ranks] == [len(steps)] * 2, "one micro-batch per step and rank"
    for step, first, second in zip(steps, *ranks, strict=True):
        assert sorted(first + second) == sorted(step) and not set(first) & set(second)


def test_micro_batches_fit_max_tokens_in_every_epoch(build_data: Any) -> None:
    data = build_data(max_tokens=450)
    steps = load_epochs(data.train_dataloader(), range(3))
    assert max(batch.input_ids.shape[1] for batch in chain.from_iterable(steps)) <= 450
    assert max(map(len, steps)) > 1


def test_a_sample_that_fits_into_no_micro_batch_raises(build_data: Any) -> None:
    with pytest.raises(ValueError, match=r"packed sequence .*\b30\b.*recipe\.max_tokens"):
        build_data(max_tokens=30, max_length=700).check_lengths()


def test_a_malformed_line_raises_or_is_skipped(build_data: Any, tmp_path: Path) -> None:
    records = write_records(tmp_path / "bad.jsonl", 4, broken=2)
    with pytest.raises(BadSample, match=r"bad\.jsonl:2: malformed JSON"):
        _ = build_data(records).train_samples
    samples = build_data(records, on_bad_sample="skip").train_samples
    assert len(samples) == 4
    assert [(skip["id"], skip["reason"]) for skip in samples.skipped] == [(f"{records}:2", "malformed_json")]


@pytest.mark.parametrize("workers", [0, 1])
def test_a_worker_raises_or_skips_with_name_and_reason(workers: int, build_data: Any, tmp_path: Path) -> None:
    records = write_records(tmp_path / "cut.jsonl", 2, video="cut_front.mp4", end=None)
    with pytest.raises(BadSample, match=r"cut\.jsonl:.*cut_front\.mp4") as caught:
        list(build_data(records, num_workers=workers).train_dataloader())
    assert caught.value.reason == "truncated"
    skipped = list_skipped(build_data(records, num_workers=workers, on_bad_sample="skip").train_dataloader())
    assert sorted(skip["id"] for skip in skipped) == ["r0", "r1"]


@pytest.mark.parametrize(
    ("act", "timeout", "error"),
    [(lambda: time.sleep(1), 0.2, TimeoutError), (lambda: os.kill(os.getpid(), 9), 60.0, ChildProcessError)],
)
def test_a_worker_that_hangs_or_dies_is_explained(
    act: Callable[[], None], timeout: float, error: type[Exception], build_data: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that does not answer cannot be interrupted by the timeout of a file."""
    data = build_data(num_workers=1, batch_size=1)
    _ = data.train_samples
    monkeypatch.setattr("omnihuman.data.media.read_clip", lambda *args: act())
    loader = data.train_dataloader()
    loader.timeout = timeout
    with pytest.raises(error, match=r"data\.(timeout|num_workers)"):
        next(iter(loader))


def test_quarantined_samples_are_skipped_by_the_next_run(build_data: Any, tmp_path: Path) -> None:
    bad = write_records(tmp_path / "cut.jsonl", 1, "cut", video="cut_front.mp4", end=None)
    records = [bad, write_records(tmp_path / "a.jsonl", 2)]
    options = {"on_bad_sample": "quarantine", "quarantine_folder": str(tmp_path / "q")}
    assert len(list_skipped(build_data(records, **options).train_dataloader())) == 1
    data = build_data(records, **options)
    assert [skip["reason"] for skip in data.train_samples.skipped] == ["quarantined"]
    assert sorted(list_ids(data.train_dataloader())) == ["r0", "r1"]
    lists = {file.name.partition("-")[0]: file.read_text().count("\n") for file in (tmp_path / "q").iterdir()}
    assert lists == {"cut": 1}, "each source has a list of its own"
    with pytest.raises(ValueError, match="quarantine_folder"):
        build_data(records, on_bad_sample="quarantine")


def test_a_resumed_run_has_the_samples_of_its_start(build_data: Any, tmp_path: Path) -> None:
    """The list of quarantine grows while a run trains."""
    late = write_records(tmp_path / "late.jsonl", 3, "late", video="../later.mp4")
    cut = write_records(tmp_path / "cut.jsonl", 3, "cut", video="cut_front.mp4", end=None)
    records = [write_records(tmp_path / "a.jsonl", 9), cut, late]
    options = {"on_bad_sample": "quarantine", "quarantine_folder": str(tmp_path / "q"), "val_records": records[0]}
    file = tmp_path / "excluded.jsonl"
    data = build_data(records, **options)
    data.freeze(file, Notices(None), is_resumed=False)
    state, order = data.state_dict(), data.order(0)
    assert list_skipped(data.train_dataloader()) and list((tmp_path / "q").iterdir())

    resumed = build_data(records, **options)
    resumed.freeze(file, Notices(None), is_resumed=True)
    resumed.load_state_dict(state)
    assert resumed.order(0).tolist() == order.tolist() and resumed.state_dict() == state
    assert Counter(skip["reason"] for skip in resumed.train_samples.skipped) == {"outside_root": 3}
    other_rank = build_data(records, **options)
    notices = Notices(tmp_path / "start", is_main=False)
    Notices(tmp_path / "start").publish("excluded", str(file))
    other_rank.freeze(file, notices, is_resumed=False)
    assert other_rank.state_dict() == state, "other processes read the list of the main one"

    restarted = build_data(records, **options)
    restarted.freeze(tmp_path / "new.jsonl", Notices(None), is_resumed=False)
    assert len(restarted.train_samples) == 9, "another run starts with the list as it is now"
    with pytest.raises(ValueError, match=r"checkpoint belongs to 12 .*the 9 of this run.*3 quarantined"):
        restarted.load_state_dict(state)


def test_a_view_that_was_skipped_does_not_exclude_the_other_views(build_data: Any, tmp_path: Path) -> None:
    records = write_records(tmp_path / "a.jsonl", 1)
    options = {"on_bad_sample": "skip", "views": ["VAF", "A"], "num_frames": 200, "max_tokens": 700}
    data = build_data(records, **options)
    data.freeze(tmp_path / "excluded.jsonl", Notices(None), is_resumed=False)
    assert [planned.record.id for planned in data.train_samples.planned] == ["r0#A"]
    resumed = build_data(records, **options)
    resumed.freeze(tmp_path / "excluded.jsonl", Notices(None), is_resumed=True)
    resumed.load_state_dict(data.state_dict())
    assert [skip["reason"] for skip in resumed.train_samples.skipped] == ["too_long"]


def test_too_many_skipped_samples_raise(build_data: Any, tmp_path: Path) -> None:
    bad = write_records(tmp_path / "gone.jsonl", 24, "gone", video="gone.mp4")
    records = [write_records(tmp_path / "a.jsonl", 50), bad]
    with pytest.raises(TooManySkippedError, match=r"24 of 74 samples.*data\.max_skipped=0\.2.*24 missing_file"):
        _ = build_data(records, on_bad_sample="skip").train_samples
    assert len(build_data(records, on_bad_sample="skip", max_skipped=0.5).train_samples) == 50
    with pytest.raises(TooManySkippedError, match=r"data\.val_records: 24 of 24"):
        _ = build_data(records[0], on_bad_sample="skip", val_records=bad).val_samples
    few = write_records(tmp_path / "few.jsonl", 2, "few", video="gone.mp4")
    with pytest.raises(TooManySkippedError, match=r"few\.jsonl: 2 of 2 samples"):
        _ = build_data(few, on_bad_sample="skip").train_samples
    with pytest.raises(ValueError, match=r"data\.max_skipped.*between 0 and 1, got 20"):
        build_data(records, max_skipped=20)


def test_validation_batches_are_the_same_every_time(build_data: Any, tmp_path: Path) -> None:
    assert build_data().val_dataloader() == []
    data = build_data(val_records=write_records(tmp_path / "val.jsonl", 6, "v"), val_limit=5)
    loader = data.val_dataloader()
    next(iter(loader))
    assert sorted(list_ids(loader)) == number_ids("v", 5)
    assert list_steps(loader) == list_steps(loader)


def test_prompts_have_the_same_questions_in_every_view(build_data: Any, tmp_path: Path) -> None:
    data = build_data(val_records=write_records(tmp_path / "val.jsonl", 5, "v", task="who"))
    options = {"needs": ["audio", "video"], "world": 2, "batch_size": 2}
    for view in (View("VAF"), View("VF"), View("A")):
        batches = []
        for rank in (0, 1):
            batches += data.prompts(["who"], view, rank=rank, **options)
        assert sorted(name.split("#")[0] for name in list_ids(zip(batches))) == number_ids("v", 5)
        answers = set()
        for batch in batches:
            answers |= {meta["answer"] for meta in batch.meta}
        assert answers == {f"Number {number}." for number in range(5)}
        for slot in ("video", "audio"):
            assert batches[0].signals[slot].mask.any().item() == (slot in view.slots)


def test_prompts_select_tasks_and_limit_the_number(build_data: Any, tmp_path: Path) -> None:
    data = build_data(val_records=write_records(tmp_path / "val.jsonl", 5, "v", task="who"))
    assert len(list_ids(zip(data.prompts(["who"], View("VF"), limit=3)))) == 3
    assert not list(data.prompts(["why"], View("VF")))
    assert not list(build_data().prompts(["who"], View("VF"))), "no validation records"


def test_prompts_skip_questions_without_the_needed_slots(build_data: Any, tmp_path: Path) -> None:
    val_records = write_records(tmp_path / "val.jsonl", 2, "v", task="who", video="silent.mp4")
    data = build_data(val_records=val_records, on_bad_sample="skip")
    for view in (View("VAF"), View("A")):
        assert not list(data.prompts(["who"], view, needs=["audio"]))


def test_an_invalid_single_question_raises_under_every_policy(build_data: Any, media_root: Path) -> None:
    data = build_data(on_bad_sample="skip")
    record = data.train_samples.planned[0].record
    samples = data.plan_question(record)
    assert len(samples.planned) == len(samples[MicroBatch((0,), 0)].meta) == 1
    invalid = type(record)("q", media_root / "empty.mp4", "video", record.messages, record.slots)
    with pytest.raises(BadSample, match=r"empty\.mp4"):
        data.plan_question(invalid)


def test_samples_before_connect_raise(tmp_path: Path) -> None:
    source = JsonlSource(write_records(tmp_path / "a.jsonl", 1), tmp_path)
    data = OmniData(source, str(tmp_path), num_frames=1, batch_size=1, max_tokens=9)
    with pytest.raises(RuntimeError, match="connect"):
        _ = data.train_samples


def _collect_garbage(frames: torch.Tensor) -> torch.Tensor:
    gc.collect()
    return frames.float().mean(dim=(2, 3))


def test_workers_do_not_free_ffmpeg_objects_of_their_parent(build_data: Any, connect_args: Any, tmp_path: Path) -> None:
    """A filter graph owns threads, which are not forked: a worker that frees it waits for them forever."""
    gc.collect()
    gc.disable()
    try:
        with av.open(str(write_clip(tmp_path / "a.mp4", num_frames=0, seconds=1))) as container:
            resampler = av.AudioResampler(format="fltp", layout="mono", rate=16000)
            cycle = [resampler, *map(resampler.resample, container.decode(audio=0))]
            cycle.append(cycle)
        del resampler, cycle
        data = build_data(num_workers=1, timeout=1.0)
        transforms, *rest = connect_args
        data.connect({**transforms, "video": ("frames", _collect_garbage)}, *rest)
        assert len(list_ids(data.train_dataloader())) == 13
    finally:
        gc.enable()


def test_a_template_that_differs_from_the_tokenizer_is_a_warning(
    build_data: Any, tokenizer: Any, caplog: pytest.LogCaptureFixture
) -> None:
    build_data()
    assert not caplog.records
    tokenizer.chat_template = "{{ messages[0]['content'] }}"
    build_data()
    assert re.search(r"chatml differs .*0 tokens", caplog.text)


def test_instructions_on_a_clip_share_a_decode(
    build_data: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = write_records(tmp_path / "a.jsonl", 12, start=0.0)
    options = {"batch_size": 6, "max_tokens": 8000, "sort_window": 2}
    alone, data = build_data(records, **options), build_data(records, group="clip", **options)
    decoded = list[str]()
    read_clip = media.read_clip
    monkeypatch.setattr(media, "read_clip", lambda record, *args: decoded.append(record.id) or read_clip(record, *args))
    expected, values = dict[str, torch.Tensor](), dict[str, torch.Tensor]()
    for source, content in ((alone, expected), (data, values)):
        for micro_batch in chain.from_iterable(source.plan_epoch(1, 0, 0)):
            batch = source.train_samples[micro_batch]
            content |= zip((meta["id"] for meta in batch.meta), batch.signals["video"].values, strict=True)
    assert values.keys() == expected.keys()
    assert all(torch.equal(frames, expected[name]) for name, frames in values.items())
    for world in (1, 2):
        for epoch in range(3):
            decoded.clear()
            steps = [data.plan_epoch(world, rank, epoch) for rank in range(world)]
            for micro_batch in chain.from_iterable(chain(*steps)):
                _ = data.train_samples[micro_batch]
            assert len(decoded) == len(steps[0]) == 2, "the two clips are in a step each"
    assert sorted(data.order(1).tolist()) == list(range(12))
    with pytest.raises(ValueError, match=r"data\.group=file: choose clip"):
        build_data(records, group="file")
