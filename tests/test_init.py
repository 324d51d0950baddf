"""The package itself: a light import, the Auto classes of transformers, and a core without extras."""

from omnihuman.verb import EXTRAS
from tests.test_verb import run_without

CODE = """
import sys
finders = list(sys.meta_path)
import omnihuman
assert not {"torch", "transformers", "hydra"} & sys.modules.keys() and sys.meta_path == finders
from transformers import AutoConfig
omnihuman.register()
omnihuman.register()
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING
config = AutoConfig.for_model("omnihuman")
assert MODEL_FOR_CAUSAL_LM_MAPPING[type(config)].__name__ == "OmniHumanForCausalLM"
assert PROCESSOR_MAPPING[type(config)].__name__ == "OmniHumanProcessor"
"""


CORE = ("training.stage", "study", "studies.cell", "inference.answerer", "hub.export", "metric.emotion")
"""Modules of training, studies and answers."""


def test_import_is_light_and_the_core_needs_no_extra() -> None:
    """Classes are registered on request; all in one process, because its imports take seconds."""
    process = run_without(EXTRAS, CODE + "".join(f"import omnihuman.{module}\n" for module in CORE))
    assert process.returncode == 0, process.stderr
