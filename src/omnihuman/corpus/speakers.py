"""Clips of two people who talk, and what each of them says: an evaluation set beside the built-in corpus."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from omnihuman.corpus.conversation import Record, build_record, build_speaker_turn
from omnihuman.corpus.progress import track
from omnihuman.corpus.world import Scene, sample_scene
from omnihuman.corpus.write import add_media, write_folder, write_records, write_scene

RECORDS = "test.json"
"""File of the records below the folder."""


def write_speakers(out: Path, seed: int = 0, num_clips: int = 100) -> Path:
    """Write clips of two people of the test split, and two records each, to a folder, unless it has them.

    Args:
        out: the folder.
        seed: of the corpus whose people talk, and of the clips.
        num_clips: number of clips.

    Raises:
        ValueError: ``out`` is a file, or holds other files, such as those of the built-in corpus.
    """
    if (out / "train.json").exists():
        raise ValueError(f"root={out} holds the built-in corpus; name another folder for the clips of two speakers.")
    return write_folder(
        out, f"{seed}, {num_clips} clips of two speakers", lambda folder: _write(folder, seed, num_clips)
    )


def _write(folder: Path, seed: int, num_clips: int) -> None:
    records: list[Record] = []
    rng = np.random.default_rng((seed, 6))
    scenes = [sample_scene(rng, "test", "pair", seed) for _ in range(num_clips)]
    for scene in track(iter(scenes), num_clips, "clips of two speakers, written"):
        write_scene(scene, str(folder), seed)
        records += build_speaker_records(scene, seed)
    write_records(folder / RECORDS, records)


def build_speaker_records(scene: Scene, seed: int) -> list[Record]:
    """Build a record for each of the two people, with the transcript of the other one and the order in ``meta``.

    Args:
        scene: of the kind ``pair``.
        seed: of the questions, with that of the scene.
    """
    assert scene.partner is not None, "two people"
    rng = np.random.default_rng((seed, 7, scene.seed))
    speech = [" ".join(words) for words in (scene.transcript, scene.partner_transcript)]
    texts = []
    for index, person in enumerate((scene.identity, scene.partner)):
        text = build_record(scene, "speaker_speech", [build_speaker_turn(person, speech[index], rng)])
        text["meta"] |= {"other_transcript": speech[1 - index], "cue": ("first", "second")[index]}
        texts.append(text)
    return add_media(scene, texts)
