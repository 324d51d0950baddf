"""Train one stage: ``omnihuman train +experiment=humanomni_stage1``."""

from omegaconf import DictConfig

from omnihuman.config_files import list_choices
from omnihuman.verb import verb


@verb("train", names_cells=True)
def main(config: DictConfig) -> float | None:
    """Train the missing parents and the stage; return the best validation loss, for sweepers such as Optuna's.

    Raises:
        ValueError: no experiment is selected.
    """
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    if config.name is None:
        choices = ", ".join(list_choices("experiment"))
        raise ValueError(f"no experiment: omnihuman train +experiment=humanomni_stage1, or one of {choices}.")
    from omnihuman.training.chain import open_cell
    from omnihuman.training.stage import run_stage  # imports torch, which a mistake does not need

    hydra_config = HydraConfig.get()
    overrides = list(hydra_config.overrides.task)
    if hydra_config.mode == RunMode.MULTIRUN:
        config, overrides = open_cell(config, overrides, hydra_config.sweeper.params)
    return run_stage(config, overrides).loss


if __name__ == "__main__":
    main()
