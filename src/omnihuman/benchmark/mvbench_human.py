"""The six human-centric tasks of MVBench."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from string import ascii_uppercase
from typing import Any, Literal, NamedTuple

from omnihuman.benchmark.base import (
    INVALID,
    Benchmark,
    Prediction,
    Question,
    check_choices,
    check_subset,
    check_unique_ids,
    get_value,
    read_peers,
)
from omnihuman.benchmark.text import Media, build_record
from omnihuman.data.text_files import read_json
from omnihuman.metric.choice import PARSERS as CHOICE_PARSERS
from omnihuman.metric.choice import parse_choice, score_choices
from omnihuman.metric.score import Score


class Task(NamedTuple):
    """A task: its short name in tables, the folder of its videos, True if its questions have a start and an end."""

    short: str
    folder: str
    has_bounds: bool = False


TASKS = {
    "action_sequence": Task("AS", "star/Charades_v1_480", True),
    "unexpected_action": Task("UA", "FunQA_test/test"),
    "action_antonym": Task("AA", "ssv2_video"),
    "object_interaction": Task("OI", "star/Charades_v1_480", True),
    "action_count": Task("AC", "perception/videos"),
    "fine_grained_action": Task("FA", "Moments_in_Time_Raw/videos"),
}
SYSTEM = (
    "Carefully watch the video and pay attention to the cause and sequence of events, the detail and movement of "
    "objects, and the action and pose of persons. Based on your observations, select the best option that accurately "
    "addresses the question.\n"
)
PARSERS = (*CHOICE_PARSERS, "log_probs")
PROMPTS = ("humanomni", "official", "lmms_eval")
ENTRY_TYPES = {"video": (str,), "question": (str,), "candidates": (list,), "answer": (str, int)}
"""Key of an entry -> types of its value; the answers of counting tasks are numbers."""


class MVBenchHuman(Benchmark):
    """A copy of ``OpenGVLab/MVBench`` -> the mean accuracy of six tasks, and the accuracy of each, in percent.

    Reference: ``json/<task>.json`` on the hub's branch ``main``, with ``start`` and ``end`` for two tasks; its branch
    ``video`` has clips that are already cut, and ``test.json``. HumanOmni's ``eval_video_mcqa_mvbench.py``: its encoder
    of the instruction gets the question without options.
    Differs from it: the audio is cut like the frames; a video that cannot be decoded is an error and not replaced by
    another one; the system prompt of ``official`` precedes the question, because each model has its own system turn.

    Args:
        root: the copy.
        layout: ``main`` or ``video``, the branch of the copy.
        media: folder below the root with the videos of ``main``.
        tasks: to run; the main score is their mean.
        prompt: ``humanomni``, ``official`` (the answer starts with ``Best option:(``) or ``lmms_eval``.
        parser: ``strict``, ``humanomni``, ``official``, ``lmms_eval``, ``answer_tag``, or ``log_probs`` of the letters;
            ``None`` for ``strict``.
        missing_media: ``raise``, or ``skip`` questions with missing videos and count them.
        max_new_tokens: maximum length of an answer.

    Raises:
        ValueError: an option is invalid.
    """

    name = "mvbench_human"
    view = "VA"
    published = read_peers("mvbench_human")

    def __init__(
        self,
        root: str,
        *,
        layout: Literal["main", "video"] = "main",
        media: str = "video",
        tasks: str | Sequence[str] = tuple(TASKS),
        prompt: Literal["humanomni", "official", "lmms_eval"] = "humanomni",
        parser: str | None = None,
        missing_media: Literal["raise", "skip"] = "raise",
        max_new_tokens: int = 32,
    ) -> None:
        parser = parser or "strict"
        check_choices(
            layout=(layout, ("main", "video")),
            prompt=(prompt, PROMPTS),
            parser=(parser, PARSERS),
            missing_media=(missing_media, ("raise", "skip")),
        )
        self.root, self.layout, self.tasks = Path(root), layout, check_subset("tasks", tasks, tuple(TASKS))
        self.prompt, self.parser, self.log_probs = prompt, parser, parser == "log_probs"
        folders = {"main": self.root / media, "video": self.root}
        self.media = Media(folders[layout], missing_media)
        self.max_new_tokens = max_new_tokens

    def questions(self) -> list[Question]:
        self.media.reset()
        questions = []
        for task in self.tasks:
            path, folder, entries = self._read_task(task)
            if not isinstance(entries, list):
                raise ValueError(f"{path}: the questions of {task} must be a list, got {type(entries).__name__}.")
            for number, entry in enumerate(entries):
                location = f"{path}[{number}]"
                if self.layout == "video":
                    location = f"{path}: meta[{task}][{number}]"
                question = self._build_question(task, folder, number, entry, location)
                if question is not None:
                    questions.append(question)
        return check_unique_ids(questions, str(self.root))

    def parse(self, prediction: Prediction) -> tuple[Any, str]:
        index, rule = self._parse_index(prediction)
        if index is None or index >= len(prediction.options):  # HumanOmni defaults to C, even with two options
            return None, rule
        return prediction.options[index], rule

    def scores(self, predictions: Sequence[Prediction]) -> list[Score]:
        ids, references, parsed, tasks, videos = [], [], [], [], []
        for prediction in predictions:
            ids.append(prediction.id)
            references.append(prediction.options.index(prediction.reference))
            parsed.append(self._parse_index(prediction))
            tasks.append(TASKS[prediction.group].short)
            videos.append(str(prediction.meta["video"]))
        return score_choices(ids, references, parsed, tasks, videos, f"parser {self.parser}")

    def protocol(self) -> dict[str, str]:
        clips = {"main": "start and end of the questions, for frames and audio", "video": "already cut"}
        return {
            "tasks": ", ".join(TASKS[task].short for task in self.tasks),
            "prompt": self.prompt,
            "parser": self.parser,
            "clips": clips[self.layout],
            **self.media.protocol(),
        }

    def _read_task(self, task: str) -> tuple[Path, str, Any]:
        """Return annotation file, folder of the videos and entries of a task."""
        if self.layout == "main":
            path = self.root / "json" / f"{task}.json"
            return path, TASKS[task].folder, read_json(path)
        path = self.root / "test.json"
        raw = read_json(path)
        folder = _find_task(raw, "root", task, path)
        return path, str(folder), _find_task(raw, "meta", task, path)

    def _build_question(self, task: str, folder: str, number: int, entry: Any, location: str) -> Question | None:
        _check_entry(entry, location)
        candidates, answer = [str(candidate) for candidate in entry["candidates"]], str(entry["answer"])
        if candidates.count(answer) != 1 or len(candidates) > len(ascii_uppercase):
            raise ValueError(f"{location}: the answer {answer!r} must be exactly one of {candidates}, of at most 26.")
        start, end = self._read_bounds(task, entry, location)
        file = self.media.find(str(Path(folder) / entry["video"]), f"{location}: video")
        if file is None:
            return None
        letters = tuple(ascii_uppercase[: len(candidates)])
        prompt = self._build_prompt(entry["question"], candidates)
        record = build_record(file, prompt, f"{task}/{number}", location, start=start, end=end)
        record_meta = {}
        if self.prompt == "humanomni":
            record_meta["instruction"] = entry["question"]
        if self.prompt == "official":
            record_meta["prime"] = "Best option:("
        meta = {"candidates": candidates, "video": f"{folder}/{entry['video']}"}
        reference = letters[candidates.index(answer)]
        return Question(replace(record, meta=record_meta), reference, task, letters, meta)

    def _read_bounds(self, task: str, entry: Mapping[str, Any], location: str) -> tuple[float, float | None]:
        if self.layout == "video" or not TASKS[task].has_bounds:
            return 0.0, None
        start, end = entry.get("start"), entry.get("end")
        if not isinstance(start, int | float) or not isinstance(end, int | float) or not 0 <= start < end:
            raise ValueError(f"{location}: start and end must be increasing seconds, got {start!r} and {end!r}.")
        return float(start), float(end)

    def _build_prompt(self, question: str, candidates: Sequence[str]) -> str:
        pairs = zip(ascii_uppercase, candidates, strict=False)
        options = "\n".join(f"({letter}) {text}" for letter, text in pairs)
        if self.prompt == "official":
            return f"{SYSTEM}Question: {question}\nOptions:\n{options}\nOnly give the best option."
        if self.prompt == "lmms_eval":
            return f"Question:{question}\nOption:\n{options}\nOnly give the best option.\n"
        instruction = "Answer with the option's letter from the given choices directly and only give the best option."
        return f"Question: {question}\nOptions:\n{options}\n{instruction}"

    def _parse_index(self, prediction: Prediction) -> tuple[int | None, str]:
        if self.parser == "log_probs":
            if not prediction.log_probs:
                return INVALID
            return prediction.log_probs.index(max(prediction.log_probs)), "log_probs"
        reference = prediction.options.index(prediction.reference)
        return parse_choice(prediction.answer, prediction.meta["candidates"], self.parser, reference)


def _check_entry(entry: Any, location: str) -> None:
    for key, types in ENTRY_TYPES.items():
        value = get_value(entry, key)
        if not isinstance(value, types):
            expected = " or ".join(entry_type.__name__ for entry_type in types)
            raise ValueError(f"{location}: {key} is {value!r:.80}; expected {expected}.")


def _find_task(raw: Any, key: str, task: str, path: Path) -> Any:
    """Return an entry of test.json, whose tasks are named ``Fine-grained Action`` etc."""
    parts = get_value(raw, key)
    if isinstance(parts, Mapping):
        for name, part in parts.items():
            if name.lower().replace(" ", "_").replace("-", "_") == task:
                return part
    raise ValueError(f"{path}: {key}[{task}] is missing; set root to a copy of the branch `video`.")
