import subprocess
import sys

import pytest

CHECKS = {
    "omnihuman first": """
import sys, omnihuman
assert not {"torch", "transformers", "hydra"} & sys.modules.keys()
from transformers import AutoConfig, AutoModelForCausalLM, AutoProcessor
""",
    "transformers first": """
from transformers import AutoConfig, AutoModelForCausalLM, AutoProcessor
import omnihuman
""",
    "a model of transformers in between": """
import transformers
import omnihuman
from transformers import Qwen2ForCausalLM
from transformers import AutoProcessor, AutoConfig, AutoModelForCausalLM
""",
}
THEN = """
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING
config = AutoConfig.for_model("omnihuman")
assert MODEL_FOR_CAUSAL_LM_MAPPING[type(config)].__name__ == "OmniHumanForCausalLM"
assert PROCESSOR_MAPPING[type(config)].__name__ == "OmniHumanProcessor"
import inspect, transformers.models.auto.configuration_auto as auto
assert "class AutoConfig" in inspect.getsource(auto)
"""


@pytest.mark.parametrize("order", CHECKS)
def test_the_classes_are_known_in_whatever_order_of_imports(order: str) -> None:
    done = subprocess.run([sys.executable, "-c", CHECKS[order] + THEN], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
