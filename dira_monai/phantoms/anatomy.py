"""The anatomy of the built-in phantoms: formulas that turn a seed into Hounsfield units and organs.

One template serves all, in millimeters, RAS+: x to the patient's right, y anterior, z superior, origin in mid-chest.
A patient is a pose (size, position, tilt) and a few smooth parameters, so the same place means the same anatomy in
everyone. A "depth" is the approximate distance in mm from a surface, positive inside.
"""

from collections.abc import Sequence
from functools import partial, reduce
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy import ndarray

ORGANS = {"background": 0, "lung": 1, "heart": 2, "bone": 3}

TUBES = (  # radius in mm, HU, organ, path in template mm
    (8, 45, 0, [(20, 4, -10), (24, 0, 100)]),  # superior vena cava
    (13, 45, 0, [(8, 20, -20), (18, 16, 45), (-2, -12, 60), (-26, -44, 46), (-20, -50, -150)]),  # aorta
    (6, 45, 0, [(-10, 8, 120), (-2, -8, 60), (12, 8, 50), (18, 6, 120)]),  # arteries of the neck
    (11, 45, 0, [(-18, 36, -10), (-28, 8, 24), (-46, -16, 18)]),  # pulmonary arteries
    (10, 45, 0, [(-24, 6, 20), (44, -12, 6)]),
    (8, -990, 0, [(2, -8, 160), (2, -22, 36)]),  # trachea, main bronchi
    (6, -980, 0, [(44, -26, 6), (2, -22, 36), (-44, -30, 4)]),
    (5.5, 550, 3, [(14, 80, 72), (72, 58, 82), (130, 6, 102)]),  # clavicles
    (5.5, 550, 3, [(-14, 80, 72), (-72, 58, 82), (-130, 6, 102)]),
)

_overlap = partial(reduce, np.minimum)  # depth in all of several shapes
_union = partial(reduce, np.maximum)  # depth in any of several shapes


class Patient(NamedTuple):
    """The pose and the parameters that make the template one patient."""

    to_world: ndarray  # (3, 3), template mm to world mm
    shift: ndarray  # (3,), world mm
    nodules: ndarray  # (n, 4), center and radius, world mm
    fat: float  # thickness under the skin, mm
    heart: float  # relative size
    breath: float  # height of the diaphragm, mm
    curve: float  # sideways bend of the spine, mm
    pitch: float  # distance between ribs, mm
    air: float  # HU of the lungs


