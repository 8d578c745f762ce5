"""Painted primitives: places and sizes of their shapes against formulas, and what a seed fixes."""

import numpy as np
import pytest

from dira_monai.phantoms import primitives
from dira_monai.phantoms.primitives import REACH, SHAPES, draw_primitives

axes = pytest.mark.parametrize("axes", [(40, 30), (20, 24, 16)])
VOLUMES = {  # area and volume of a shape whose half-axes are 1, by geometry
    "ellipsoid": (np.pi, 4 / 3 * np.pi),
    "box": (1.6**2, 1.6**3),
    "octahedron": (2 * 1.2**2, 4 / 3 * 1.2**3),
    "cone": (0.45 * 1.8**2, np.pi * 0.45**2 * 1.8**3 / 3),
    "shell": (np.pi * (1 - 0.6**2), 4 / 3 * np.pi * (1 - 0.6**3)),
    "tube": (0.5 * 2, np.pi * 0.25**2 * 2),
    "lobes": (np.pi * (0.65**2 + 0.35**2 / 2), 4 / 3 * np.pi * (0.65**3 + 1.5 * 0.65 * 0.35**2)),
    "cross": (2 * 1.2 - 0.36, 3 * 2 * 0.36 - 2 * 0.6**3),
}


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("dims", [2, 3])
def test_a_shape_has_its_volume_and_stays_within_reach(name, dims):
    step = 0.005 if dims == 2 else 0.04
    line = np.arange(-1.5, 1.5, step) + step / 2
    place = np.stack(np.meshgrid(*[line] * dims, indexing="ij"))
    inside = SHAPES[name](place)
    assert inside.sum() * step**dims == pytest.approx(VOLUMES[name][dims - 2], rel=0.05)
    assert np.sqrt(np.square(place[:, inside]).sum(0)).max() <= REACH


@axes
def test_a_seed_fixes_the_image(axes):
    one, same, other = (draw_primitives(seed, (2, *axes)) for seed in (7, 7, 8))
    for first, second in zip(one, same, strict=True):
        np.testing.assert_array_equal(first, second)
    assert (one[0] != other[0]).mean() > 0.5
    image, classes = one
    assert (image.dtype, image.shape, classes.dtype, classes.shape) == (np.float32, (2, *axes), np.uint8, axes)
    assert image.min() >= 0
    assert image.max() <= 1
    assert (image[0] != image[1]).mean() > 0.5  # channels have gray values of their own


@axes
def test_all_shapes_are_drawn_and_some_background_stays(axes):
    classes = np.stack([draw_primitives(seed, (1, *axes))[1] for seed in range(40)])
    assert np.unique(classes).tolist() == list(range(len(SHAPES) + 1))
    assert 0.2 < (classes == 0).mean() < 0.9


@axes
def test_a_lone_primitive_differs_from_what_lies_behind_where_its_class_is(axes, monkeypatch):
    monkeypatch.setattr(primitives, "gaussian_filter", lambda image, sigma, mode: image)
    monkeypatch.setattr(primitives, "_waves", lambda rng, place, frequency: np.zeros(place.shape[1:], np.float32))
    behind = np.full((1, *axes), 0.5, np.float32)
    for seed in range(12):
        image, classes = draw_primitives(seed, (1, *axes), (1, 1), (0.3, 0.3), behind)
        inside, outside = image[0][classes > 0], image[0][classes == 0]
        assert np.median(outside) == pytest.approx(0.5, abs=0.01)
        assert len(inside) < 20 or abs(np.median(inside) - 0.5) > 0.03  # 0.05 less the noise
        assert len(np.unique(classes)) <= 2


@axes
def test_more_and_larger_primitives_cover_more(axes):
    def share(count, size):
        return np.mean([draw_primitives(seed, (1, *axes), count, size)[1] > 0 for seed in range(20)])

    assert share((2, 2), (0.1, 0.1)) < share((8, 8), (0.1, 0.1)) < share((8, 8), (0.3, 0.3))
