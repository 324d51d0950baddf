"""The way in which the authors of a checkpoint ask it, in the config of a conversion: system text and description."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from omnihuman.inference.prompting import GROUP, compose_prompting
from omnihuman.template import derive_template


def read_system_text(tokenizer: Path, template: DictConfig) -> tuple[str | None, tuple[str, ...]]:
    """Return the system text of a tokenizer's own chat template, and a note if it replaces that of ours.

    Official code that renders its prompts with the tokenizer has the system text of the checkpoint, not ours. Where the
    tokenizer's template cannot tell, ours stays, and the note says why.

    Args:
        tokenizer: folder.
        template: of ``conf/llm/template``.
    """
    from transformers import AutoTokenizer

    loaded = AutoTokenizer.from_pretrained(tokenizer, trust_remote_code=False)
    default: str | None = template.system
    if not getattr(loaded, "chat_template", None):
        note = f"the tokenizer has no chat template: that of {template.name} is used, with the system text {default!r}"
        return default, (note,)
    try:
        system = derive_template(loaded).system
    except ValueError as error:
        return default, (str(error),)
    if system == default:
        return default, ()
    return system, (f"the system text is that of the tokenizer, {system!r}, in place of {default!r}",)


def add_prompting(
    config: DictConfig, name: str, options: Mapping[str, Any] | None = None, num_frames: int | None = None
) -> str:
    """Add the description ``name`` to the config of a model folder, and return a note on it.

    Args:
        config: of the model folder.
        name: of a yaml in ``conf/prompting``.
        options: in place of those of the yaml.
        num_frames: of a video, if the user has chosen it.

    Raises:
        ValueError: there is no such description.
    """
    plain = OmegaConf.to_container(compose_prompting(name), resolve=True)
    description: Any = OmegaConf.to_container(OmegaConf.merge(plain, options or {}))
    if num_frames:
        description["data"]["num_frames"] = num_frames
    config[GROUP] = description
    return f"it is asked as conf/prompting/{name}.yaml says, until it is trained; official_prompt=false: never"
