"""The six tasks of MVBench about people."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from string import ascii_uppercase
from typing import Any, Literal, NamedTuple

from omnihuman.benchmark.base import Benchmark, Peer, Prediction, Question, check_switches, read_json, unique
from omnihuman.benchmark.text import Media, to_record
from omnihuman.metric.choice import HABITS, choice_scores, parse
from omnihuman.metric.score import Score


class Task(NamedTuple):
    """A task: its short name in tables, the folder of its videos, whether its questions are about a part of them."""

    short: str
    folder: str
    is_bound: bool = False


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
PARSERS = (*HABITS, "log_probs")


def _peer(method: str, *figures: float) -> Peer:
    names = [*(task.short for task in TASKS.values()), "avg"]
    return Peer(method, dict(zip(names, figures, strict=True)), "V", "200 questions a task", "HumanOmni, table 4")


class MVBenchHuman(Benchmark):
    """A copy of ``OpenGVLab/MVBench`` -> the mean accuracy of six tasks, and each of them, in percent.

    Reference: ``json/<task>.json`` on the hub's branch ``main``, with ``start`` and ``end`` for two tasks; its branch
    ``video`` holds the clips cut and ``test.json``. HumanOmni's ``eval_video_mcqa_mvbench.py``: its encoder of the
    instruction reads the bare question only.
    Differs from it: the sound is cut like the pictures; a video that cannot be read is an error and not another one's;
    the system text of ``official`` stands in front of the question, as each model has a system turn of its own.

    Args:
        root: the copy.
        layout: ``main`` or ``video``, the branch that was copied.
        media: folder below the root that holds the videos of ``main``.
        tasks: which are asked; the headline is their mean.
        prompt: ``humanomni``, ``official`` (the answer has begun with ``Best option:(``) or ``lmms_eval``.
        parser: ``strict``, ``humanomni``, ``official``, ``lmms_eval``, or ``log_probs`` of the letters.
        missing_media: ``raise``, or ``skip`` questions whose video is not on disk and count them.
        max_new_tokens: length limit of an answer.

    Raises:
        ValueError: a switch is unknown.
    """

    name = "mvbench_human"
    modality = "VA"
    peers = (
        _peer("Otter-V", 23.0, 29.5, 27.5, 28.0, 26.0, 27.0, 26.8),
        _peer("mPLUG-Owl-V", 22.0, 29.0, 34.0, 27.0, 31.5, 29.0, 28.8),
        _peer("Video-LLaMA", 27.5, 39.0, 51.0, 40.5, 34.0, 29.0, 36.8),
        _peer("LLaMA-Adapter", 23.0, 33.0, 51.0, 32.5, 29.0, 30.0, 33.1),
        _peer("Video-ChatGPT", 23.5, 26.5, 62.0, 28.0, 30.5, 22.5, 32.2),
        _peer("VideoChat", 33.5, 40.5, 56.0, 40.5, 35.0, 33.5, 39.8),
        _peer("VideoChat2", 75.5, 60.5, 83.5, 74.5, 37.0, 50.5, 63.6),
        _peer("ST-LLM", 66.0, 58.5, 84.0, 73.5, 36.5, 44.0, 60.4),
        _peer("PLLaVA", 58.0, 61.0, 55.5, 61.0, 39.5, 41.0, 52.6),
        _peer("VideoLLaMB", 54.5, 52.0, 86.5, 58.5, 40.5, 44.5, 56.1),
        _peer("Qwen2-VL-72B", 51.5, 82.0, 93.5, 81.5, 48.5, 49.0, 67.7),
        _peer("Qwen2-VL-7B", 73.5, 80.0, 79.0, 78.5, 46.0, 49.0, 67.7),
        _peer("Qwen2-VL-2B", 77.5, 76.5, 76.5, 77.5, 50.0, 47.5, 67.6),
        _peer("GPT-4V", 55.5, 63.5, 72.0, 59.0, 39.0, 47.5, 56.1),
        _peer("VITA", 58.0, 81.5, 73.5, 61.5, 45.5, 42.0, 60.3),
        _peer("IXC-2.5-OL", 84.5, 81.0, 75.0, 79.5, 60.5, 46.0, 71.1),
        _peer("HumanOmni", 70.0, 78.0, 92.5, 80.5, 65.5, 49.0, 72.6),
        Peer("HumanOmni", {"avg": 72.3}, "V", "200 questions a task", "HumanOmni, table 6"),
        Peer("HumanOmni", {"avg": 72.6}, "VA", "200 questions a task", "HumanOmni, table 6"),
    )

    def __init__(
        self,
        root: str,
        *,
        layout: Literal["main", "video"] = "main",
        media: str = "video",
        tasks: str | Sequence[str] = tuple(TASKS),
        prompt: Literal["humanomni", "official", "lmms_eval"] = "humanomni",
        parser: str = "strict",
        missing_media: Literal["raise", "skip"] = "raise",
        max_new_tokens: int = 32,
    ) -> None:
        check_switches(
            layout=(layout, ("main", "video")),
            prompt=(prompt, ("humanomni", "official", "lmms_eval")),
            parser=(parser, PARSERS),
            missing_media=(missing_media, ("raise", "skip")),
        )
        tasks = [tasks] if isinstance(tasks, str) else list(tasks)
        if not tasks or set(tasks) - set(TASKS) or len(set(tasks)) < len(tasks):
            raise ValueError(f"tasks={tasks}: choose from {', '.join(TASKS)}, each once.")
        self.root, self.layout, self.tasks = Path(root), layout, tuple(tasks)
        self.prompt, self.parser, self.log_probs = prompt, parser, parser == "log_probs"
        self.media = Media(self.root / media if layout == "main" else self.root, missing_media)
        self.max_new_tokens = max_new_tokens

    def questions(self) -> list[Question]:
        self.media.start()
        found = []
        for task in self.tasks:
            path, folder, entries = self._entries(task)
            if not isinstance(entries, list):
                raise ValueError(f"{path}: the questions of {task} are a list, this is a {type(entries).__name__}.")
            for number, entry in enumerate(entries):
                where = f"{path}[{number}]" if self.layout == "main" else f"{path}: meta[{task}][{number}]"
                if (asked := self._question(task, folder, number, entry, where)) is not None:
                    found.append(asked)
        return unique(found, str(self.root))

    def parse(self, asked: Prediction) -> tuple[Any, str]:
        index, rule = self._read(asked)
        if index is None or index >= len(asked.options):  # HumanOmni takes C where it finds nothing, also of two
            return None, rule
        return asked.options[index], rule

    def scores(self, predictions: Sequence[Prediction]) -> list[Score]:
        return choice_scores(
            [each.id for each in predictions],
            [each.options.index(each.truth) for each in predictions],
            [self._read(each) for each in predictions],
            [TASKS[each.group].short for each in predictions],
            [str(each.meta["video"]) for each in predictions],
            f"parser {self.parser}",
        )

    def protocol(self) -> dict[str, str]:
        cut = "start and end of the questions, sound alike" if self.layout == "main" else "cut beforehand"
        return {
            "tasks": ", ".join(TASKS[task].short for task in self.tasks),
            "prompt": self.prompt,
            "parser": self.parser,
            "clips": cut,
            **self.media.protocol(),
        }

    def _entries(self, task: str) -> tuple[Path, str, Any]:
        """Annotation file of a task, folder of its videos, and its questions."""
        if self.layout == "main":
            path = self.root / "json" / f"{task}.json"
            return path, TASKS[task].folder, read_json(path)
        path = self.root / "test.json"
        whole = read_json(path)
        parts: list[Any] = []
        for key in ("root", "meta"):
            given = whole.get(key) if isinstance(whole, Mapping) else None
            named = {_plain(name): part for name, part in given.items()} if isinstance(given, Mapping) else {}
            if task not in named:
                raise ValueError(f"{path}: {key}[{task}] is missing; root is a copy of the branch `video`.")
            parts.append(named[task])
        return path, str(parts[0]), parts[1]

    def _question(self, task: str, folder: str, number: int, entry: Any, where: str) -> Question | None:
        kinds = {"video": (str,), "question": (str,), "candidates": (list,), "answer": (str, int)}  # counts are numbers
        wrong = [
            key for key, kind in kinds.items() if not isinstance(entry, Mapping) or not isinstance(entry.get(key), kind)
        ]
        if wrong:
            raise ValueError(
                f"{where}: {', '.join(wrong)} missing, or no {' / '.join(kinds[k][0].__name__ for k in wrong)}."
            )
        candidates, answer = [str(each) for each in entry["candidates"]], str(entry["answer"])
        if candidates.count(answer) != 1 or len(candidates) > len(ascii_uppercase):
            raise ValueError(f"{where}: the answer {answer!r} is not exactly one of {candidates}, of at most 26.")
        start, end = self._bounds(task, entry, where)
        file = self.media.find(str(Path(folder) / entry["video"]), f"{where}: video")
        if file is None:
            return None
        letters = tuple(ascii_uppercase[: len(candidates)])
        record = to_record(
            file, self._text(entry["question"], candidates), f"{task}/{number}", where, start=start, end=end
        )
        said = {"instruction": entry["question"]} if self.prompt == "humanomni" else {}
        said |= {"prime": "Best option:("} if self.prompt == "official" else {}
        meta = {"candidates": candidates, "video": f"{folder}/{entry['video']}"}
        truth = letters[candidates.index(answer)]
        return Question(replace(record, meta=said), truth, task, letters, meta)

    def _bounds(self, task: str, entry: Mapping[str, Any], where: str) -> tuple[float, float | None]:
        if self.layout == "video" or not TASKS[task].is_bound:
            return 0.0, None
        start, end = entry.get("start"), entry.get("end")
        if not isinstance(start, int | float) or not isinstance(end, int | float) or not 0 <= start < end:
            raise ValueError(f"{where}: start and end are seconds of the video, found {start!r} and {end!r}.")
        return float(start), float(end)

    def _text(self, question: str, candidates: Sequence[str]) -> str:
        options = "\n".join(f"({letter}) {text}" for letter, text in zip(ascii_uppercase, candidates, strict=False))
        if self.prompt == "official":
            return f"{SYSTEM}Question: {question}\nOptions:\n{options}\nOnly give the best option."
        if self.prompt == "lmms_eval":
            return f"Question:{question}\nOption:\n{options}\nOnly give the best option.\n"
        ask = "Answer with the option's letter from the given choices directly and only give the best option."
        return f"Question: {question}\nOptions:\n{options}\n{ask}"

    def _read(self, asked: Prediction) -> tuple[int | None, str]:
        if self.parser == "log_probs":
            if not asked.log_probs:
                return None, "invalid"
            return max(range(len(asked.log_probs)), key=asked.log_probs.__getitem__), "log_probs"
        truth = asked.options.index(asked.truth)
        return parse(asked.answer, asked.meta["candidates"], self.parser, truth)


def _plain(name: str) -> str:
    """``Fine-grained Action`` -> ``fine_grained_action``."""
    return name.lower().replace(" ", "_").replace("-", "_")
