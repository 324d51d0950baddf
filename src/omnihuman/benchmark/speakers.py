"""Two people who talk in one clip: what does one of them say?"""

from pathlib import Path

from filelock import FileLock

from omnihuman.benchmark.base import Question, check_unique_ids
from omnihuman.benchmark.task import TaskBenchmark
from omnihuman.corpus.speakers import RECORDS, write_speakers
from omnihuman.data.record import Record
from omnihuman.source.json import JsonSource


class Speakers(TaskBenchmark):
    """Clips with people of the built-in corpus -> WER of the person that is asked for, and of the other one.

    A man and a woman talk, one after the other; each of them is asked for once, by gender, hair or clothes. The people
    are those of the corpus' test split, the clips are not in the corpus. They are written on first use.

    Reference: HumanOmni, section 1, speaker-specific speech.

    Args:
        root: folder of the clips.
        num_clips: number of clips, of two questions each.
        corpus_seed: of the corpus and the clips.
        max_new_tokens: maximum length of an answer.

    Raises:
        ValueError: there is no clip.
    """

    name = "speakers"
    view = "VA"
    kind = "speech"

    def __init__(
        self,
        root: str = "data/speakers",
        *,
        num_clips: int = 100,
        corpus_seed: int = 0,
        max_new_tokens: int = 48,
    ) -> None:
        if num_clips < 1:
            raise ValueError(f"num_clips={num_clips}: expected 1 or more.")
        self.root, self.num_clips, self.corpus_seed = Path(root), num_clips, corpus_seed
        self.max_new_tokens = max_new_tokens
        self.forms = {}

    def questions(self) -> list[Question]:
        self.root.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{self.root}.lock"):  # several processes may start at once
            write_speakers(self.root, self.corpus_seed, self.num_clips)
        source = JsonSource(self.root / RECORDS, self.root)
        questions = []
        for record in source.records():
            if not isinstance(record, Record):
                raise ValueError(f"{record[1]}")
            questions.append(self.build_question(record))
        return check_unique_ids(questions, source.location)

    def protocol(self) -> dict[str, str]:
        return {
            "clips": f"{self.num_clips} of two people of the built-in corpus' test split, seed {self.corpus_seed}",
            "groups": "who of both speaks first or second",
            "wer_other": "WER against the words of the other person",
            "wrong_speaker": "answers that are nearer to the other person's words, in percent",
        }
