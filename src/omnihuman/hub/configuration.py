"""The config.json of a released folder."""

from collections.abc import Mapping
from typing import Any

from transformers.configuration_utils import PreTrainedConfig


class OmniHumanConfig(PreTrainedConfig):
    """The graph of a released model.

    Args:
        graph: parts by class path with their arguments, as ``graph.build_graph`` returns it.
        kwargs: of every transformers config.
    """

    model_type = "omnihuman"

    def __init__(self, graph: Mapping[str, Any] | None = None, **kwargs: Any) -> None:
        self.graph = dict(graph or {})
        super().__init__(**kwargs)
