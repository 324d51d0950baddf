import pytest
from omnihuman.training.supervised import Supervised


def test_a_checkpoint_names_the_way_to_load_the_run() -> None:
    with pytest.raises(ValueError, match=r"runs/nano/x/weights\.safetensors: omnihuman\.load\('runs/nano/x'\)"):
        Supervised.load_from_checkpoint("runs/nano/x/checkpoints/step=3.ckpt")
