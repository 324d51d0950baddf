"""The share of recomputed blocks that fits into a memory."""

from functools import partial

from omnihuman.build import compose_config
from omnihuman.cost.checkpointing import USABLE, choose_share, forecast_memory
from omnihuman.cost.forecast import Forecaster

SIZES = "hidden_size: 64, intermediate_size: 128, num_hidden_layers: 8, num_attention_heads: 2, num_key_value_heads: 2"
LLM = f"model.llm.architecture={{model_type: qwen2, {SIZES}}}"
OPTIONS = (LLM, "model.llm.weights=null", "recipe.activation_checkpointing=auto", "data.max_tokens=8192")


def test_the_least_share_that_fits_is_chosen() -> None:
    config, forecaster = compose_config(["+experiment=humanomni_stage1_face", *OPTIONS]), Forecaster()
    sizes = [sum(forecast_memory(forecaster, config, share).values()) for share in (0, 1)]
    choose = partial(choose_share, config, forecaster=forecaster)
    assert sizes[0] > 1.2 * sizes[1]
    assert choose(sizes[0] / USABLE + 1) == 0
    assert choose(sizes[1] / 2) == choose(sizes[1] / USABLE) == 1
    memory = (sizes[0] + sizes[1]) / 2 / USABLE
    share = choose(memory)
    assert 0.25 <= share < 1
    assert sum(forecast_memory(forecaster, config, share).values()) <= USABLE * memory
    assert sum(forecast_memory(forecaster, config, share - 0.25).values()) > USABLE * memory
    assert config.model.llm.activation_checkpointing == "auto"
