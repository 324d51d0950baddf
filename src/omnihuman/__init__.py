"""Human-centric video, audio and face language models from composable parts."""

from omnihuman.hub.registry import install_hook

__version__ = "0.1.0"

install_hook()  # from now on transformers' Auto classes load released folders
