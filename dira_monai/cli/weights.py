"""The commands ``import-weights`` and ``export-weights``."""

from collections.abc import Iterator


def import_weights(file: str, *, output: str) -> Iterator[str]:
    """Turn a published weight file into a plain state dict of a stock network, which the bundles take as pretrained.

    Known are the U-Nets of DiRA (2D), Models Genesis and TransVW (3D) and the ResNets of MoCo, Barlow Twins, SimSiam,
    torchvision and MedicalNet.

    Args:
        file: published file or training checkpoint; it is never loaded unsafely.
        output: file to write.
    """
    from ..weights.convert import import_weights as run  # here, since the other commands need none of it

    yield from run(file, output)


def export_weights(file: str, *, output: str, layout: str) -> Iterator[str]:
    """Write the weights of a FlexibleUNet or a ResNet in names that other libraries read.

    Args:
        file: model.pt, encoder.pt or checkpoint.pt of a run.
        output: file to write.
        layout: torchvision (the encoder, without fc) or smp (the whole U-Net, for segmentation_models_pytorch).
    """
    from ..weights.convert import export_weights as run  # here, since the other commands need none of it

    yield from run(file, output, layout)
