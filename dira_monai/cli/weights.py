"""The commands ``import-weights`` and ``export-weights``."""

from collections.abc import Iterator


def import_weights(file: str, *, output: str) -> Iterator[str]:
    """Turn a published weight file into a plain state dict of a stock network, which the bundles take as pretrained.

    Known are the U-Nets of DiRA (2D), Models Genesis and TransVW (3D), the ResNets of MoCo, Barlow Twins, SimSiam,
    torchvision and MedicalNet, SwinUNETR of MONAI's SwinUNETR-SSL and VoCo, and the U-Nets of nnU-Net and nnssl
    (OpenMind).

    Args:
        file: published file or training checkpoint; it is never loaded unsafely.
        output: file to write.
    """
    from ..weights.convert import import_weights as run  # here, since the other commands need none of it

    yield from run(file, output)


def export_weights(file: str, *, output: str, layout: str, patch_size: list[int] | None = None) -> Iterator[str]:
    """Write the weights of a FlexibleUNet, a ResNet or a network of nnU-Net in names that other libraries read.

    Args:
        file: model.pt, encoder.pt or checkpoint.pt of a run.
        output: file to write.
        layout: torchvision or timm (the encoder, without fc), smp (the whole U-Net, for segmentation_models_pytorch)
            or nnunet (for nnUNetv2_train -pretrained_weights).
        patch_size: of the pre-training, "[64, 64, 32]"; with it, nnunet has the adaptation plan of nnssl too.
    """
    from ..weights.convert import export_weights as run  # here, since the other commands need none of it

    yield from run(file, output, layout, patch_size)
