"""A page to talk with a model about clips: ``python -m omnihuman.chat run=humanomni_stage3``."""

from omegaconf import DictConfig

from omnihuman.verb import verb


@verb("chat", "examples")
def main(config: DictConfig) -> None:
    """Load the model and show the page until it is interrupted."""
    from omnihuman.serving.desk import show

    show(config)


if __name__ == "__main__":
    main()
