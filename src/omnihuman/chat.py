"""A page to talk with a model about clips: ``python -m omnihuman.chat run=humanomni_stage3``."""

import hydra
from omegaconf import DictConfig

from omnihuman.build import config_dir, register_resolvers

register_resolvers()


@hydra.main(config_path=config_dir(), config_name="chat", version_base="1.3")
def main(config: DictConfig) -> None:
    """Load the model and show the page until it is interrupted."""
    from omnihuman.serving.desk import show

    show(config)


if __name__ == "__main__":
    main()
