"""The package itself: a light import, and the Auto classes of transformers."""

import subprocess
import sys

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


def test_import_is_light_and_classes_are_registered_on_request() -> None:
    process = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=False, timeout=300)
    assert process.returncode == 0, process.stderr
