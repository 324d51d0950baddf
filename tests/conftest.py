"""What every test may use: a tiny tokenizer with ChatML marks."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from omnihuman.build import build, compose_config
from omnihuman.data.sample.world import scenes
from omnihuman.data.sample.write import write_scene
from omnihuman.training.runs import run_of
from omnihuman.training.weights import save_weights

MARKS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]"]


@pytest.fixture(scope="session")
def tokenizer_folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A byte-level BPE tokenizer in the layout of the hub."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=MARKS, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(["the person is happy and waves"] * 4, trainer)
    folder = tmp_path_factory.mktemp("tokenizer")
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<|endoftext|>", eos_token="<|im_end|>",
                            cls_token="[CLS]", sep_token="[SEP]", unk_token="[UNK]", mask_token="[MASK]",
                            ).save_pretrained(folder)  # fmt: skip
    return str(Path(folder))


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A handful of the built-in corpus' scenes as a data set of its own: media, ``train.json`` and ``val.json``."""
    root = tmp_path_factory.mktemp("corpus")
    (root / "media").mkdir()
    every = scenes(0)
    for split, step in (("train", 25), ("val", 12)):
        chosen = [scene for scene in every if scene.split == split][::step]
        records = [record for scene in chosen for record in write_scene(scene, str(root), 0)]
        (root / f"{split}.json").write_text(json.dumps(records))
    return root


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Makes the folder of a run of an experiment, as it is before its first step."""
    runs, made = tmp_path_factory.mktemp("runs"), dict[str, Path]()

    def make(experiment: str) -> Path:
        if experiment not in made:
            config = compose_config([f"+experiment={experiment}", f"runs={runs}", "random_weights=false"])
            run, model = run_of(config), build(config.model)
            run.open(config)
            state = model.state_dict()
            names = [name for name, _ in model.named_parameters() if name.startswith(("projectors.", "fusions."))]
            save_weights(run.weights, state, names, {})
            made[experiment] = run.folder
        return made[experiment]

    return make
