"""Small networks of every known class."""

from importlib import import_module
from importlib.util import find_spec

import pytest
from monai.networks.nets import BasicUNet, DynUNet, FlexibleUNet, SegResNet, SwinUNETR
from torch import nn

from dira_monai.networks.genesis_unet import GenesisUNet
from dira_monai.networks.no_skip_unet import NoSkipUNet


def flexible_unet(spatial_dims, backbone="resnet10", in_channels=1, out_channels=1, **options):
    defaults = {"decoder_channels": (8, 8, 4, 4, 2), "pre_conv": None, "norm": "batch"}
    return FlexibleUNet(in_channels, out_channels, backbone, spatial_dims=spatial_dims, **(defaults | options))


def no_skip_unet(spatial_dims):
    return NoSkipUNet(spatial_dims, 1, 1, "resnet10")


def seg_resnet(spatial_dims, **options):
    return SegResNet(spatial_dims, init_filters=8, out_channels=1, blocks_down=(1, 1, 2), blocks_up=(1, 1), **options)


def seg_resnet_with_dropout(spatial_dims):
    return seg_resnet(spatial_dims, dropout_prob=0.5)


def basic_unet(spatial_dims, in_channels=1, out_channels=1, **options):
    return BasicUNet(spatial_dims, in_channels, out_channels, features=(2, 4, 6, 8, 10, 2), **options)


def dyn_unet(spatial_dims, in_channels=1, out_channels=1, **options):
    strides = [1, [2] + [1] * (spatial_dims - 1), 2]  # the first axis is divided by 4, the others by 2
    channels = {"in_channels": in_channels, "out_channels": out_channels}
    shape = {"kernel_size": [3] * 3, "strides": strides, "upsample_kernel_size": strides[1:], "filters": (2, 4, 6)}
    return DynUNet(spatial_dims, **channels, **shape, **options)


def swin_unetr(spatial_dims):
    options = {"depths": (1,) * 4, "num_heads": (1,) * 4, "window_size": 2, "feature_size": 12}
    return SwinUNETR(1, 1, spatial_dims=spatial_dims, **options)


def genesis_unet(spatial_dims, in_channels=1, out_channels=1):
    return GenesisUNet(spatial_dims, in_channels, out_channels, features=(2, 4, 6, 8))


needs_nnunet = pytest.mark.skipif(
    find_spec("dynamic_network_architectures") is None, reason="nnU-Net's networks need dynamic-network-architectures"
)


def nnunet(spatial_dims, in_channels=1, out_channels=1, kind="ResidualEncoderUNet", **options):
    """A network of nnU-Net: its first axis is divided by 4, the others by 2; without dropout."""
    blocks = {"ResidualEncoderUNet": "n_blocks_per_stage", "PlainConvUNet": "n_conv_per_stage"}[kind]
    conv, norm = ((nn.Conv2d, nn.InstanceNorm2d), (nn.Conv3d, nn.InstanceNorm3d))[spatial_dims - 2]
    defaults = {
        "n_stages": 3,
        "features_per_stage": [4, 6, 8],
        "kernel_sizes": [[3] * (spatial_dims - 1) + [1], [3] * spatial_dims, [3] * spatial_dims],
        "strides": [[1] * spatial_dims, [2] + [1] * (spatial_dims - 1), [2] * spatial_dims],
        "n_conv_per_stage_decoder": [1, 1],
        "conv_bias": True,
        "norm_op_kwargs": {"eps": 1e-5, "affine": True},
        "nonlin": nn.LeakyReLU,
        "nonlin_kwargs": {"inplace": True},
        blocks: [1, 2, 1],
    }
    build = getattr(import_module("dynamic_network_architectures.architectures.unet"), kind)
    channels = {"input_channels": in_channels, "num_classes": out_channels}
    return build(conv_op=conv, norm_op=norm, **channels, **(defaults | options))


def plain_nnunet(spatial_dims, in_channels=1, out_channels=1, **options):
    return nnunet(spatial_dims, in_channels, out_channels, kind="PlainConvUNet", **options)
