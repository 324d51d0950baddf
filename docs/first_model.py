"""Train a projector for sixty steps, ask it about a clip, draw its loss: ``python docs/first_model.py``."""

import csv

import matplotlib.pyplot as plt

import omnihuman
from omnihuman.build import compose_config
from omnihuman.training.stage import run_stage

CLIP, QUESTION = "data/sample/media/val_talk_000.mp4", "Are there glasses or a beard on the face?"

if __name__ == "__main__":
    overrides = [
        "+experiment=humanomni_stage1_face",
        "trainer.max_steps=60",
        "variant=first_model",
    ]
    run = run_stage(compose_config(overrides), overrides)  # the first call creates the clips in data/sample

    model = omnihuman.load(run.folder)
    print(QUESTION, "->", model.answer(QUESTION, video=CLIP))

    rows = list(csv.DictReader((run.folder / "metrics.csv").read_text().splitlines()))
    for name, style in {"train/loss": "-", "val/loss": "o-"}.items():
        points = [(int(row["step"]), float(row[name])) for row in rows if row[name]]
        plt.plot(*zip(*points, strict=True), style, label=name)
    plt.gca().set(xlabel="step", title="sixty steps of the face projector")
    plt.legend()
    plt.savefig(run.folder / "loss.png", dpi=120)
    print("loss curve:", run.folder / "loss.png")
