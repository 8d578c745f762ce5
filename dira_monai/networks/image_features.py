"""Features of whole images by a frozen encoder."""

from collections.abc import Sequence

import torch
from monai.data.utils import dense_patch_slices
from torch import Tensor, nn

from ..utils.errors import InputError
from .encoder_decoder import encode
from .encoder_parts import encode_chain, encoder_parts, find_parts
from .heads import global_average_pool


@torch.no_grad()
def image_features(network: nn.Module, image: Tensor, window: Sequence[int], batch_size: int = 8) -> Tensor:
    """The global average of the deepest feature map over a whole image, float32, shape (D,), on the CPU.

    The image is seen through windows of the size that the network was trained with; they lie side by side, the last one
    of an axis against its end, and their averages are averaged. So any image fits into memory, and the features do not
    depend on ``batch_size``.

    Args:
        network: one of the known networks, or a classifier whose encoder is known, in evaluation mode.
        image: shape (C, *spatial), float in [0, 1], no axis shorter than the window's.
        window: voxels per axis.
        batch_size: windows that are encoded at once.
    """
    places = dense_patch_slices(image.shape[1:], window, window)
    crops = torch.stack([image[(slice(None), *place)] for place in places])
    parts = [global_average_pool(deepest_map(network, part)) for part in crops.split(batch_size)]
    return torch.cat(parts).mean(0).cpu()


def deepest_map(network: nn.Module, x: Tensor) -> Tensor:
    """The last map of the encoder of (B, C, *spatial): also of a classifier, which has no decoder.

    A network whose encoder is not known must give maps itself: what it returns is taken, of several maps the last.

    Raises:
        InputError: if what it returns is no map, or one whose channels come last.
    """
    if find_parts(network):
        return encode(network, x)[-1]
    if parts := encoder_parts(network):
        return encode_chain(parts, x)[-1]
    found = network(x)
    found = found[-1] if isinstance(found, Sequence) else found
    extents = set(zip(x.shape[2:], found.shape[2:], strict=False))
    if found.ndim != x.ndim or len(extents) > len(set(x.shape[2:])):
        raise InputError(
            f"a {type(network).__name__} makes {list(found.shape)} of an image of {list(x.shape)}, which is no map of "
            "features (B, channels, *cells); name an encoder that gives maps, as features_only does in timm"
        )
    return found


def standardize(features: Tensor, reference: Tensor) -> Tensor:
    """Features (N, D) less the mean of ``reference`` (M, D), divided by its standard deviation, float64.

    Each channel by itself; one that is constant in ``reference``, to six digits, becomes 0.
    """
    features, reference = features.double(), reference.double()
    mean, deviation = reference.mean(0), reference.std(0, correction=0)
    varies = deviation > 1e-6 * mean.abs()
    return torch.where(varies, (features - mean) / torch.where(varies, deviation, 1.0), 0.0)
