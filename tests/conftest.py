"""Fixtures of all tests: a tiny tokenizer, a small corpus, and model folders of experiments."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from omnihuman.build import build, compose_config
from omnihuman.corpus.world import build_scenes
from omnihuman.corpus.write import MARKER, VERSION, write_scene
from omnihuman.training.chain import list_stages
from omnihuman.training.runs import build_run
from omnihuman.training.weights import save_weights

SPECIAL_TOKENS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]"]


@pytest.fixture(scope="session")
def tokenizer_folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the folder of a byte-level BPE tokenizer, in the layout of the hub."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=SPECIAL_TOKENS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(["the person is happy and waves"] * 4, trainer)
    folder = tmp_path_factory.mktemp("tokenizer")
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<|endoftext|>",
        eos_token="<|im_end|>",
        cls_token="[CLS]",
        sep_token="[SEP]",
        unk_token="[UNK]",
        mask_token="[MASK]",
    )
    fast.save_pretrained(folder)
    return str(Path(folder))


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a few scenes that passes for the built-in corpus: media, ``train.json`` and ``val.json``.

    All workers share it, with the features that their runs compute.
    """
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    root = folder / "corpus"
    with FileLock(f"{root}.lock"):
        if not (root / MARKER).is_file():
            write_corpus(root)
    return root


def write_corpus(root: Path) -> None:
    """Write a few scenes, and the marker at last."""
    (root / "media").mkdir(parents=True)
    scenes = build_scenes(0)
    for split, step in (("train", 25), ("val", 12)):
        records = []
        for scene in [scene for scene in scenes if scene.split == split][::step]:
            records += write_scene(scene, str(root), 0)
        (root / f"{split}.json").write_text(json.dumps(records))
    (root / MARKER).write_text(json.dumps({"seed": 0, "version": VERSION, "files": {}}))


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return a function that writes the run folder of an experiment as it is before the first step."""
    runs = tmp_path_factory.mktemp("runs")
    folders: dict[str, Path] = {}

    def write(experiment: str) -> Path:
        if experiment not in folders:
            config = compose_config([f"+experiment={experiment}", f"runs={runs}", "random_weights=false"])
            run, model = build_run(config), build(config.model)
            config.stages = list_stages(experiment)
            run.open(config)
            names = [name for name, _ in model.named_parameters() if name.startswith(("projectors.", "fusions."))]
            save_weights(run.weights, model.state_dict(), names, {})
            run.finish()
            folders[experiment] = run.folder
        return folders[experiment]

    return write
