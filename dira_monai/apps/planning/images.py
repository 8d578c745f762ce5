"""Rules for images: intensities, spacing, and the sizes of patches. Each takes facts and gives a value and a reason."""

import math
from collections.abc import Sequence
from itertools import product

import numpy as np

from ...datalists.summary import span
from .facts import NONE, RESERVE, SHARE, Choice, DataFacts, DeviceFacts, NetworkFacts

HU_RANGE = [-1000, 1000]  # of Models Genesis and its successors: air to bone
AIR_HU = -500  # no other modality has such values in nearly every image
AGREEMENT = 0.1  # of the width of a range, by which two of fixed units may differ
MOST = 0.9  # of the images, for what holds of most
ALIKE = 0.05  # relative difference of spacings that are left as they are
COARSE = 3  # ratio of the longest to the shortest edge of a voxel beyond which nnU-Net calls images anisotropic
MAX_STRETCH = 2  # ratio of sides up to which a picture's shorter side fills the region
GROWTH = 8  # times the bundle's patch that a GPU with much memory gets at most: 128^3 in place of 64^3, as nnU-Net


def choose_intensity_range(facts: DataFacts) -> Choice:
    """What becomes 0 and 1: HU, gray values of pictures, a range that images share, or each image's percentiles."""
    low, high = np.median(facts.ranges, axis=0)
    least, most = float(facts.ranges[:, 0].min()), float(facts.ranges[:, 1].max())
    suits = (facts.ranges[:, 0] <= AIR_HU) & (facts.ranges[:, 1] > 0)
    if facts.spatial_dims == 3 and suits.mean() >= MOST:
        return Choice(HU_RANGE, f"{suits.sum()} of {len(suits)} images hold air and tissue in HU (Models Genesis)")
    if facts.spatial_dims == 2 and least >= 0 and high >= 64 and most <= 255:
        return Choice([0, 255], "pictures of 8 bits")
    agree = np.abs(facts.ranges - [low, high]).max(axis=1) <= AGREEMENT * (high - low)
    if facts.spatial_dims == 2 and agree.mean() >= MOST:
        return Choice([least, most], f"{agree.sum()} of {len(agree)} images share about this range")
    return Choice(NONE, f"no fixed unit (values from {low:g} to {high:g} in the median): percentiles of each image")


def choose_spacing(facts: DataFacts) -> Choice:
    """Voxel size in mm that volumes are resampled to: where they differ, the median (nnU-Net, Isensee et al., 2021).

    As there, an axis whose voxels are more than three times as long as those of the finest one gets the tenth
    percentile of its spacings: volumes with fine slices should not lose all of them.
    """
    if facts.spacings is None:
        return Choice(NONE, "the images have no voxel size")
    median = np.median(facts.spacings, axis=0)
    alike = np.abs(facts.spacings / median - 1).max(axis=1) <= ALIKE
    if alike.mean() >= MOST:
        return Choice(NONE, f"{alike.sum()} of {len(alike)} images have about {span([median.tolist()])} mm")
    coarse = median > COARSE * median.min()
    spacing = np.where(coarse, np.percentile(facts.spacings, 10, axis=0), median)
    note = ", tenth percentile of the coarse axis" if coarse.any() else ""
    return Choice(
        [float(f"{mm:.3g}") for mm in spacing], f"median of {span(facts.spacings.tolist())} mm{note} (nnU-Net)"
    )


def usual_least(lengths: np.ndarray) -> int:
    """The smallest length, but for outliers: a tenth of the images at most, shorter than half of the median."""
    half = lengths[2 * lengths >= np.median(lengths)].min()
    return int(min(half, np.sort(lengths)[int((1 - MOST) * len(lengths) + 1e-9)]))


