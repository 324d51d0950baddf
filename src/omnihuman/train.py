"""Train one stage: ``python -m omnihuman.train +experiment=humanomni_stage1``."""

from omegaconf import DictConfig

from omnihuman.verb import verb


@verb("train")
def main(config: DictConfig) -> float | None:
    """Compose, train the missing parents, then train; the best validation loss is what Optuna's sweeper minimises."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    from omnihuman.training.stage import run_stage  # torch is not needed to print --help

    hydra_config = HydraConfig.get()
    if hydra_config.mode == RunMode.MULTIRUN:
        config.variant = hydra_config.job.override_dirname
    return run_stage(config, list(hydra_config.overrides.task)).loss


if __name__ == "__main__":
    main()
