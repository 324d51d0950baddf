"""The data of a run: mixture, views, validation, exact resume, ranks, quarantine."""

import gc
import json
from collections import Counter
from itertools import chain
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import pytest
import torch

from omnihuman.data.module import OmniData
from omnihuman.data.plan import Row
from omnihuman.data.record import BadSample
from omnihuman.types import Batch

from .conftest import write_clip


def write(path: Path, count: int, prefix: str = "r", broken: int | None = None, **more: Any) -> str:
    """``count`` records about the same clips; line ``broken`` (from 1) is no JSON."""
    lines = []
    for number in range(count):
        question = {"from": "human", "value": "<video>\n<audio>\nWho?" + " Well?" * (number % 4)}
        turns = [question, {"from": "gpt", "value": f"Number {number}."}]
        entry = {"id": f"{prefix}{number}", "video": ("talk.mp4", "late.mp4")[number % 2], "conversations": turns}
        lines.append(json.dumps(entry | {"start": 0.1 * (number % 5), "end": 1.0} | more))
    if broken is not None:
        lines.insert(broken - 1, "{broken")
    path.write_text("\n".join(lines))
    return str(path)


@pytest.fixture
def make(media_root: Path, tmp_path: Path, model_side: Any) -> Any:
    def made(records: Any = None, **options: Any) -> OmniData:
        records = write(tmp_path / "train.jsonl", 13) if records is None else records
        data = OmniData(
            records,
            str(media_root),
            **({"num_frames": 2, "batch_size": 4, "max_tokens": 700, "num_workers": 0} | options),
        )
        data.connect(*model_side)
        return data

    return made


def ids(batches: Any) -> list[list[str]]:
    return [[meta["id"] for meta in batch.meta] for batch in batches]


def in_epoch(loader: Any, epoch: int) -> list[Batch]:
    """The batches of an epoch, which Lightning announces like this."""
    loader.sampler.set_epoch(epoch)
    return list(loader)


def same(one: Batch, other: Batch) -> bool:
    pairs = [(one.input_ids, other.input_ids), (one.labels, other.labels), (one.bounds, other.bounds)]
    for name in one.signals:
        pairs += [(one.signals[name].values, other.signals[name].values)]
        pairs += [(one.signals[name].mask, other.signals[name].mask)]
    return all(torch.equal(a, b) for a, b in pairs) and one.step_targets == other.step_targets


