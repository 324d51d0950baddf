"""Evaluate a trained run: ``omnihuman evaluate run=omni_emotion_recognition benchmark=sample``."""

from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from omnihuman.build import config_dir
from omnihuman.verb import verb


@verb("evaluate", extra="eval")
def main(config: DictConfig) -> None:
    """Answer the questions that have no answer yet, score the answers, and write tables, charts and a page."""
    from hydra.core.hydra_config import HydraConfig

    from omnihuman.evaluation.run import evaluate

    if OmegaConf.is_missing(config, "benchmark") or config.get("benchmark") is None:
        names = sorted(path.stem for path in (Path(config_dir()) / "benchmark").glob("*.yaml"))
        raise ValueError(f"benchmark= is missing; choose from {', '.join(names)}.")
    evaluate(config, list(HydraConfig.get().overrides.task))


if __name__ == "__main__":
    main()
