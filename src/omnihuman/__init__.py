"""Human-centric video, audio and face language models from composable parts."""

__version__ = "0.1.0"