def test_an_epoch_uses_every_record_once(make: Any) -> None:
    loader = make().train_dataloader()
    epochs = [ids(in_epoch(loader, epoch)) for epoch in range(3)]
    assert all(Counter(chain(*epoch)) == Counter(f"r{n}" for n in range(13)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]
    assert ids(make().train_dataloader()) == epochs[0]
    assert ids(make(seed=7).train_dataloader()) != epochs[0]


def test_a_mixture_has_its_weights(make: Any, tmp_path: Path) -> None:
    half, twice = write(tmp_path / "a.jsonl", 6, "a"), write(tmp_path / "b.jsonl", 3, "b")
    data = make([{"path": half, "weight": 0.5}, {"path": twice, "weight": 2.0}])
    loader = data.train_dataloader()
    epochs = [Counter(chain(*ids(in_epoch(loader, epoch)))) for epoch in range(4)]
    for epoch in epochs:
        assert sum(epoch.values()) == 9
        assert [epoch[f"b{n}"] for n in range(3)] == [2, 2, 2]
    assert len({frozenset(epoch) for epoch in epochs}) > 1, "another half in another epoch"
    assert data.planned(3) == 9 and data.planned(4) == 13
    for wrong in ({"path": half, "wieght": 1}, {"path": half, "weight": -1}, {"weight": 1}):
        with pytest.raises(ValueError, match=r"data\.records"):
            make([wrong])
    with pytest.raises(ValueError, match="no sample is left"):
        _ = make([{"path": half, "weight": 0}]).train_samples


def test_tasks_by_weight_are_used_so_often(make: Any, tmp_path: Path) -> None:
    """A mapping says how often; a task that it does not name is left out, a record without a task is used once."""
    write(tmp_path / "a.jsonl", 4, "a", task="emotion")
    write(tmp_path / "b.jsonl", 4, "b", task="face")
    write(tmp_path / "c.jsonl", 2, "c")
    write(tmp_path / "d.jsonl", 2, "d", task="body")
    files = [str(tmp_path / f"{name}.jsonl") for name in "abcd"]
    data = make(files, tasks={"emotion": 2, "face": 0.5})
    used = [Counter(data.train_samples.planned[index].record.id[0] for index in data.order(epoch)) for epoch in (0, 1)]
    assert used == [{"a": 8, "b": 2, "c": 2}] * 2
    with pytest.raises(ValueError, match="weight is 0 or more"):
        make(files, tasks={"emotion": -1})


def test_tasks_and_views_choose(make: Any, tmp_path: Path) -> None:
    files = [write(tmp_path / f"{task}.jsonl", 2, task[0], task=task) for task in ("sad", "glad")]
    data = make(files, tasks=["glad"], views=["video_audio", "video", "audio"])
    assert [p.record.id for p in data.train_samples.planned] == [
        "g0", "g0#video", "g0#audio", "g1", "g1#video", "g1#audio",
    ]  # fmt: skip
    with pytest.raises(ValueError, match="no sample is left"):
        _ = make(files, tasks=["mad"]).train_samples
    with pytest.raises(ValueError, match=r"data\.views"):
        make(files, views=["smell"])


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("handed", [3, 4])
def test_resume_is_exact(workers: int, handed: int, make: Any) -> None:
    whole = make().train_dataloader()
    batches = [batch for epoch in range(2) for batch in in_epoch(whole, epoch)]
    length = len(batches) // 2
    first = make(num_workers=workers).train_dataloader()
    iterator = iter(first)
    for number in range(min(handed, length)):
        assert same(next(iterator), batches[number]), "workers change nothing"
    state = first.state_dict()
    assert state == {"epoch": 0, "handed": min(handed, length)} and json.dumps(state)
    later = make(num_workers=workers).train_dataloader()
    later.load_state_dict(state)
    to_come = [1] if state["handed"] == length else [0, 1]
    rest = [batch for epoch in to_come for batch in in_epoch(later, epoch)]
    assert len(rest) == 2 * length - state["handed"]
    assert all(same(a, b) for a, b in zip(rest, batches[state["handed"] :], strict=True))


def test_a_pass_begins_at_the_first_batch(make: Any) -> None:
    loader = make().train_dataloader()
    first = next(iter(loader))
    assert same(next(iter(loader)), first), "a pass that was broken off is no reason to go on in the middle"
    assert len(list(chain(*ids(loader)))) == 13
    assert loader.state_dict() == {"epoch": 0, "handed": len(loader)}


def test_the_global_generator_is_left_alone(make: Any) -> None:
    loader = make().train_dataloader()
    torch.manual_seed(3)
    before = torch.get_rng_state()
    list(loader)
    assert torch.equal(torch.get_rng_state(), before)


def test_two_ranks_share_each_step(make: Any) -> None:
    alone = make(max_tokens=10_000).train_dataloader()
    shares = []
    for rank in (0, 1):
        data = make(max_tokens=10_000)
        data.trainer = SimpleNamespace(world_size=2, global_rank=rank, max_epochs=2, max_steps=-1)
        shares.append(ids(data.train_dataloader()))
    steps = ids(alone)
    assert [len(share) for share in shares] == [len(steps)] * 2, "one row a step and rank"
    for step, left, right in zip(steps, *shares, strict=True):
        assert sorted(left + right) == sorted(step) and not set(left) & set(right)


def test_rows_hold_their_budget_in_every_epoch(make: Any) -> None:
    data = make(max_tokens=450)
    loader = data.train_dataloader()
    for epoch in range(3):
        assert all(batch.input_ids.shape[1] <= 450 for batch in in_epoch(loader, epoch))
    assert data.rows_per_step(1, epochs=50) >= data.rows_per_step(1)
    short = make(max_tokens=450)
    short._rows = {(1, epoch): 1 for epoch in range(3)}
    with pytest.raises(ValueError, match=r"raise stage\.max_tokens or lower stage\.batch_size"):
        short.trainer = SimpleNamespace(world_size=1, global_rank=0, max_epochs=9, max_steps=-1)
        short.train_dataloader()
    with pytest.raises(ValueError, match=r"a packed row holds 30.*stage\.max_tokens"):
        make(max_tokens=30, max_length=700).train_dataloader()


def test_a_malformed_line_is_skipped_and_counted(make: Any, tmp_path: Path) -> None:
    records = write(tmp_path / "bad.jsonl", 4, broken=2)
    with pytest.raises(BadSample, match=r"bad\.jsonl:2: malformed JSON"):
        _ = make(records).train_samples
    samples = make(records, on_bad_sample="skip").train_samples
    assert len(samples) == 4
    assert [(skip["id"], skip["reason"]) for skip in samples.skipped] == [(f"{records}:2", "malformed_json")]


@pytest.mark.parametrize("workers", [0, 1])
def test_a_bad_file_in_a_worker_keeps_its_name(workers: int, make: Any, tmp_path: Path) -> None:
    records = write(tmp_path / "cut.jsonl", 2, video="cut_front.mp4", end=None)
    with pytest.raises(BadSample, match=r"cut\.jsonl:.*cut_front\.mp4") as caught:
        list(make(records, num_workers=workers).train_dataloader())
    assert caught.value.reason == "truncated"
    skipping = make(records, num_workers=workers, on_bad_sample="skip").train_dataloader()
    assert sorted(skip["id"] for batch in skipping for skip in batch.skipped) == ["r0", "r1"]


def test_quarantine_is_left_out_at_the_next_set_up(make: Any, tmp_path: Path) -> None:
    records = [write(tmp_path / "cut.jsonl", 1, "cut", video="cut_front.mp4", end=None), write(tmp_path / "a.jsonl", 2)]
    options = {"on_bad_sample": "quarantine", "quarantine_file": str(tmp_path / "q.jsonl")}
    assert [len(batch.skipped) for batch in make(records, **options).train_dataloader()] == [1]
    again = make(records, **options)
    assert [skip["reason"] for skip in again.train_samples.skipped] == ["quarantined"]
    assert sorted(chain(*ids(again.train_dataloader()))) == ["r0", "r1"]
    with pytest.raises(ValueError, match="quarantine_file"):
        make(records, on_bad_sample="quarantine")


def test_validation_starts_at_the_same_sample_every_time(make: Any, tmp_path: Path) -> None:
    assert make().val_dataloader() == []
    data = make(val_records=write(tmp_path / "val.jsonl", 6, "v"), val_limit=5)
    loader = data.val_dataloader()
    next(iter(loader))
    assert sorted(chain(*ids(loader))) == [f"v{n}" for n in range(5)]
    assert ids(loader) == ids(loader)


def test_prompts_ask_the_same_questions_through_every_modal(make: Any, tmp_path: Path) -> None:
    val = write(tmp_path / "val.jsonl", 5, "v", task="who")
    data = make(val_records=val)
    for modal in ("video_audio", "video", "audio"):
        shares = [
            list(data.prompts(["who"], modal, needs=["audio", "video"], rank=r, world=2, batch=2)) for r in (0, 1)
        ]
        asked = [meta for share in shares for batch in share for meta in batch.meta]
        assert sorted(meta["id"].split("#")[0] for meta in asked) == [f"v{n}" for n in range(5)]
        assert {meta["answer"] for meta in asked} == {f"Number {n}." for n in range(5)}
        signals = shares[0][0].signals
        assert [signals[slot].mask.any().item() for slot in ("video", "audio")] == [
            s in modal for s in ("video", "audio")
        ]
    assert len(list(chain(*ids(data.prompts(["who"], "video", limit=3))))) == 3
    assert not list(data.prompts(["why"], "video")) and not list(make().prompts(["who"], "video"))


def test_prompts_leave_out_what_cannot_be_compared(make: Any, tmp_path: Path) -> None:
    val = write(tmp_path / "val.jsonl", 2, "v", task="who", video="silent.mp4")
    data = make(val_records=val, on_bad_sample="skip")
    assert [len(list(data.prompts(["who"], modal, needs=["audio"]))) for modal in ("video_audio", "audio")] == [0, 0]


def test_one_question_whatever_the_policy(make: Any, media_root: Path) -> None:
    data = make(on_bad_sample="skip")
    record = data.train_samples.planned[0].record
    samples = data.question(record)
    assert len(samples.planned) == len(samples[Row((0,), 0)].meta) == 1
    broken = type(record)("q", media_root / "empty.mp4", "video", record.messages, record.slots)
    with pytest.raises(BadSample, match=r"empty\.mp4"):
        data.question(broken)


def test_without_a_model_there_are_no_samples(tmp_path: Path) -> None:
    data = OmniData(write(tmp_path / "a.jsonl", 1), str(tmp_path), num_frames=1, batch_size=1, max_tokens=9)
    with pytest.raises(RuntimeError, match="connect"):
        _ = data.train_samples


def _collecting(frames: torch.Tensor) -> torch.Tensor:
    gc.collect()
    return frames.float().mean(dim=(2, 3))


def test_workers_leave_their_parents_ffmpeg_objects_alone(make: Any, model_side: Any, tmp_path: Path) -> None:
    """Garbage of the parent that holds threads, such as a filter graph, must not be freed in a forked worker."""
    gc.collect()
    gc.disable()
    try:
        with av.open(str(write_clip(tmp_path / "a.mp4", frames=0, seconds=1))) as container:
            resampler = av.AudioResampler(format="fltp", layout="mono", rate=16000)
            cycle = [resampler, *map(resampler.resample, container.decode(audio=0))]
            cycle.append(cycle)
        del resampler, cycle
        data = make(num_workers=1, timeout=1.0)
        transforms, layouts, tokenizer = model_side
        data.connect({**transforms, "video": ("frames", _collecting)}, layouts, tokenizer)
        assert len(list(chain(*ids(data.train_dataloader())))) == 13
    finally:
        gc.enable()
