"""Gaps of audio are counted over samples and survive a checkpoint."""

from omnihuman.data.collate import Packable, pack
from omnihuman.training.gaps import GapCounter


def test_gaps_are_counted_and_restored() -> None:
    counter = GapCounter()
    samples = [Packable({}, [1], [1], {"audio_gaps": gaps}) for gaps in ([0.5, 1.0], [], [2.0])]
    counter.on_train_batch_end(None, None, None, pack(samples, {}, step_targets=3), 0)
    assert counter.totals() == {"samples": 2, "gaps": 3, "seconds": 3.5}
    restored = GapCounter()
    restored.load_state_dict(counter.state_dict())
    assert restored.totals() == counter.totals()
