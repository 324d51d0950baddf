"""HumanOmni's released inference as a change of a run's config."""

from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf

from omnihuman.build import compose_part

GENERATION_KWARGS: Mapping[str, Any] = {"do_sample": False, "max_new_tokens": 2048}
"""Generation options of the released inference, where the user gives none."""

DTYPE = "float16"
"""Dtype of all weights in the released inference."""

TEMPLATE = "chatml"
"""Chat template of the released inference, with its system prompt."""

OVERRIDES: Mapping[str, Any] = {
    "model.encoders.video.aspect": "squash",
    "model.encoders.audio.window_seconds": 30.0,
    "model.encoders.audio.keep": "window",
    "data.separator": "\n",
    "data.missing": "fill",
    "data.long_audio": "first",
}
"""Options of the released inference, for any training."""

PARTS = {
    "encoders.video": "omnihuman.encoder.siglip.SigLIP",
    "encoders.audio": "omnihuman.encoder.whisper.Whisper",
    "encoders.instruction": "omnihuman.encoder.bert.Bert",
    "fusions.gate": "omnihuman.fusion.gate.InstructionGate",
}
"""Parts that make a model a HumanOmni; one without audio has no ``encoders.audio``."""


def apply_official_inference(config: DictConfig) -> DictConfig:
    r"""Return the config of a HumanOmni's folder changed to prompts and preprocessing of the released inference.

    The user's turn is ``<vi_start>[video]<vi_end>\n<au_start>[audio]<au_end>\nQUESTION``, without the pair that the
    view leaves out, after Qwen's own system prompt (markers where the model has them, ``mm_use_x_start_end``); BERT
    reads the bare question. Frames are the midpoints of equal segments of the file, as in training, and are squashed to
    a square, which training pads; audio is the first 30 s, always 500 tokens, and 10 s of zeros for a video without
    audio.

    Reference: ``inference.py``, ``humanomni/__init__.py`` (``mm_infer``), ``mm_utils.py`` (``process_video``,
    ``process_audio``).
    Differs from it: no frames are encoded if the view has no video; spaces around a question are removed, and a
    question without media begins its turn, where the official one follows a newline; audio is resampled without
    decord's delay of a millisecond and ends where the header says; damaged audio, or missing audio in a view of audio
    alone, is refused, where the official code uses zeros.

    Args:
        config: of a model folder, as ``read_config`` returns it; it is not changed.

    Raises:
        ValueError: the folder does not hold a HumanOmni.
    """
    _check_is_humanomni(config)
    changed = config.copy()
    changed.model.llm.template = compose_part("llm/template", TEMPLATE)
    for key, value in OVERRIDES.items():
        if OmegaConf.select(changed, key.rpartition(".")[0]) is not None:
            OmegaConf.update(changed, key, value, force_add=True)
    return changed


def _check_is_humanomni(config: DictConfig) -> None:
    model = config.model
    dropped = set(model.get("drop") or ())
    problems = []
    for name, expected in PARTS.items():
        target = None if name in dropped else OmegaConf.select(model, f"{name}._target_")
        is_optional = name == "encoders.audio"
        if target != expected and not (is_optional and target is None):
            problems.append(f"{name} is {target or 'missing'}")
    template = OmegaConf.select(model, "llm.template.name")
    if template != TEMPLATE:
        problems.append(f"llm.template is {template}")
    if problems:
        raise ValueError(
            f"official_prompt=true uses HumanOmni's inference, but {config.get('name')} is not a HumanOmni "
            f"({'; '.join(problems)}): leave official_prompt out."
        )
