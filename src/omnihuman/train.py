"""Train one stage: ``omnihuman train +experiment=humanomni_stage1``."""

from omegaconf import DictConfig

from omnihuman.verb import verb


@verb("train")
def main(config: DictConfig) -> float | None:
    """Train the missing parents and the stage; return the best validation loss, for sweepers such as Optuna's."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    from omnihuman.training.stage import run_stage  # imports torch, which --help does not need

    hydra_config = HydraConfig.get()
    if hydra_config.mode == RunMode.MULTIRUN:
        config = config.copy()
        config.variant = hydra_config.job.override_dirname
    return run_stage(config, list(hydra_config.overrides.task)).loss


if __name__ == "__main__":
    main()
