"""Which sizes of images a network takes, and whether it gives an output of the size that is needed."""

import contextlib
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.instancenorm import _InstanceNorm

from ..utils.errors import InputError
from .encoder_decoder import downsampling, network_parts
from .encoder_parts import encoder_parts


def size_divisor(network: nn.Module) -> tuple[int, ...]:
    """What the size of an image must be a multiple of, per axis, for the output to have the same size."""
    factor = downsampling(network)
    return (1,) * len(factor) if network_parts(network).pads else factor


def check_patch_size(network: nn.Module, patch_size: Sequence[int]) -> None:
    """Refuse a patch size with which the network fails or gives an image of another size.

    The error names the rule and the nearest size that fits. Batch norm's need of two values per channel is not checked,
    since the batch may give them.
    """
    sizes, factor, divisor = list(patch_size), downsampling(network), size_divisor(network)
    name = type(network).__name__
    if len(sizes) != len(factor):
        raise InputError(f"patch_size {sizes} has {len(sizes)} axes, but this {name} takes {len(factor)}.")
    nearest = [max(f, (s + d // 2) // d * d) for s, f, d in zip(sizes, factor, divisor, strict=True)]
    relation, bound = ("a multiple of", divisor) if max(divisor) > 1 else ("at least", factor)
    rule = f"each axis must be {relation} {bound[0] if len(set(bound)) == 1 else list(bound)}"
    modules = [module for part in encoder_parts(network) for module in part.modules()]
    has_instance_norm = any(isinstance(module, _InstanceNorm) for module in modules)
    if has_instance_norm and all(n < 2 * f for n, f in zip(nearest, factor, strict=True)):
        axis = min(range(len(nearest)), key=lambda i: 2 * factor[i] - nearest[i])
        nearest[axis] = 2 * factor[axis]
        rule += ", and one axis at least twice that for instance norm"
    if nearest != sizes:
        raise InputError(f"patch_size {sizes} does not fit {name}: {rule}; the nearest that does is {nearest}.")


def check_output(network: nn.Module, in_channels: int, size: Sequence[int] | None, classes: int, spatial: bool) -> None:
    """Refuse a network that fails on images of this size, or gives an output of another shape.

    Args:
        network: on any device; nothing in it changes.
        in_channels: of the images.
        size: pixels or voxels per axis; None: not known, nothing is checked.
        classes: channels that the output must have.
        spatial: whether the output is an image of the same size, or one value a class.
    """
    if size is None:
        return
    if isinstance(size, int):
        raise InputError(f"the size of the images must be a list with a number for each axis, got {size}")
    with contextlib.suppress(TypeError):  # of a network that cannot be taken apart, only the output is known
        check_patch_size(network, size)
    name, training = type(network).__name__, network.training
    try:
        with torch.no_grad():
            images = torch.zeros(1, in_channels, *size, device=next(network.parameters()).device)
            output = network.eval()(images)
    except (RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f"images of {list(size)} with {in_channels} channels do not fit the {name}: {reason}"
        ) from error
    finally:
        network.train(training)
    given = list(output.shape[1:]) if isinstance(output, Tensor) else type(output).__name__
    wanted = [classes, *size] if spatial else [classes]
    if given != wanted:
        raise InputError(f"the {name} gives {given} for an image of {list(size)} where {wanted} is needed")