def generator(seed: int | Sequence[int], stream: int) -> np.random.Generator:
    """Random numbers of a seed; each stream is independent of the others."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(stream,)))


def draw_patient(seed: int | Sequence[int]) -> Patient:
    """The patient of a seed, with 0 to 3 nodules of 4 to 15 mm in the lungs."""
    rng = generator(seed, 0)
    roll, pitch, yaw = rng.uniform(-0.06, 0.06, 3)  # radians, small enough to be added
    to_world = np.array([[1, -yaw, roll], [yaw, 1, -pitch], [-roll, pitch, 1]]) * rng.uniform(0.92, 1.05, 3)
    smooth = rng.uniform([5, 0.9, -9, -6, 21.5, -870], [17, 1.15, 9, 6, 24, -830])
    patient = Patient(to_world, rng.uniform(-6, 6, 3), np.empty((0, 4)), *smooth.tolist())
    radii = np.cbrt(rng.uniform(2**3, 7.5**3, rng.choice(4, p=[0.5, 0.25, 0.15, 0.1])))
    places = rng.uniform([-130, -90, -105], [130, 90, 105], (1000, 3))
    places = places[_regions(patient, *places.T)[3] > 11][: len(radii)]
    return patient._replace(nodules=np.column_stack([places @ to_world.T + patient.shift, radii]))


def _ball(x: ndarray, y: ndarray, z: ndarray, center: Sequence[float], radii: Sequence[float]) -> ndarray:
    squares = (np.square((p - c) * (1 / r)) for p, c, r in zip((x, y, z), center, radii, strict=True))
    return (1 - np.sqrt(sum(squares))) * min(radii)


def _regions(patient: Patient, x: ndarray, y: ndarray, z: ndarray) -> tuple[ndarray, ...]:
    """Depths in the cage of the ribs, below the diaphragm, in the heart and in the lungs."""
    u, v, w = np.square(x / 132), np.square(y / 92), np.maximum(z + 15, 0) / 124
    cage = (1 - np.sqrt(0.6 * (u + v) + 0.4 * np.sqrt(u * u + v * v) + w * w * w)) * 108
    dome = np.square((abs(x) - 62) / 78) + np.square((y - 6) / 92)
    abdomen = (patient.breath - 110 + (62 + 7 * np.tanh(x / 15)) * (1 - dome * np.sqrt(dome)) - z) * 0.75
    side = x + 24
    radii = [patient.heart * r for r in (62, 45, 47)]
    heart = _ball(side, y + 0.25 * side, z - 0.35 * side, (0, 22, patient.breath - 46), radii)
    middle = 21 - np.clip((y - 15) / 3, 0, 16) + np.maximum(z - 40, 0) * 0.1  # half the mediastinum
    return cage, abdomen, heart, _overlap([cage, -abdomen, -3 - heart, abs(x) - middle])


def _bones(patient: Patient, x: ndarray, y: ndarray, z: ndarray, cage: ndarray) -> ndarray:
    """Depth in the spine, the ribs and the sternum."""
    pitch, wide = patient.pitch, abs(x)
    dx, dy = abs(x - patient.curve * np.sin(z / 60)), y + 66
    level = abs(np.mod(z / pitch, 1) - 0.5) * pitch  # distance from the middle of a vertebra
    body = _overlap([(1 - np.hypot(dx / 20, dy / 16)) * 17, pitch / 2 - 2.5 - level])
    arch = _overlap([4 - abs(np.hypot(dx, dy + 25) - 13), 9 - level])
    wings = _overlap([32 - dx, 4 - abs(dy + 22), 6 - level - 0.08 * dx])
    process = _overlap([2.5 - dx, 5 - abs(dy + 40), 6 - level])
    azimuth = np.arctan2(wide / 132, -y / 92) * (1 / np.pi)  # 0 at the spine, 1 at the sternum
    height = z + 30 * azimuth + 70 * azimuth * azimuth  # ribs fall from the back to the front
    slant = abs(np.mod(height / pitch, 1) - 0.5) * pitch
    ends = _overlap([300 * (0.86 - azimuth), 130 + 0.9 * z - y, wide - 20, 5 * pitch - abs(height)])
    ribs = _overlap([2 - abs(cage + 5) / 2, 4.6 - 0.85 * slant, ends])
    sternum = _overlap([17 - wide, 5 - abs(cage + 7), z + 50, 84 - z, y])
    return _union([body, arch, wings, process, ribs, sternum])


def _change(hu: ndarray, value: float | ndarray, depth: ndarray, width: float) -> ndarray:
    return (depth * (1 / width) + 0.5).clip(0, 1) * (value - hu)  # the share of a voxel that the tissue fills


def _tissue(patient: Patient, x: ndarray, y: ndarray, z: ndarray, width: float) -> tuple[ndarray, ndarray]:
    """HU and organs at points in template millimeters, without tubes and nodules; edges are ``width`` mm wide."""
    cage, abdomen, heart, lung = _regions(patient, x, y, z)
    near = ((cage < 3) & (cage > -18)) | ((abs(x) < 45) & (y < -40))
    bones = _bones(patient, x[near], y[near], z[near], cage[near])
    neck = np.clip((z - 106) / 62, 0, 1)
    narrow = 1 - neck * neck * (3 - 2 * neck) * 0.62
    u, v = np.square(x / ((152 + patient.fat) * narrow)), np.square((y + 2) / ((107 + patient.fat) * (narrow + 1) / 2))
    skin = (1 - np.sqrt(0.6 * (u + v) + 0.4 * np.sqrt(u * u + v * v))) * 120
    belly = np.minimum(abdomen, cage)
    hu = np.full_like(x, -1000)
    for value, depth in (
        (-105, skin),
        (45, skin - patient.fat),
        (-85, cage),
        (15, belly),
        (58, np.minimum(belly, x + 40 - 0.4 * (z + 90))),  # liver
        (48, _ball(x, y, z, (-92, -40, -100), (32, 38, 40))),  # spleen
        (30, _ball(x, y, z, (-58, 20, -98), (44, 38, 26))),  # stomach and its gas
        (-950, _ball(x, y, z, (-62, 30, -88), (24, 22, 9))),
        (patient.air - 0.25 * y, lung),
        (42, heart),
    ):
        if depth.max() > -width / 2:
            hu += _change(hu, value, depth, width)
    hu[near] += _change(hu[near], 170 + 450 * np.clip(1 - bones / 2.5, 0, 1), bones, width)
    organs = np.where(heart > 0, np.uint8(ORGANS["heart"]), np.uint8(ORGANS["lung"]) * (lung > 0))
    organs[near] = np.where(bones > 0, np.uint8(ORGANS["bone"]), organs[near])
    return hu, organs


def _tubes(patient: Patient, rng: np.random.Generator) -> ndarray:
    """Rows of start, end (world mm), radius, HU, organ: ``TUBES``, and lung vessels as a fan that splits four times."""
    rows = [np.array([(*a, *b, *kind) for *kind, path in TUBES for a, b in pairwise(path)])]
    turn = np.arange(11) * 2.4
    fan = np.stack([abs(np.cos(turn)) + 0.3, 1.2 * np.sin(turn), np.linspace(-1.4, 1.4, 11)], axis=1)
    for side in (1, -1):
        start, direction = np.tile([side * 42.0, -14.0, 8.0], (len(fan), 1)), fan * (side, 1, 1)
        for length, radius in zip((34, 25, 20, 16, 13), (3.8, 2.9, 2.1, 1.5, 1.1), strict=True):
            direction = direction + rng.normal(0, 0.1, direction.shape)
            direction /= np.linalg.norm(direction, axis=1, keepdims=True)
            end = start + direction * length
            inside = _regions(patient, *end.T)[3] > 3
            start, direction, end = start[inside], direction[inside], end[inside]
            rows.append(np.column_stack([start, end, np.tile([radius, 40, ORGANS["lung"]], (len(end), 1))]))
            across = np.cross(direction, np.roll(direction, 1, axis=1))
            start, direction = np.concatenate([end, end]), np.concatenate([direction + across, direction - across])
    table = np.concatenate(rows)
    for ends in (slice(0, 3), slice(3, 6)):
        table[:, ends] = table[:, ends] @ patient.to_world.T + patient.shift
    return table


def _draw(hu: ndarray, organs: ndarray, axes: Sequence[ndarray], row: ndarray, width: float) -> tuple:
    """Paint one row of ``_tubes``, a ball where start equals end; returns its box and where it is in the box."""
    start, end, (radius, value, organ) = row[:3], row[3:6], row[6:]
    margin = radius + width
    limits = zip(axes, np.minimum(start, end) - margin, np.maximum(start, end) + margin, strict=True)
    box = tuple(slice(*np.searchsorted(axis, (low, high))) for axis, low, high in limits)
    offset = np.ix_(*((axis[s] - a).astype(np.float32) for axis, s, a in zip(axes, box, start, strict=True)))
    way = (end - start).astype(np.float32)
    along = np.clip(sum(o * w for o, w in zip(offset, way, strict=True)) / max(way @ way, 1e-3), 0, 1)
    depth = radius - np.sqrt(sum(np.square(o - along * w) for o, w in zip(offset, way, strict=True)))
    share = min(1.0, 2 * radius / width)  # of a voxel that a thin tube fills
    hu[box] += share * _change(hu[box], value, depth, width)
    inside = depth >= min(0.0, depth.max(initial=-margin))  # at least one voxel
    organs[box][inside & (organs[box] != ORGANS["heart"])] = organ
    return box, inside


def render(patient: Patient, rng: np.random.Generator, axes: Sequence[ndarray], width: float) -> tuple[ndarray, ...]:
    """HU without noise, organs and nodules on the grid of three world axes in mm."""
    shape = [len(axis) for axis in axes]
    hu, organs, nodules = np.empty(shape, np.float32), np.empty(shape, np.uint8), np.zeros(shape, np.uint8)
    to_template = np.linalg.inv(patient.to_world).astype(np.float32)
    x, y, z = np.ix_(*((axis - center).astype(np.float32) for axis, center in zip(axes, patient.shift, strict=True)))
    step = 1 + 30_000 // (shape[1] * shape[2])  # slabs that stay in the processor's cache
    for slab in (slice(first, first + step) for first in range(0, shape[0], step)):
        right, front, up = (x[slab] * row[0] + y * row[1] + z * row[2] for row in to_template)
        hu[slab], organs[slab] = _tissue(patient, right, front, up, width)
    for row in _tubes(patient, rng):
        _draw(hu, organs, axes, row, width)
    for number, (*center, radius) in enumerate(patient.nodules, 1):
        box, inside = _draw(hu, organs, axes, np.array([*center, *center, radius, 30, ORGANS["lung"]]), width)
        nodules[box][inside] = number
    return hu, organs, nodules
