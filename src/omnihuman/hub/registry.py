"""Registers the released model with transformers' Auto classes as soon as they are imported."""

import sys
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

AUTO = "transformers.models.auto"
AUTO_MODULES = ("configuration_auto", "modeling_auto", "processing_auto")
"""The modules of the Auto classes for configs, models and processors. transformers imports each on first use."""


class AutoClassHook(MetaPathFinder):
    """Import hook that registers our classes right after transformers has imported one of its Auto classes.

    ``import omnihuman`` must be enough for ``AutoModel.from_pretrained(folder)`` to find our classes. Registering them
    needs the Auto classes, and importing those costs seconds (torch, transformers), which every command and every test
    would pay. So nothing is imported here. A finder in ``sys.meta_path`` waits for the first import of an Auto module,
    returns its usual spec, and wraps the loader, so that ``register`` runs when the module has executed and before the
    importing code sees it. ``PathFinder`` finds the spec, not ``importlib.util.find_spec``, which would call this
    hook again. The wrapper calls the original ``exec_module`` first, so that the Auto class exists when we register.
    """

    def find_spec(self, fullname: str, path: Any = None, target: ModuleType | None = None) -> ModuleSpec | None:
        """Return the spec of an Auto module, with a loader that calls ``register``; ``None`` for all other modules."""
        package, _, name = fullname.rpartition(".")
        if package != AUTO or name not in AUTO_MODULES:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is None or spec.loader is None:
            return None
        execute = spec.loader.exec_module

        def execute_and_register(module: ModuleType) -> None:
            execute(module)
            register(name)

        setattr(spec.loader, "exec_module", execute_and_register)  # noqa: B010
        return spec


def install_hook() -> None:
    """Register with the Auto classes that are imported already, and with the others on their import."""
    if not any(isinstance(finder, AutoClassHook) for finder in sys.meta_path):
        sys.meta_path.insert(0, AutoClassHook())
    for name in AUTO_MODULES:
        if f"{AUTO}.{name}" in sys.modules:
            register(name)


def register(name: str) -> None:
    """Register with the Auto class of one of ``AUTO_MODULES``."""
    from omnihuman.hub.configuration import OmniHumanConfig

    if name == "configuration_auto":
        from transformers.models.auto.configuration_auto import AutoConfig

        AutoConfig.register("omnihuman", OmniHumanConfig, exist_ok=True)
    elif name == "modeling_auto":
        from transformers.models.auto.modeling_auto import AutoModelForCausalLM

        from omnihuman.hub.huggingface import OmniHumanForCausalLM

        AutoModelForCausalLM.register(OmniHumanConfig, OmniHumanForCausalLM, exist_ok=True)
    else:
        from transformers.models.auto.processing_auto import AutoProcessor

        from omnihuman.hub.processor import OmniHumanProcessor

        AutoProcessor.register(OmniHumanConfig, OmniHumanProcessor, exist_ok=True)
