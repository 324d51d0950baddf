"""Human-centric video, audio and face language models from composable parts."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from omnihuman.inference.answerer import Answerer

__version__ = "0.1.0"


def load(folder: str | Path, **options: Any) -> "Answerer":
    """Return the model of a run folder or of a converted checkpoint; its ``answer`` answers questions about files.

    >>> model = load("runs/nano/humanomni_stage3")  # doctest: +SKIP
    >>> print(model.answer("What is the main emotion?", video="clip.mp4"))  # doctest: +SKIP

    Args:
        folder: of the model.
        options: of ``Answerer.load``: ``device``, ``dtype``, ``faces``, ``merge_lora``, ``official``, ``quantize``.

    Raises:
        ValueError: the folder has no complete run, or an option is invalid.
    """
    from omnihuman.inference.answerer import Answerer

    return Answerer.load(Path(folder).expanduser(), **options)


def register() -> None:
    """Register our classes, so that transformers' Auto classes load the folders that ``export`` writes."""
    from transformers import AutoConfig, AutoModelForCausalLM, AutoProcessor

    from omnihuman.hub.configuration import OmniHumanConfig
    from omnihuman.hub.huggingface import OmniHumanForCausalLM
    from omnihuman.hub.processor import OmniHumanProcessor

    AutoConfig.register("omnihuman", OmniHumanConfig, exist_ok=True)
    AutoModelForCausalLM.register(OmniHumanConfig, OmniHumanForCausalLM, exist_ok=True)
    AutoProcessor.register(OmniHumanConfig, OmniHumanProcessor, exist_ok=True)
