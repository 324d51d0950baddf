"""SigLIP: frames -> patch tokens."""

from typing import Literal

import torch
from torch import Tensor
from transformers import SiglipVisionConfig, SiglipVisionModel

from omnihuman.encoder.base import Encoder, blocks_read
from omnihuman.encoder.weights import check_sizes, load_report
from omnihuman.nn.frames import SquareFrames
from omnihuman.nn.rows import on_real
from omnihuman.types import Features, Layout, Signal


class SigLIP(Encoder):
    """Frames ``[B T 3 S S]`` uint8 -> patch tokens ``[B T N D]`` of one inner block.

    All real frames of a batch go through in one pass. The blocks after the one that is read are never built, nor is the
    pooling head, and the final norm is not kept; SigLIP has no class token.

    Reference: HumanOmni ``encoder.py``, ``hidden_states[mm_vision_select_layer]`` with -2.

    Args:
        weights: folder or hub id; ``null`` builds the sizes at random.
        image_size: side of a frame in pixels.
        patch_size: side of a patch in pixels.
        hidden_size: width D of a token.
        intermediate_size: width inside a block.
        num_hidden_layers: blocks of the whole tower, also those that are not built.
        num_attention_heads: heads of a block.
        select_layer: which hidden state is read, counted as transformers counts them; -2 is one block before the last.
        aspect: what is done to frames that are not square: ``pad`` or ``squash``.
        reads: ``frames``, or ``faces`` for frames cropped to the face.

    Raises:
        ValueError: a size contradicts the weights, the weights do not fit, or there is no such layer.

    >>> tower = SigLIP(image_size=28, patch_size=14, hidden_size=16, intermediate_size=32, num_hidden_layers=3,
    ...                num_attention_heads=2)
    >>> frames = torch.zeros(1, 5, 3, 28, 28, dtype=torch.uint8)
    >>> tower(Signal(frames, torch.ones(1, 5, dtype=torch.bool))).tokens.shape
    torch.Size([1, 5, 4, 16])
    """

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
        aspect: Literal["pad", "squash"] = "pad",
        reads: Literal["frames", "faces"] = "frames",
    ) -> None:
        super().__init__()
        self.reads = reads
        sizes = {
            "image_size": image_size, "patch_size": patch_size, "hidden_size": hidden_size,
            "intermediate_size": intermediate_size, "num_hidden_layers": num_hidden_layers,
            "num_attention_heads": num_attention_heads,
        }  # fmt: skip
        read = blocks_read(select_layer, num_hidden_layers)
        if weights is None:
            model = SiglipVisionModel(SiglipVisionConfig(**sizes | {"num_hidden_layers": read}, vision_use_head=False))
        else:
            config = SiglipVisionConfig.from_pretrained(weights)
            check_sizes(weights, config, sizes)
            # set here: transformers 5.17 takes vision_use_head from a config only
            config.num_hidden_layers, config.vision_use_head = read, False
            model, info = SiglipVisionModel.from_pretrained(
                weights, config=config, dtype=torch.float32, output_loading_info=True
            )
            above = tuple(f"*encoder.layers.{block}.*" for block in range(read, num_hidden_layers))
            load_report(weights, info, dropped=(*above, "*head.*", "text_model.*", "logit_*"))
        self.embeddings, self.layers = model.embeddings, model.encoder.layers
        self.out_dim = hidden_size
        self.grid = (image_size // patch_size, image_size // patch_size)
        self.transform = SquareFrames(image_size, aspect)

    def layout(self, amount: int) -> Layout:
        return Layout(amount, self.grid[0] * self.grid[1], self.grid)

    def forward(self, signal: Signal) -> Features:
        frames, mask = signal.values.flatten(0, 1), signal.mask
        size, dtype = (self.grid[0] * self.grid[1], self.out_dim), self.embeddings.patch_embedding.weight.dtype
        with self.graph():
            tokens = on_real(lambda rows: self._read(frames[rows]), mask.flatten(), size, dtype)
        return Features.of(tokens.reshape(*mask.shape, *size), mask, self.grid)

    def _read(self, frames: Tensor) -> Tensor:
        pixels = frames.to(self.embeddings.patch_embedding.weight.dtype) / 127.5 - 1
        hidden: Tensor = self.embeddings(pixels)
        for layer in self.layers:
            hidden = layer(hidden, None)
        return hidden
