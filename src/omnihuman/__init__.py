"""Human-centric video, audio and face language models from composable parts."""

from omnihuman.release.hub.registry import watch

__version__ = "0.1.0"

watch()  # transformers' Auto classes know released folders from here on
