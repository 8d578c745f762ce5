"""Heads on the deepest feature map: the projections and predictions that objectives learn with."""

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def global_average_pool(features: Tensor) -> Tensor:
    """Mean of each channel over all voxels, (B, C), of maps (B, C, *spatial), in float32 at least.

    Half precision would round away what little the averages of different images differ by after instance norm, before
    a batch norm can enlarge it.
    """
    return features.flatten(2).mean(2, dtype=torch.promote_types(features.dtype, torch.float32))


class ProjectionHead(nn.Sequential):
    """Embeddings of unit length from the deepest feature map: global average, Linear, ReLU, Linear (MoCo-v2).

    With ``pooled_norm`` the averages are batch-normalized first. Networks with instance norm need it: there the average
    of a channel is nearly the same for every image, and without it embeddings collapse to one direction.
    """

    def __init__(self, in_channels: int, hidden_size: int, embedding_size: int, pooled_norm: bool = False) -> None:
        layers = [nn.Linear(in_channels, hidden_size), nn.ReLU(), nn.Linear(hidden_size, embedding_size)]
        super().__init__(*([nn.BatchNorm1d(in_channels, affine=False)] if pooled_norm else []), *layers)

    def forward(self, features: Tensor) -> Tensor:
        """Embeddings (B, D), float32, of feature maps (B, C, *spatial)."""
        return F.normalize(self.raw(features), dim=1)

    def raw(self, features: Tensor) -> Tensor:
        """Embeddings before they get unit length."""
        return super().forward(global_average_pool(features)).float()


class GlobalAverage(nn.Module):
    """``global_average_pool`` as a layer."""

    def forward(self, features: Tensor) -> Tensor:
        """Averages (B, C) of maps (B, C, *spatial)."""
        return global_average_pool(features)


def mlp(*widths: int, last_bias: bool = True, last_norm: bool = False) -> nn.Sequential:
    """Linear layers of these widths with batch norm and ReLU between them.

    Args:
        widths: of input, hidden layers and output.
        last_bias: whether the last layer has a bias; the others have none, as a batch norm follows.
        last_norm: whether the output is batch-normalized too, without scale and shift.
    """
    layers: list[nn.Module] = []
    for inputs, outputs in itertools.pairwise(widths[:-1]):
        layers += [nn.Linear(inputs, outputs, bias=False), nn.BatchNorm1d(outputs), nn.ReLU()]
    layers.append(nn.Linear(widths[-2], widths[-1], bias=last_bias and not last_norm))
    return nn.Sequential(*layers, *([nn.BatchNorm1d(widths[-1], affine=False)] if last_norm else []))


def pooled_mlp(
    *widths: int, pooled_norm: bool = False, last_bias: bool = True, last_norm: bool = False
) -> nn.Sequential:
    """A ``mlp`` of the averages of the channels of maps (B, C, *spatial); ``pooled_norm`` as in ``ProjectionHead``."""
    first = [GlobalAverage(), *([nn.BatchNorm1d(widths[0], affine=False)] if pooled_norm else [])]
    return nn.Sequential(*first, *mlp(*widths, last_bias=last_bias, last_norm=last_norm))