def choose_patch(
    shapes: np.ndarray, published: Sequence[int], batch: int, network: NetworkFacts, device: DeviceFacts
) -> Choice:
    """What the network sees of a volume: nnU-Net's patch, from the images' shape, the network and the memory.

    The largest multiple of the network's downsampling that fits into the images; then the axis that is longest, in
    relation to what it could be, is shortened until there are no more voxels than the bundle's patch has. On a GPU
    there may be ``GROWTH`` times as many, as far as a batch of the bundle's size fits into its memory.

    Args:
        shapes: of the images as they are loaded, (N, D).
        published: the bundle's patch.
        batch: the bundle's batch.
        network: gives the downsampling.
        device: gives the memory.
    """
    room = np.array([usual_least(axis) for axis in shapes.T])
    factor, unit = np.array(network.factor), np.array(network.unit)
    largest = np.maximum(factor, room // unit * unit)
    limit, reason = math.prod(published), "no more voxels than the bundle's patch"
    if device.name.startswith("cuda"):
        fits = (SHARE * device.memory - RESERVE) / (network.bytes_per_voxel * batch)
        limit, reason = int(min(GROWTH * limit, max(limit, fits))), f"a batch of {batch} fits into the GPU"
    patch = largest.copy()
    while math.prod(patch) > limit and (patch > factor).any():
        ratio = np.where(patch > factor, patch / largest, 0)
        axis = int(np.lexsort((-patch, -ratio))[0])
        patch[axis] = max(factor[axis], patch[axis] - unit[axis])
    if patch.max() < network.least:
        patch[int(np.argmax(room))] = network.least
        reason = f"the network needs {network.least} along one axis"
    elif (patch == largest).all():
        reason = "largest that fits into the images"
    sizes = " x ".join(map(str, room))
    return Choice(patch.tolist(), f"multiple of {unit.max()} within {sizes}; {reason} (nnU-Net)")


def choose_region(shapes: np.ndarray, patch: Sequence[int], published: Sequence[float]) -> Choice:
    """What a view is cropped from: the bundle's multiple of the patch, but no more than the images have.

    Args:
        shapes: of the images as they are loaded, (N, D).
        patch: what the network sees.
        published: the bundle's region in patches, by axis.
    """
    room = [usual_least(axis) for axis in shapes.T]
    wanted = [round(n * part) for n, part in zip(patch, published, strict=True)]
    region = [max(n, min(want, have)) for n, want, have in zip(patch, wanted, room, strict=True)]
    reason = f"{published[0]:.3g} patches" if region == wanted else "no larger than the images"
    small = int((shapes < region).any(axis=1).sum())
    return Choice(region, reason + (f"; {small} of {len(shapes)} smaller images are padded" if small else ""))


def choose_square(facts: DataFacts, published: Sequence[int], network: NetworkFacts) -> Choice:
    """Patch of pictures in pre-training: the bundle's, or the largest multiple that needs no magnification."""
    short = usual_least(facts.shapes.min(axis=1))
    side = max(network.least, min(max(published), short // network.unit[0] * network.unit[0]))
    reason = "as published" if side == max(published) else f"multiple of {network.unit[0]} within {short} pixels"
    return Choice([side] * facts.spatial_dims, reason)


def choose_square_region(facts: DataFacts, patch: Sequence[int], published: Sequence[float]) -> Choice:
    """What a view of a picture is cropped from: the bundle's multiple of the patch, no larger than the picture."""
    short = usual_least(facts.shapes.min(axis=1))
    wanted = [round(n * part) for n, part in zip(patch, published, strict=True)]
    side = max(patch[0], min(wanted[0], short))
    reason = f"{published[0]:.3g} patches" if side == wanted[0] else f"shorter side of the images, {short} pixels"
    return Choice([side] * len(patch), reason)


def choose_longest_side(facts: DataFacts, region: Sequence[int]) -> Choice:
    """Longest side of pictures after loading, with which the shorter one fills the region: no black bars."""
    stretch = facts.shapes.max(axis=1) / facts.shapes.min(axis=1)
    largest = min(MAX_STRETCH, float(stretch.max()))
    note = f"; {int((stretch > largest).sum())} longer ones are padded" if stretch.max() > largest else ""
    return Choice(math.ceil(max(region) * largest), f"the shorter side fills the region up to {largest:.2f} : 1{note}")


def choose_whole_size(shapes: np.ndarray, published: Sequence[int], network: NetworkFacts) -> Choice:
    """Size that whole images are resized to: the median shape's proportions in at most the bundle's number of voxels.

    Of the multiples of the network's downsampling around it, the ones with the least change of proportions.

    Args:
        shapes: of the images as they are loaded, (N, D).
        published: the bundle's size.
        network: gives the downsampling.
    """
    median, limit = np.median(shapes, axis=0), math.prod(published)
    scaled = median * min(1.0, (limit / float(np.prod(median))) ** (1 / len(median)))
    around = [
        sorted({max(f, math.floor(n / u) * u), max(f, math.ceil(n / u) * u)})
        for n, f, u in zip(scaled, network.factor, network.unit, strict=True)
    ]
    sizes = [size for size in product(*around) if math.prod(size) <= limit and max(size) >= network.least]

    def change(size: Sequence[int]) -> tuple[float, int]:
        ratio = np.log(np.array(size) / median)
        return round(float(ratio.max() - ratio.min()), 6), -math.prod(size)

    best = min(sizes or [tuple(published)], key=change)
    shape = " x ".join(f"{n:g}" for n in median)
    return Choice(list(best), f"multiple of {max(network.unit)} in the proportions of the median {shape}")


def choose_cache_dtype(published: str, intensity_range: object) -> Choice:
    """How images are kept: more than 256 gray values do not fit into the 8 bits that suit pictures."""
    deep = intensity_range != [0, 255]
    if published == "uint8" and deep:
        return Choice("float16", "more gray values than 8 bits hold")
    return Choice(published, "as the bundle has it")
