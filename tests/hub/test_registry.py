import subprocess
import sys

import pytest

IMPORTS = {
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
ASSERTIONS = """
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING
config = AutoConfig.for_model("omnihuman")
assert MODEL_FOR_CAUSAL_LM_MAPPING[type(config)].__name__ == "OmniHumanForCausalLM"
assert PROCESSOR_MAPPING[type(config)].__name__ == "OmniHumanProcessor"
import inspect, transformers.models.auto.configuration_auto as auto
assert "class AutoConfig" in inspect.getsource(auto)
"""


@pytest.mark.parametrize("order", IMPORTS)
def test_auto_classes_are_registered_in_every_order_of_imports(order: str) -> None:
    process = subprocess.run([sys.executable, "-c", IMPORTS[order] + ASSERTIONS], capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
