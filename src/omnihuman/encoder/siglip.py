"""SigLIP: frames -> patch tokens."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from transformers import SiglipVisionConfig, SiglipVisionModel

from omnihuman.encoder.base import Encoder, count_blocks
from omnihuman.encoder.weights import check_report, check_sizes
from omnihuman.nn.deferred import load_pretrained
from omnihuman.nn.finite import check_parameters
from omnihuman.nn.frames import Aspect, SquareFrames
from omnihuman.nn.levels import select_blocks, split_states, stack_states
from omnihuman.nn.masking import run_on_valid
from omnihuman.types import Features, Layout, Signal


class SigLIP(Encoder):
    """Frames ``[B T 3 S S]`` uint8 -> patch tokens ``[B T N D]`` of one inner block.

    All valid frames of a batch form one forward pass. The blocks after the selected one, the pooling head and the final
    norm are not built. SigLIP has no class token.

    Reference: HumanOmni ``encoder.py``, ``hidden_states[mm_vision_select_layer]`` with -2.

    Args:
        weights: folder or hub id; ``null`` initializes the sizes at random.
        image_size: side S of a frame in pixels.
        patch_size: side of a patch in pixels.
        hidden_size: width D of a token.
        intermediate_size: width of the hidden layer of a block.
        num_hidden_layers: blocks of the original model, including those that are not built.
        num_attention_heads: heads of a block.
        select_layer: index of the hidden state that becomes the tokens, as in transformers: 0 is the embedding, -2 the
            output of the second-to-last block.
        levels: blocks whose hidden states become levels (1 is the first block), or a number of blocks at even
            distances; 0 computes and stores no levels.
        aspect: resizing of frames that are not square: ``pad``, ``squash`` or ``crop``.

    Raises:
        ValueError: a size contradicts the weights, the weights do not fit, or a selected block does not exist.

    >>> encoder = SigLIP(image_size=28, patch_size=14, hidden_size=16, intermediate_size=32, num_hidden_layers=3,
    ...                  num_attention_heads=2, levels=[1, 2])
    >>> frames = torch.zeros(1, 5, 3, 28, 28, dtype=torch.uint8)
    >>> features = encoder(Signal(frames, torch.ones(1, 5, dtype=torch.bool)))
    >>> features.tokens.shape, len(features.levels)
    (torch.Size([1, 5, 4, 16]), 2)
    """

    sample_fields = ("frames", "faces")

    def __init__(
        self,
        *,
        image_size: int,
        patch_size: int,
        hidden_size: int,
        intermediate_size: int,
        num_hidden_layers: int,
        num_attention_heads: int,
        weights: str | None = None,
        select_layer: int = -2,
        levels: int | Sequence[int] = 0,
        aspect: Aspect = "pad",
    ) -> None:
        super().__init__()
        sizes = {
            "image_size": image_size,
            "patch_size": patch_size,
            "hidden_size": hidden_size,
            "intermediate_size": intermediate_size,
            "num_hidden_layers": num_hidden_layers,
            "num_attention_heads": num_attention_heads,
        }
        num_blocks = count_blocks(select_layer, num_hidden_layers)
        self.level_blocks = select_blocks(levels, num_blocks, "siglip")
        self.level_dims = (hidden_size,) * len(self.level_blocks)
        model = _build_model(weights, sizes, num_blocks)
        self.embeddings, self.layers = model.embeddings, model.encoder.layers
        self.out_dim = hidden_size
        self.grid = (image_size // patch_size, image_size // patch_size)
        self.transform = SquareFrames(image_size, aspect)

    def layout(self, amount: int) -> Layout:
        layout = Layout(amount, self.grid[0] * self.grid[1], self.grid)
        return layout._replace(levels=(layout,) * len(self.level_blocks))

    def forward(self, signal: Signal) -> Features:
        frames, mask = signal.values.flatten(0, 1), signal.mask
        num_states = len(self.level_blocks) + 1
        size, dtype = (num_states, self.grid[0] * self.grid[1], self.out_dim), self._dtype
        with self.graph():
            states = run_on_valid(lambda index: self._encode(frames[index]), mask.flatten(), size, dtype)
        return split_states(states.reshape(*mask.shape, *size), mask, self.grid)

    @property
    def _dtype(self) -> torch.dtype:
        dtype: torch.dtype = self.embeddings.patch_embedding.weight.dtype
        return dtype

    def _encode(self, frames: UInt8[Tensor, "K 3 _ _"]) -> Float[Tensor, "K S N D"]:
        """Return the levels and then the tokens of each frame."""
        hidden: Tensor = self.embeddings(frames.to(self._dtype) / 127.5 - 1)
        states = []
        for block, layer in enumerate(self.layers, start=1):
            hidden = layer(hidden, None)
            if block in self.level_blocks:
                states.append(hidden)
        return stack_states([*states, hidden])


def _build_model(weights: str | None, sizes: Mapping[str, Any], num_blocks: int) -> SiglipVisionModel:
    """Build the first ``num_blocks`` blocks, without the pooling head."""
    if weights is None:
        shorter = {**sizes, "num_hidden_layers": num_blocks}
        return SiglipVisionModel(SiglipVisionConfig(**shorter, vision_use_head=False))
    config = SiglipVisionConfig.from_pretrained(weights)
    check_sizes(weights, config, sizes)
    # transformers 5.17 reads vision_use_head from the config only, not from keyword arguments
    config.num_hidden_layers, config.vision_use_head = num_blocks, False
    model, report = load_pretrained(
        SiglipVisionModel.from_pretrained, weights, config=config, dtype=torch.float32, output_loading_info=True
    )
    above = tuple(f"*encoder.layers.{block}.*" for block in range(num_blocks, sizes["num_hidden_layers"]))
    check_report(weights, report, dropped=(*above, "*head.*", "text_model.*", "logit_*"))
    check_parameters(weights, model)
    return model
