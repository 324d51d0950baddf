"""Chat templates: yamls, a template by yaml alone, and the chat template of a tokenizer as patterns."""

from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from transformers import AutoTokenizer

from omnihuman.build import compose_config, compose_part, config_dir, register_resolvers
from omnihuman.data.chat import PROBE, Chat, describe_difference
from omnihuman.llm.causal import CausalLM
from omnihuman.modality import SLOTS
from omnihuman.template import Template, build_template, derive_template, parse_template, render
from omnihuman.types import IGNORE_INDEX

CHATML = (
    "{% if messages[0]['role'] != 'system' %}<|im_start|>system\nBe kind.<|im_end|>\n{% endif %}{% for message in "
    "messages %}<|im_start|>{{ message['role'] + '\n' + message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LLAMA3 = (
    "{% for message in messages %}{% if loop.first %}<|begin_of_text|>{% endif %}<|start_header_id|>"
    "{{ message['role'] }}<|end_header_id|>\n\n{{ message['content'] | trim }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
GEMMA = (
    "<bos>{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for message in messages %}<start_of_turn>{{ 'model' if message['role'] == 'assistant' else message['role'] }}\n"
    "{{ message['content'] | trim }}<end_of_turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
MISTRAL = (
    "<s>{% if messages[0]['role'] == 'system' %}{% set system = messages[0]['content'] %}"
    "{% set messages = messages[1:] %}{% endif %}{% for message in messages %}"
    "{% if message['role'] == 'user' %} [INST] {% if loop.first and system is defined %}"
    "{{ system + '\n\n' }}{% endif %}{{ message['content'] }} [/INST]"
    "{% else %}{{ message['content'] }}</s>{% endif %}{% endfor %}"
)
OWN_TEMPLATES = {"chatml": CHATML, "llama3": LLAMA3, "gemma": GEMMA, "mistral": MISTRAL}
THINKING = CHATML.replace(
    "+ message['content']",
    "+ ('<think></think>' if loop.last and message['role'] == 'assistant' else '') + message['content']",
)
"""Only the last answer has an empty thought before it, as in Qwen3."""

TURNS = (
    ("user", "<video>\n<audio>\nWho waves?"),
    ("assistant", "The person."),
    ("user", "Why?"),
    ("assistant", "It is happy."),
)
COUNTS = {"video": 3, "audio": 2}


@pytest.fixture
def tokenizer(tokenizer_folder: str) -> Any:
    """Return a tokenizer with the special tokens of several families."""
    loaded = AutoTokenizer.from_pretrained(tokenizer_folder)
    tokens = ["<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
    tokens += ["<bos>", "<start_of_turn>", "<end_of_turn>", "<s>", "</s>"]
    loaded.add_special_tokens({"additional_special_tokens": tokens})
    return loaded


def read_llama3_yaml() -> str:
    """Return the yaml in CONTRIBUTING.md."""
    guide = (Path(__file__).parents[1] / "CONTRIBUTING.md").read_text()
    return guide.partition("`conf/llm/template/llama3.yaml`:\n\n```yaml\n")[2].partition("```")[0]


def compose_with_llama3(folder: Path, *overrides: str) -> Any:
    """Compose a run with a template that is only a yaml in a folder of the user."""
    (folder / "conf" / "llm" / "template").mkdir(parents=True)
    (folder / "conf" / "llm" / "template" / "llama3.yaml").write_text(read_llama3_yaml())
    register_resolvers()
    search = f"hydra.searchpath=[file://{folder}/conf]"
    with initialize_config_dir(config_dir(), version_base="1.3"):
        choice = "llm/template@model.llm.template=llama3"
        return compose("train", overrides=["+experiment=humanomni_stage1", search, choice, *overrides])


def test_a_yaml_adds_a_template(tokenizer: Any, tmp_path: Path) -> None:
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    sizes = {"model_type": "llama", "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = compose_with_llama3(tmp_path, "model.llm.template.system='Be {kind}.'")
    llm = CausalLM(
        str(tmp_path / "tokenizer"), template=config.model.llm.template, architecture={**sizes, "intermediate_size": 16}
    )
    assert llm.end_id == tokenizer.convert_tokens_to_ids("<|eot_id|>") == llm.end_ids[0]
    ids, labels = Chat(llm.tokenizer, llm.template, markers=False).encode(TURNS, COUNTS)
    header = "<|start_header_id|>{}<|end_header_id|>\n\n"
    start = f"<|begin_of_text|>{header.format('system')}Be {{kind}}.<|eot_id|>{header.format('user')}"
    first = len(tokenizer.encode(start))
    assert tokenizer.decode(ids[:first]) == start and ids[first : first + 3] == [SLOTS["video"]] * 3
    assert ids[0] == tokenizer.convert_tokens_to_ids("<|begin_of_text|>")
    assert ids.count(tokenizer.convert_tokens_to_ids("<|start_header_id|>")) == 5
    answers = tokenizer.decode([label for label in labels if label != IGNORE_INDEX])
    assert answers == "The person.<|eot_id|>It is happy.<|eot_id|>"
    tokenizer.chat_template = LLAMA3
    assert describe_difference(Chat(tokenizer, llm.template)) is None


def test_a_yaml_for_another_tokenizer_raises(tokenizer_folder: str, tmp_path: Path) -> None:
    template = parse_template(compose_with_llama3(tmp_path).model.llm.template)
    with pytest.raises(ValueError, match=r"splits <\|begin_of_text\|> into \d+ tokens.*llama3"):
        Chat(AutoTokenizer.from_pretrained(tokenizer_folder), template)


@pytest.mark.parametrize("name", sorted(path.stem for path in (Path(config_dir()) / "llm" / "template").glob("*.yaml")))
def test_every_yaml_is_a_template(name: str, tokenizer: Any) -> None:
    tokenizer.chat_template = CHATML
    config = compose_config(["+experiment=humanomni_stage1", f"llm/template@model.llm.template={name}"])
    assert Chat(tokenizer, build_template(config.model.llm.template, tokenizer)).template.name == name


@pytest.mark.parametrize("name", OWN_TEMPLATES)
@pytest.mark.parametrize("system", [None, "Look."])
def test_own_template_of_a_tokenizer_as_patterns(name: str, system: str | None, tokenizer: Any) -> None:
    tokenizer.chat_template = OWN_TEMPLATES[name]
    if system is not None and name in ("gemma", "mistral"):
        with pytest.raises(ValueError, match=r"no system turn.*'Look\.'"):
            derive_template(tokenizer, system)
        return
    chat = Chat(tokenizer, build_template({"name": "tokenizer", "system": system}, tokenizer), markers=False)
    assert describe_difference(chat) is None
    turns = TURNS[2:] if system is None else (("system", system), *TURNS[2:])
    ids, labels = chat.encode(TURNS[2:], {})
    assert ids == render(tokenizer, turns, add_generation_prompt=False, tokenize=True)
    assert tokenizer.decode([label for label in labels if label >= 0]) == f"It is happy.{chat.template.end_of_turn}"
    with_slots, _ = chat.encode(TURNS, COUNTS)
    text = tokenizer.decode([token for token in with_slots if token >= 0])
    plain = render(tokenizer, [*turns[:-2], ("user", "Who waves?"), *TURNS[1:]], add_generation_prompt=False)
    assert text == plain.replace("Who waves?", "\n\nWho waves?")


def test_system_prompt_of_the_own_template(tokenizer: Any) -> None:
    tokenizer.chat_template = CHATML
    template = derive_template(tokenizer)
    assert (template.begin, template.system) == ("", "Be kind.") and template.end_of_turn == "<|im_end|>"
    assert template.turn_separator == "\n"
    tokenizer.chat_template = LLAMA3
    template = derive_template(tokenizer)
    assert (template.begin, template.system) == ("<|begin_of_text|>", None) and template.system_turn is not None


def test_tokenizer_without_a_template_raises(tokenizer_folder: str) -> None:
    loaded = AutoTokenizer.from_pretrained(tokenizer_folder)
    with pytest.raises(ValueError, match=r"no chat template: .*llm/template@model\.llm"):
        build_template(compose_part("llm/template", "tokenizer"), loaded)


@pytest.mark.parametrize(
    "chat_template",
    [THINKING, "{{ messages[0]['content'] }}", MISTRAL.replace("{% else %}", "{% else %}Well: ")],
    ids=["thoughts", "one turn", "text before an answer"],
)
def test_own_template_that_differs_between_turns_raises(chat_template: str, tokenizer: Any) -> None:
    tokenizer.chat_template = chat_template
    with pytest.raises(ValueError, match=r"render all turns.*yaml in conf/llm/template"):
        derive_template(tokenizer)


def test_own_template_without_an_end_of_turn_token_raises(tokenizer: Any) -> None:
    tokenizer.chat_template = CHATML.replace("<|im_end|>", "###")
    with pytest.raises(ValueError, match=r"llm\.template\.assistant_turn is .*special_tokens"):
        derive_template(tokenizer)


def test_white_space_that_the_own_template_adds_is_reported(tokenizer: Any) -> None:
    tokenizer.chat_template = MISTRAL.replace("{% else %}", "{% else %} ")
    message = describe_difference(Chat(tokenizer, derive_template(tokenizer)))
    assert message is not None and "yaml in conf/llm/template" in message


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"user": "x"}, "missing keys: none; unknown keys: user; .*chatml.yaml"),
        ({"user_turn": "x"}, r"llm\.template\.user_turn is 'x'; .*one {}"),
        ({"user_turn": None}, r"llm\.template\.user_turn is None; .*\btext\."),
        ({"special_tokens": "<s>"}, r"llm\.template\.special_tokens is '<s>'; .*list of texts"),
        ({"reserved_texts": [""]}, r"llm\.template\.reserved_texts is .*; .*list of texts"),
        ({"assistant_turn": "{} <|im_end|>"}, r"llm\.template\.assistant_turn is .*special_tokens"),
        ({"system_turn": None}, "chatml .*no system turn.*'You are Qwen"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_invalid_keys_raise(change: dict[str, Any], message: str) -> None:
    plain: Any = OmegaConf.to_container(compose_part("llm/template", "chatml"))
    with pytest.raises(ValueError, match=message):
        parse_template({**plain, **change})


def test_name_in_place_of_the_keys_raises(tokenizer: Any) -> None:
    config = compose_config(["+experiment=humanomni_stage1", "model.llm.template=mistral"])
    with pytest.raises(ValueError, match=r"llm\.template is 'mistral'; .*llm/template@model\.llm\.template="):
        build_template(config.model.llm.template, tokenizer)


def test_patterns_are_the_text_between_turns() -> None:
    template = Template("x", "Q:{}\n", "A:{}</s>\n", ("</s>", "</s"), begin="<s>", system_turn="{} ")
    assert (template.question_start, template.answer_start) == ("Q:", "\nA:")
    assert (template.end_of_turn, template.turn_separator) == ("</s>", "\n")
    assert template.open("Be {}.") == "<s>Be {}. " and template.open(None) == "<s>"
    assert PROBE[-1] == ("assistant", "")
