"""Fine-tuning with few labels: one supervised step, which layers learn how fast and when, when to stop, seeded data."""

from collections.abc import Iterator
from functools import singledispatch

from monai.networks.nets import FlexibleUNet, ResNet
from torch import nn

from .encoder_decoder import encoder_names


def encoder_parts(network: nn.Module) -> Iterator[nn.Module]:
    """The modules of a network that a pre-trained encoder fills.

    These are: of a U-Net those of ``encoder_names``; of MONAI's ``ResNet`` all but ``fc``; of a ``Sequential`` all
    before the first adaptive pooling; of any other network none.
    """
    if isinstance(network, ResNet):
        yield from (child for name, child in network.named_children() if name != "fc")
    elif isinstance(network, nn.Sequential):
        for child in network:
            if "AdaptiveAvgPool" in type(child).__name__ or "AdaptiveMaxPool" in type(child).__name__:
                return
            yield child
    else:
        try:
            names = encoder_names(network)
        except TypeError:
            return
        yield from (getattr(network, name) for name in names)


@singledispatch
def layers(network: nn.Module) -> list[nn.Module]:
    """The parts of a network from input to output: its child modules, in the order in which they are defined."""
    return list(network.children())


@layers.register
def _(network: FlexibleUNet) -> list[nn.Module]:
    return [*network.encoder.children(), *network.decoder.blocks, network.segmentation_head]
