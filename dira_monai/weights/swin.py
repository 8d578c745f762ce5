"""The encoder of MONAI's ``SwinUNETR`` as its self-supervised pre-trainings publish it."""

import re
from collections.abc import Mapping

from torch import Tensor

STEM = "swinViT.patch_embed.proj.weight"
SSL_SIGNS = ("patch_embed.proj.weight", "layers1.0.blocks.0.attn.qkv.weight")
SSL_PLACES = r"(?P<name>(?:patch_embed|layers\dc?)\..+)"
VOCO_SIGNS = (STEM, "encoder10.layer.conv1.conv.weight")
VOCO_PLACES = r"(?P<name>(?:swinViT|encoder\d+)\..+)"
ALONE = (
    "note: the file has swinViT alone; the convolutions encoder1 to encoder10 of SwinUNETR stay new: give "
    "minimum_coverage 0"
)


def ssl_to_stock(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Names of ``SwinUNETR``; earlier versions of MONAI call the linear layers of a block fc1 and fc2."""
    return {re.sub(r"\.mlp\.fc([12])\.", r".mlp.linear\1.", f"swinViT.{key}"): t for key, t in state.items()}


def swin_network(state: Mapping[str, Tensor]) -> str:
    """The ``SwinUNETR`` whose encoder a state dict in its names fits, as Python to write."""
    stem = state[STEM]
    blocks = [re.match(r"swinViT\.layers([1-4])\.0\.blocks\.(\d+)\.attn\.qkv\.weight", key) for key in state]
    depths = tuple(sum(1 for match in blocks if match and match[1] == str(layer)) for layer in (1, 2, 3, 4))
    tables = [state[f"swinViT.layers{n}.0.blocks.0.attn.relative_position_bias_table"] for n in (1, 2, 3, 4)]
    dims = stem.ndim - 2
    window = (round(tables[0].shape[0] ** (1 / dims)) + 1) // 2  # a row for each of (2 w - 1) ** dims differences
    part = "the encoder" if "encoder10.layer.conv1.conv.weight" in state else "swinViT"
    return (
        f"{part} of SwinUNETR({stem.shape[1]}, out_channels=?, feature_size={stem.shape[0]}, spatial_dims={dims}, "
        f"depths={depths}, num_heads={tuple(table.shape[1] for table in tables)}, window_size={window}, "
        f"use_v2={any(key.startswith('swinViT.layers1c.') for key in state)})"
    )
