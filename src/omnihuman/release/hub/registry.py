"""Makes a released folder known to transformers' Auto classes, as soon as somebody uses them."""

import sys
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

AUTO = "transformers.models.auto"
WAITED = ("configuration_auto", "modeling_auto", "processing_auto")
"""The modules of the Auto classes of configs, models and processors; each is imported when it is asked for."""


class Watch(MetaPathFinder):
    """Lets transformers import its Auto classes as ever, and registers ours right behind each.

    Importing them ourselves would cost every ``import omnihuman`` the seconds that torch and transformers take, and a
    released folder is only ever opened by who has imported an Auto class.
    """

    def find_spec(self, fullname: str, path: Any = None, target: ModuleType | None = None) -> ModuleSpec | None:
        """The module's usual spec, whose loader calls ``register`` when it is through; ``None`` for all others."""
        package, _, name = fullname.rpartition(".")
        spec = PathFinder.find_spec(fullname, path, target) if package == AUTO and name in WAITED else None
        if spec is None or spec.loader is None:
            return None
        execute = spec.loader.exec_module

        def execute_and_register(module: ModuleType) -> None:
            execute(module)
            register(name)

        setattr(spec.loader, "exec_module", execute_and_register)  # noqa: B010
        return spec


def watch() -> None:
    """Register with what is imported already, and with the rest when it is."""
    if not any(isinstance(finder, Watch) for finder in sys.meta_path):
        sys.meta_path.insert(0, Watch())
    for name in WAITED:
        if f"{AUTO}.{name}" in sys.modules:
            register(name)


def register(name: str) -> None:
    """Register with the Auto class of one of the modules ``WAITED``."""
    from omnihuman.release.hub.configuration import OmniHumanConfig

    if name == "configuration_auto":
        from transformers.models.auto.configuration_auto import AutoConfig

        AutoConfig.register("omnihuman", OmniHumanConfig, exist_ok=True)
    elif name == "modeling_auto":
        from transformers.models.auto.modeling_auto import AutoModelForCausalLM

        from omnihuman.release.hub.huggingface import OmniHumanForCausalLM

        AutoModelForCausalLM.register(OmniHumanConfig, OmniHumanForCausalLM, exist_ok=True)
    else:
        from transformers.models.auto.processing_auto import AutoProcessor

        from omnihuman.release.hub.processor import OmniHumanProcessor

        AutoProcessor.register(OmniHumanConfig, OmniHumanProcessor, exist_ok=True)
