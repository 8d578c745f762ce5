"""The U-Net of Models Genesis, which MONAI lacks."""

from collections import OrderedDict
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from monai.networks.layers.factories import Conv, Norm, Pool
from torch import Tensor, nn


class _ConvUnit(nn.Module):
    """Convolution of width 3, batch norm, ReLU; the size stays."""

    def __init__(self, spatial_dims: int, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv1 = Conv[Conv.CONV, spatial_dims](in_channels, out_channels, kernel_size=3, padding=1)
        self.bn1 = Norm[Norm.BATCH, spatial_dims](out_channels)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn1(self.conv1(x)))


class _Down(nn.Module):
    """Two convolutions, the first to half of the output channels; all levels but the finest halve the size before."""

    def __init__(self, spatial_dims: int, in_channels: int, out_channels: int, halve: bool = True) -> None:
        super().__init__()
        self.pool = Pool[Pool.MAX, spatial_dims](kernel_size=2) if halve else nn.Identity()
        self.ops = nn.Sequential(
            _ConvUnit(spatial_dims, in_channels, out_channels // 2),
            _ConvUnit(spatial_dims, out_channels // 2, out_channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.ops(self.pool(x))


class _Up(nn.Module):
    """Doubles the size, appends the skip features, two convolutions."""

    def __init__(self, spatial_dims: int, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.up_conv = Conv[Conv.CONVTRANS, spatial_dims](in_channels, in_channels, kernel_size=2, stride=2)
        self.ops = nn.Sequential(
            _ConvUnit(spatial_dims, in_channels + out_channels, out_channels),
            _ConvUnit(spatial_dims, out_channels, out_channels),
        )

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        return self.ops(torch.cat([self.up_conv(x), skip], dim=1))


class GenesisUNet(nn.Module):
    """U-Net of Models Genesis (Zhou et al., 2019, https://arxiv.org/abs/1908.06912), also of TransVW and of DiRA in 3D.

    With the defaults, names, shapes and order of its tensors are those of the published 3D files, once their prefix
    ``module.`` is cut off; the names keep the published channel counts whatever ``features`` says.

    Takes (B, in_channels, *spatial), each spatial size a multiple of 8, and returns (B, out_channels, *spatial).
    Two deviations from the published network: the output has no sigmoid, and the batch norms are stock ones, which
    use their running statistics in eval mode where the published ones go on using those of the batch.

    Args:
        spatial_dims: 2 or 3; 2 is an extension.
        in_channels: of the image.
        out_channels: of the result.
        features: channels of the four levels, fine to coarse, even numbers.
    """

    def __init__(
        self,
        spatial_dims: int = 3,
        in_channels: int = 1,
        out_channels: int = 1,
        features: Sequence[int] = (64, 128, 256, 512),
    ) -> None:
        super().__init__()
        if len(features) != 4 or any(channels % 2 for channels in features):
            raise ValueError(f"features must be four even numbers, got {tuple(features)}.")
        level64, level128, level256, level512 = features
        self.down_tr64 = _Down(spatial_dims, in_channels, level64, halve=False)
        self.down_tr128 = _Down(spatial_dims, level64, level128)
        self.down_tr256 = _Down(spatial_dims, level128, level256)
        self.down_tr512 = _Down(spatial_dims, level256, level512)
        self.up_tr256 = _Up(spatial_dims, level512, level256)
        self.up_tr128 = _Up(spatial_dims, level256, level128)
        self.up_tr64 = _Up(spatial_dims, level128, level64)
        output = Conv[Conv.CONV, spatial_dims](level64, out_channels, kernel_size=1)
        self.out_tr = nn.Sequential(OrderedDict(final_conv=output))

    def forward(self, x: Tensor) -> Tensor:
        """Logits, shape (B, out_channels, *spatial)."""
        skip64 = self.down_tr64(x)
        skip128 = self.down_tr128(skip64)
        skip256 = self.down_tr256(skip128)
        x = self.up_tr256(self.down_tr512(skip256), skip256)
        x = self.up_tr128(x, skip128)
        return self.out_tr(self.up_tr64(x, skip64))
