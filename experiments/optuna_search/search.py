"""Search a learning rate and a projector with Optuna; a poor trial is pruned at one of its validations.

python experiments/optuna_search/search.py trials=20 out=runs/search [overrides of omnihuman train]
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import optuna

from omnihuman.build import compose_config
from omnihuman.evaluation.tables import Number, Row, Table, format_markdown, write_table
from omnihuman.pl import pl
from omnihuman.training.chain import resolve_variant
from omnihuman.training.naming import build_folder_name
from omnihuman.training.stage import run_stage

EXPERIMENT = "humanomni_stage1_face"
SHORT = ["trainer.max_epochs=4", "+trainer.limit_train_batches=20", "data.val_limit=60", "validation.views=[]"]
"""Four epochs of twenty steps, with a validation behind each: three points at which a trial can be pruned."""


class Pruning(pl.Callback):
    """Report the loss of every validation to Optuna, and end a trial that its pruner gives up."""

    def __init__(self, trial: optuna.Trial) -> None:
        self.trial = trial

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.global_step == 0:  # before the first step all trials are equal
            return
        self.trial.report(float(trainer.callback_metrics["val/loss"]), trainer.global_step)
        if self.trial.should_prune():
            raise optuna.TrialPruned


def suggest(trial: optuna.Trial) -> list[str]:
    """Return the overrides of a trial: the search space."""
    rate = trial.suggest_float("recipe.lr", 1e-4, 3e-2, log=True)
    projector = trial.suggest_categorical("projector@model.projectors.face", ["mlp", "linear"])
    return [f"recipe.lr={rate:.3g}", f"projector@model.projectors.face={projector}"]


def run_trial(trial: optuna.Trial, overrides: Sequence[str]) -> float:
    """Train a trial in a folder of its own and return its best validation loss; a finished run is not trained again."""
    params = suggest(trial)
    chain = resolve_variant(EXPERIMENT, [*SHORT, *overrides, *params], build_folder_name(["optuna", *params]))
    trial.set_user_attr("folder", str(chain.run.folder))
    loss = run_stage(compose_config(chain.overrides), chain.overrides, callbacks=[Pruning(trial)]).loss
    assert loss is not None, "a finished run has a validation"
    return loss


def build_table(study: optuna.Study) -> Table:
    """Return a table of the trials, the best first and the pruned last, with the loss of their last validation."""
    rows = []
    for trial in sorted(study.trials, key=lambda trial: (trial.state.name, trial.value or 0.0, trial.number)):
        params = ", ".join(f"{name}={_format(value)}" for name, value in sorted(trial.params.items()))
        steps = max(trial.intermediate_values, default=0)
        loss = trial.value if trial.value is not None else trial.intermediate_values.get(steps)
        numbers = (
            None if loss is None else Number(loss, 3, is_best=trial.value == study.best_value),
            Number(float(steps), 0),
        )
        rows.append(Row(f"{trial.number}: {params}", "", numbers, trial.state.name.lower(), is_ours=True))
    notes = ("One seed for each trial: a search, no comparison. Train the best few with several seeds.",)
    return Table("Trials", ("validation loss", "steps"), tuple(rows), notes, ("trial", "view", "state", "source"))


def _format(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def main(arguments: Sequence[str]) -> None:
    """Run the search and write the table of its trials."""
    options = dict(argument.split("=", 1) for argument in arguments if argument.startswith(("trials=", "out=")))
    overrides = [argument for argument in arguments if not argument.startswith(("trials=", "out="))]
    study = optuna.create_study(
        sampler=optuna.samplers.TPESampler(seed=0),  # so that the same command finds its finished trials again
        pruner=optuna.pruners.MedianPruner(n_startup_trials=4),
    )
    study.optimize(lambda trial: run_trial(trial, overrides), n_trials=int(options.get("trials", 20)))
    folder = Path(options.get("out", "runs/optuna_search"))
    folder.mkdir(parents=True, exist_ok=True)
    write_table(build_table(study), folder, "trials")
    print(format_markdown(build_table(study)))
    print(f"best: {study.best_trial.user_attrs['folder']}")


if __name__ == "__main__":
    main(sys.argv[1:])
