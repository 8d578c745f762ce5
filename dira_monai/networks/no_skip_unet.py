"""The U-Net of MONAI without its skip connections, to measure what they are worth."""

from typing import Any

from monai.networks.nets import FlexibleUNet
from monai.networks.nets.flexible_unet import FLEXUNET_BACKBONE, UNetDecoder


class NoSkipUNet(FlexibleUNet):
    """``FlexibleUNet`` with the same encoder, whose decoder sees the deepest map alone.

    Args:
        spatial_dims: 2 or 3.
        in_channels: of the images.
        out_channels: of the output.
        backbone: of the encoder, such as resnet18.
        norm: of the decoder.
        pre_conv: convolution before each enlargement; None: none.
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        out_channels: int,
        backbone: str,
        norm: Any = ("batch", {"eps": 1e-5, "momentum": 0.1}),
        pre_conv: str | None = None,
    ) -> None:
        super().__init__(in_channels, out_channels, backbone, spatial_dims=spatial_dims, norm=norm, pre_conv=pre_conv)
        encoder = FLEXUNET_BACKBONE.register_dict[backbone]
        levels, deepest = encoder["feature_number"], encoder["feature_channel"][-1]
        self.skip_connect, self.levels = 0, levels
        self.decoder = UNetDecoder(
            spatial_dims=spatial_dims,
            encoder_channels=[in_channels, *[0] * (levels - 1), deepest],
            decoder_channels=(256, 128, 64, 32, 16)[:levels],
            act=("relu", {"inplace": True}),
            norm=norm,
            dropout=0.0,
            bias=False,
            upsample="nontrainable",
            interp_mode="nearest",
            pre_conv=pre_conv,
            align_corners=None,
            is_pad=True,
        )
