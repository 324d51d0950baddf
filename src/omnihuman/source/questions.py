"""Questions of a task in several wordings, of which each training record gets one, with its options in an order."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from yaml import YAMLError

from omnihuman.config_files import config_dir, list_choices
from omnihuman.modality import TAGS

GROUP = "wording"
"""Folder of the lists of questions in ``conf``."""

SEPARATOR = " ,"
"""Between options, as in HumanOmni's data."""


@dataclass(frozen=True, slots=True)
class Questions:
    """The wordings of one question.

    Reference: HumanOmni, README, "Training on Custom Dataset", and Omni-Emotion, section 8: several wordings of a
    question, with the options in any order and without some of the wrong ones.

    Attributes:
        texts: the wordings; records of validation and test have the first one, with all options in their order.
        min_options: fewest options of a training record; ``None``: all.
        max_options: most options of a training record; ``None``: all.
    """

    texts: tuple[str, ...]
    min_options: int | None = None
    max_options: int | None = None

    def draw(self, options: Sequence[str], answer: str, key: str) -> tuple[str, list[str]]:
        """Return a wording and options, the answer among them, both decided by a key alone.

        >>> Questions(("Which?",), min_options=2, max_options=2).draw(["a", "b", "c"], "c", "0/1.mp4")
        ('Which?', ['c', 'b'])
        """
        rng = random.Random(key)
        text = rng.choice(self.texts)
        if not options:
            return text, []
        most = min(self.max_options or len(options), len(options))
        fewest = min(self.min_options or most, most)
        wrong = [option for option in options if option != answer]
        selection = [answer, *rng.sample(wrong, rng.randint(fewest, most) - 1)]
        rng.shuffle(selection)
        return text, selection


def write_question(tags: Sequence[str], text: str, options: Sequence[str]) -> str:
    """Return a human turn: the tags of the media unless the text has tags of its own, the text, the options."""
    if any(tag in text for tag in TAGS):
        tags = []
    lines = [*tags, text]
    if options:
        lines.append(SEPARATOR.join(options))
    return "\n".join(lines)


def load_questions(name: str) -> Questions:
    """Return the questions of a file of ``conf/wording`` by its name, or of a yaml file of the user.

    Raises:
        ValueError: there is no such file, or it is no list of questions.
    """
    file = Path(name).expanduser()
    if file.suffix != ".yaml":
        file = Path(config_dir()) / GROUP / f"{name}.yaml"
    if not file.is_file():
        choices = ", ".join(list_choices(GROUP))
        raise ValueError(f"questions={name}: choose from {choices}, or name a .yaml file with a list texts.")
    try:
        content: Any = OmegaConf.to_container(OmegaConf.load(file))
    except (YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"questions={name}: {file} is no yaml file ({reason})") from error
    return _parse_questions(content, file)


def _parse_questions(content: Any, file: Path) -> Questions:
    keys = [field.name for field in fields(Questions)]
    if not isinstance(content, dict) or not set(content) <= set(keys):
        raise ValueError(f"{file}: expected the keys {', '.join(keys)}, got {content!r:.80}.")
    texts, limits = content.get("texts"), [content.get(key) for key in keys[1:]]
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) and text.strip() for text in texts):
        raise ValueError(f"{file}: texts must be a list of questions, got {texts!r:.80}.")
    numbers = [limit for limit in limits if limit is not None]
    if not all(isinstance(number, int) and number > 1 for number in numbers) or numbers != sorted(numbers):
        raise ValueError(f"{file}: min_options and max_options must be 2 or more, in this order, got {limits}.")
    return Questions(tuple(texts), *limits)
