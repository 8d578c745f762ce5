"""Two views of a volume of 64 x 64 x 32 voxels by other libraries: elastic deformation and the Models Genesis chain.

Ours: flips, elastic deformation within the slice, 10,000 shuffled blocks, a Bezier curve of intensity, in- or
out-painting, and the clean target. What a peer does less is said with it.
"""

import numpy as np
import torch
from published import cube_view

from .views_2d import Work

SHAPE = (64, 64, 32)


def cube() -> np.ndarray:
    """A volume of noise, float32 in [0, 1]."""
    return np.random.default_rng(0).random(SHAPE, dtype=np.float32)


def published() -> Work:
    """NumPy and SciPy from the papers' facts: all of the work."""
    volume = cube()
    return lambda: (cube_view(volume), cube_view(volume)), 2


def batchgenerators() -> Work:
    """batchgeneratorsv2: elastic deformation, mirroring, gamma (inverted too), blanked boxes; no voxels shuffled."""
    from batchgeneratorsv2.transforms.intensity.gamma import GammaTransform
    from batchgeneratorsv2.transforms.noise.blank_rectangle import BlankRectangleTransform
    from batchgeneratorsv2.transforms.spatial.mirroring import MirrorTransform
    from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform
    from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
    from batchgeneratorsv2.transforms.utils.random import RandomTransform

    volume, sizes = torch.from_numpy(cube())[None], ((10, 21), (10, 21), (5, 11))
    elastic = {"p_elastic_deform": 1, "elastic_deform_scale": 0.15, "elastic_deform_magnitude": 0.06}
    chain = ComposeTransforms(
        [
            SpatialTransform(SHAPE, 0, False, **elastic),
            MirrorTransform((0, 1, 2)),
            RandomTransform(GammaTransform((0.7, 1.5), 0.5, True, 1, 0), 0.9),
            RandomTransform(BlankRectangleTransform(sizes, 0, (1, 5)), 0.9),
        ]
    )
    return lambda: (chain(image=volume), chain(image=volume)), 2


def torchio() -> Work:
    """TorchIO: elastic deformation, flips, 100 swapped patches, gamma; no painting."""
    import torchio as t

    volume = t.ScalarImage(tensor=torch.from_numpy(cube())[None])
    chain = t.Compose(
        [
            t.RandomFlip((0, 1, 2), 0.4),
            t.RandomElasticDeformation(7, (7.5, 7.5, 0)),
            t.RandomSwap((6, 6, 3), 100, p=0.5),
            t.RandomGamma(0.4, p=0.9),
        ]
    )
    return lambda: (chain(volume), chain(volume)), 2


def monai() -> Work:
    """MONAI's own transforms without meta tensors: the same work, with 10,000 shuffled holes."""
    from monai import transforms as m
    from monai.data import set_track_meta

    set_track_meta(False)
    volume = torch.from_numpy(cube())[None]
    inside = {"max_holes": 5, "max_spatial_size": (21, 21, 11), "prob": 1}
    outside = {"max_holes": 5, "max_spatial_size": (37, 37, 18), "dropout_holes": False, "prob": 1}
    chain = m.Compose(
        [
            *(m.RandFlip(0.4, axis) for axis in range(3)),
            m.Rand3DElastic((8, 8), (60, 60), prob=1),
            m.RandCoarseShuffle(10000, 1, max_spatial_size=(6, 6, 3), prob=0.5),
            m.RandHistogramShift(4, prob=0.9),
            m.OneOf(
                [
                    m.RandCoarseDropout(1, (27, 27, 14), fill_value=(0, 1), **outside),
                    m.RandCoarseDropout(1, (11, 11, 5), fill_value=(0, 1), **inside),
                    m.Identity(),
                ],
                (0.72, 0.18, 0.1),
            ),
        ]
    )
    return lambda: (chain(volume), chain(volume)), 2
