"""Small networks of every known class."""

from monai.networks.nets import BasicUNet, DynUNet, FlexibleUNet, SegResNet, SwinUNETR

from dira_monai.networks.genesis_unet import GenesisUNet


def flexible_unet(spatial_dims, backbone="resnet10", in_channels=1, out_channels=1, **options):
    defaults = {"decoder_channels": (8, 8, 4, 4, 2), "pre_conv": None, "norm": "batch"}
    return FlexibleUNet(in_channels, out_channels, backbone, spatial_dims=spatial_dims, **(defaults | options))


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
