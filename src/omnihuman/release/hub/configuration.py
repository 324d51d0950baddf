"""What config.json of a released folder says."""

from collections.abc import Mapping
from typing import Any

from transformers.configuration_utils import PreTrainedConfig


class OmniHumanConfig(PreTrainedConfig):
    """The graph of a released model.

    Args:
        graph: parts by class path with their arguments, as ``graph.graph_of`` makes it.
        kwargs: what every config of transformers has.
    """

    model_type = "omnihuman"

    def __init__(self, graph: Mapping[str, Any] | None = None, **kwargs: Any) -> None:
        self.graph = dict(graph or {})
        super().__init__(**kwargs)
