"""HumanOmni's released inference as options of a run."""

from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf

from omnihuman.data.chat import SYSTEM

HOW: Mapping[str, Any] = {"do_sample": False, "max_new_tokens": 2048}
"""How the released inference asks, where the user does not say."""

DTYPE = "float16"
"""What it makes of all weights, whatever they were trained in."""

OPTIONS: Mapping[str, Any] = {
    "model.llm.system": SYSTEM,
    "model.encoders.video.aspect": "squash",
    "model.encoders.audio.window_seconds": 30.0,
    "model.encoders.audio.keep": "window",
    "data.separator": "\n",
    "data.missing": "fill",
}
"""What it does, whatever the training did."""

HUMANOMNI = {
    "encoders.video": "omnihuman.encoder.siglip.SigLIP",
    "encoders.audio": "omnihuman.encoder.whisper.Whisper",
    "encoders.instruction": "omnihuman.encoder.bert.Bert",
    "fusions.gate": "omnihuman.fusion.gate.InstructionGate",
}
"""What a HumanOmni is made of; one that only sees has no ``encoders.audio``."""


def as_released(config: DictConfig) -> DictConfig:
    r"""The config of a HumanOmni's folder -> one that asks it as the released inference does; the given one stays.

    The user's turn is ``<vi_start>[video]<vi_end>\n<au_start>[audio]<au_end>\nQUESTION``, without the pair of what the
    modal leaves out, behind Qwen's own system text (markers where the model has them, ``mm_use_x_start_end``); BERT
    reads the bare question. Frames lie at the midpoints of equal segments of the file, as in training, and are squashed
    to the square, which training pads; sound is the first 30 s, always 500 tokens, and 10 s of zeros where a video has
    none.

    Reference: ``inference.py``, ``humanomni/__init__.py`` (``mm_infer``), ``mm_utils.py`` (``process_video``,
    ``process_audio``).
    Differs from it: no frames are encoded where the modal has no video; spaces around a question are cut off, and a
    question without media begins its turn, where the official one stands behind a newline; sound is resampled without
    decord's delay of a millisecond and ends where the header says; sound that is damaged, or is all that is asked for
    and missing, is refused, where the official code puts zeros.

    Args:
        config: of a model folder, as ``read_config`` gives it.

    Raises:
        ValueError: the folder holds no HumanOmni.
    """
    model, dropped = config.model, set(config.model.get("drop") or ())
    parts = {name: OmegaConf.select(model, f"{name}._target_") if name not in dropped else None for name in HUMANOMNI}
    allowed = HUMANOMNI | ({} if parts["encoders.audio"] else {"encoders.audio": None})
    wrong = [f"{name} is {found or 'not there'}" for name, found in parts.items() if found != allowed[name]]
    if (template := model.llm.template) != "chatml":
        wrong.append(f"llm.template is {template}")
    if wrong:
        raise ValueError(
            f"official_prompt=true asks as HumanOmni's inference does, and {config.get('name')} is no HumanOmni "
            f"({'; '.join(wrong)}): leave official_prompt out."
        )
    changed = config.copy()
    for key, value in OPTIONS.items():
        if OmegaConf.select(changed, key.rpartition(".")[0]) is not None:
            OmegaConf.update(changed, key, value, force_add=True)
    return changed
