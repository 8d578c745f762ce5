"""Label maps put on the grid of the DICOM series that they were made from."""

from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ...dicom.frames import read_frames
from ...dicom.geometry import Slices
from ...dicom.headers import group_series, list_series, read_header, read_tags
from ...dicom.series import slices_of
from ...utils.errors import InputError
from ..find import read_image

SAME_GRID = 0.1  # of a voxel that corners of one grid may lie beside those of the other
EMPTY = (  # tags of type 2, which may be empty but not missing, and which anonymized series lack
    *("PatientName", "PatientID", "PatientBirthDate", "PatientSex"),
    *("StudyID", "StudyDate", "StudyTime", "AccessionNumber", "ReferringPhysicianName"),
)


class Source(NamedTuple):
    """The images that a segmentation refers to."""

    datasets: list[Any]  # without pixels: one a slice, or one multi-frame file
    shape: tuple[int, int]  # columns, rows
    frames: np.ndarray  # numbers of the frames in rising order along their normal
    slices: Slices | None  # where these lie; None: a single image


def find_source(series: Path, series_uid: str | None = None) -> Source:
    """The images of a folder or of a file.

    Raises:
        InputError: if there is no series or several, or if its slices make no stack.
    """
    files = _one_series(series, series_uid)
    datasets = [read_tags(file) for file in files]
    for data, tag in product(datasets, EMPTY):
        if tag not in data:
            setattr(data, tag, "")
    first = datasets[0]
    shape = (int(first.Columns), int(first.Rows))
    if int(first.get("NumberOfFrames") or 1) > 1:
        order, slices = read_frames(files[0])
        if slices is None:
            raise InputError(f"{files[0]} holds {first.NumberOfFrames} frames without positions.")
        _share_groups(first)
        return Source(datasets, shape, order, slices)
    if len(datasets) == 1:
        if "SliceThickness" not in first and "PixelSpacing" in first:
            del first.PixelSpacing  # an X-ray: highdicom would write it without the thickness and then refuse the file
        return Source(datasets, shape, np.arange(1), None)
    slices = slices_of([header for file in files if (header := read_header(file))])
    gap = float(slices.gaps.mean()) if slices else 0
    for data in datasets:
        data.SliceThickness = data.get("SliceThickness") or gap  # type 2 too
    return Source(datasets, shape, np.arange(len(datasets)), slices)


def _share_groups(data: Any) -> None:
    """Tell once for all frames what is the same in each of them, where highdicom looks for it alone."""
    if not data.get("SharedFunctionalGroupsSequence"):
        data.SharedFunctionalGroupsSequence = [type(data.PerFrameFunctionalGroupsSequence[0])()]
    shared, frame = data.SharedFunctionalGroupsSequence[0], data.PerFrameFunctionalGroupsSequence[0]
    for name in ("PixelMeasuresSequence", "PlaneOrientationSequence"):
        if name not in shared:
            setattr(shared, name, frame.get(name))


def _one_series(series: Path, series_uid: str | None) -> list[Path]:
    if not series.exists():
        raise InputError(f"{series} does not exist.")
    found = list_series(series) if series.is_dir() else group_series([series], images_only=True)
    if not found:
        raise InputError(
            f"{series} holds no slice of a DICOM series; name the folder in which the slices themselves lie."
        )
    uids = [header.series for header in map(read_header, (stack[0] for stack in found)) if header]
    chosen = [stack for stack, uid in zip(found, uids, strict=True) if series_uid in (None, uid)]
    if len(chosen) != 1:
        listed = ", ".join(sorted(set(uids)))
        raise InputError(f"{series} holds {len(chosen)} DICOM series where one is needed ({listed}); see --series_uid.")
    return chosen[0]


def labels_on_source(file: Path, source: Source, class_count: int) -> tuple[np.ndarray, str]:
    """The label map as (frames in the order of the file, rows, columns), and how it came there.

    Raises:
        InputError: if its values are no classes, or if it lies elsewhere.
    """
    values, meta = read_image(str(file))
    unknown = np.setdiff1d(values, np.arange(class_count))
    if len(unknown):
        raise InputError(
            f"{file} holds the value {unknown[0]:g} where {class_count} classes allow 0 to {class_count - 1}."
        )
    values = values.astype(np.uint8 if class_count <= 256 else np.uint16)
    if source.slices is None:
        if values.shape != source.shape:
            raise InputError(f"{file} has {_by(values.shape)} pixels where the image has {_by(source.shape)}.")
        return values.T[None], "pixel by pixel"
    if values.ndim != 3 or "affine" not in meta:
        raise InputError(f"{file} is no volume with a place in space, which the series of {source.shape} pixels is.")
    planes, how = _planes(np.linalg.inv(meta["affine"]), values.shape, source.shape, source.slices)
    pixels = np.indices(source.shape).reshape(2, -1)
    result, reached = np.zeros((len(planes), pixels.shape[1]), values.dtype), 0
    for frame, plane in zip(source.frames, planes, strict=True):
        voxels = np.rint(plane[:3, :2] @ pixels + plane[:3, 3:]).astype(int)
        inside = ((voxels >= 0) & (voxels < np.array(values.shape)[:, None])).all(axis=0)
        result[frame, inside] = values[tuple(voxels[:, inside])]
        reached += int(inside.sum())
    if not reached or (values.any() and not result.any()):
        raise InputError(f"{file} lies elsewhere than the series: none of its labels meets a slice.")
    share = reached / result.size
    how += f", {share:.0%} of the series covered" if share < 1 else ""
    return result.reshape(-1, *source.shape).transpose(0, 2, 1), how


def _planes(
    to_voxel: np.ndarray, size: tuple[int, ...], shape: tuple[int, int], slices: Slices
) -> tuple[list[np.ndarray], str]:
    """For each slice the matrix from its columns and rows to voxels of the label map, and in words which grid that is.

    The series' own grid is its affine, with gaps of the mean length, or stock MONAI's, which stacks along the normal.
    """
    count = len(slices.positions)
    step = (slices.positions[-1] - slices.positions[0]) / (count - 1)
    upright = slices.axes[2] * np.linalg.norm(step)
    corners = np.array([[*corner, 1] for corner in product(*((0, n - 1) for n in (*shape, count)))])
    for own in (slices.affine, slices.affine_of(slices.positions[0], upright)):
        matrix = to_voxel @ own
        turned = np.rint(matrix)
        beside = abs(corners @ (matrix - turned).T).max()
        if beside < SAME_GRID and (abs(turned[:3, :3]) @ (*shape, count) == size).all():
            above = np.outer(turned[:, 2], np.eye(4)[3])  # from a slice to the next
            return [turned + index * above for index in range(count)], "voxel by voxel"
    planes = [to_voxel @ slices.affine_of(position, slices.axes[2]) for position in slices.positions]
    return planes, f"nearest voxels of a grid of {_by(size)}"


def _by(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))
