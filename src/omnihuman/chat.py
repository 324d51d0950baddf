"""Chat with a model about clips on a page: ``omnihuman chat run=humanomni_stage3``."""

from omegaconf import DictConfig

from omnihuman.verb import verb


@verb("chat", "examples", extra="serve")
def main(config: DictConfig) -> None:
    """Load the model and serve the page until interrupted."""
    from omnihuman.serving.app import serve_page

    serve_page(config)


if __name__ == "__main__":
    main()
