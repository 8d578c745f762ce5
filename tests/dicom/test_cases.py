"""Every folder of real DICOM files and what reading it must give, reasoned from the headers with pydicom alone.

A series of even slices keeps its numbers. What is uneven or tilted comes out on an even, upright grid: as many steps of
the median gap as fit the depth, and rows longer by the whole shift. A lone gap about twice its neighbors is a missing
slice, which nothing can restore. The pixels below header_edge_cases are noise: only their headers and decoding count.
"""

import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pydicom
import pytest
from scan_files import read

from dira_monai.images.find import find_images, read_image
from dira_monai.utils.errors import InputError

DATA = Path(os.environ.get("DIRA_DATA", Path(__file__).parents[3] / "shared/data")) / "dicom"
pytestmark = [
    pytest.mark.realdata,
    pytest.mark.skipif(not DATA.is_dir(), reason=f"no real scans: {DATA} is missing; set DIRA_DATA"),
]


class Case(NamedTuple):
    shape: tuple[int, ...]  # columns, rows, slices
    spacing: tuple[float, ...]  # mm
    note: str = ""
    first: str = ""  # names of the first and the last slice along the normal
    last: str = ""


EDGE = "header_edge_cases/"
SAGITTAL = Case((256, 256, 4), (1, 1, 1), first="IM-0001-0004-0001.dcm", last="IM-0001-0001-0001.dcm")
VOLUMES = {
    # JPEG lossless; z falls from -164.5 to -210.5 by 2 while the names rise; the normal is +z: last file first
    "ct_chest_jpeg_lossless": Case(
        (512, 512, 24), (0.634765625, 0.634765625, 2), first="99C628-ASAD_149.dcm", last="99C628-ASAD_124.dcm"
    ),
    # 13 gaps of 4.22 cos 18.5 = 4.00 mm, one of 1.08, 13 of 7.00: 144.08 mm deep = 36 steps of 4.002;
    # rows are shifted by 151.94 * 0.3173 = 48.21 mm = 98.7 pixels
    "ct_head_tilt_variable_spacing": Case(
        (512, 611, 37),
        (0.4882812, 0.4882812, 4.002),
        "uneven slice gaps 1.08 to 7 mm, resampled to 4 mm; slices sheared by 18.5 degrees (gantry tilt), straightened",
    ),
    # the names sort as 1, 10, 11, ...; z is 1 to 40
    "mr_brain_study3/11_HCropVolume": Case((34, 50, 40), (1, 1, 1), first="1.dcm", last="40.dcm"),
    # the names say nothing: the instance numbers 1 and 22 have the lowest and the highest position
    "mr_brain_study3/36468-FLAIRreg-58706": Case(
        (280, 320, 22), (0.6875, 0.6875, 6.5), first="000014.dcm", last="000011.dcm"
    ),
    "mr_brain_study3/37830-T2reg-78532": Case(
        (280, 320, 22), (0.6875, 0.6875, 6.5), first="000015.dcm", last="000004.dcm"
    ),
    # 5 mm along z at 14 degrees: gaps of 4.851 mm, shifts of 15 * 0.2419 = 3.63 mm = 8.7 pixels; no tag tells the tilt
    EDGE + "failing_gantrytilting_001": Case(
        (512, 521, 4), (0.41796875, 0.41796875, 4.851), "slices sheared by 14 degrees (gantry tilt), straightened"
    ),
    # the rows run along +y and the columns along -z, so the normal is -x: x = -100.8 comes first
    EDGE + "generic_compressed_j2k_001": SAGITTAL,
    EDGE + "generic_compressed_jpegls_001": SAGITTAL,
    EDGE + "generic_compressed_rle_001": SAGITTAL,
    # 8 frames whose positions are 0.9 mm apart, told for each frame
    EDGE + "siemens_multiframe_anatomical_001": Case((256, 256, 8), (0.9375, 0.9375, 0.9)),
}
REFUSED = {
    # z = 18.1, 23.1, 28.1, 38.1
    EDGE + "failing_sliceincrement_001": "a gap of 10 mm beside gaps of 5 mm, where slices are missing",
    # one series UID, a sagittal and an axial pair
    EDGE + "failing_sliceorientation_001": "is a folder with 2 DICOM series",
    "mr_brain_study3": "is a folder with 0 DICOM series",  # three folders, each with one
}


def test_every_folder_has_a_row():
    folders = {file.parent.relative_to(DATA).as_posix() for file in DATA.rglob("*") if file.is_file()}
    assert folders | {"mr_brain_study3"} == VOLUMES.keys() | REFUSED.keys()


@pytest.mark.parametrize("folder", VOLUMES)
def test_grid(folder):
    case = VOLUMES[folder]
    array, meta = read(DATA / folder)
    affine = meta["affine"]
    assert array.shape == case.shape
    np.testing.assert_allclose(np.linalg.norm(affine[:3, :3], axis=0), case.spacing, rtol=2e-3)
    axes = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    np.testing.assert_allclose(axes.T @ axes, np.eye(3), atol=2e-3)  # upright
    assert meta.get("note", "") == case.note


def rescaled(file):
    """Pixels as (columns, rows), by pydicom."""
    data = pydicom.dcmread(file)
    return data.pixel_array.T * float(data.get("RescaleSlope", 1)) + float(data.get("RescaleIntercept", 0))


@pytest.mark.parametrize("folder", [folder for folder, case in VOLUMES.items() if case.first])
def test_first_and_last_slice(folder):
    case = VOLUMES[folder]
    array, meta = read(DATA / folder)
    for index, name in ((0, case.first), (-1, case.last)):
        file = DATA / folder / name
        position = np.array(pydicom.dcmread(file, stop_before_pixels=True).ImagePositionPatient, dtype=float)
        origin = meta["affine"] @ [0, 0, index % array.shape[2], 1]
        np.testing.assert_allclose(origin[:3], position * [-1, -1, 1], atol=1e-3)
        try:
            expected = rescaled(file)
        except RuntimeError:  # pydicom has no plug-in for this compression
            continue
        np.testing.assert_array_equal(array[..., index], expected)


def test_hounsfield_units():
    array, _ = read(DATA / "ct_chest_jpeg_lossless")
    assert array.min() == -1024  # stored 0, intercept -1024
    histogram, edges = np.histogram(array[(array > 0) & (array < 150)], 30)
    assert 20 < edges[histogram.argmax()] < 80  # muscle, heart and blood
    assert (array < -700).mean() > 0.2  # lung and air


def test_multi_frame_pixels():
    folder = DATA / EDGE / "siemens_multiframe_anatomical_001"
    frames = pydicom.dcmread(next(folder.iterdir())).pixel_array  # in the file, positions rise along the normal
    np.testing.assert_array_equal(read(DATA / folder)[0], frames.T)


@pytest.mark.parametrize("folder", REFUSED)
def test_refused(folder):
    with pytest.raises(InputError, match=REFUSED[folder]):
        read(DATA / folder)


def test_series_of_a_study_and_orientations_of_a_series_are_volumes_of_their_own():
    study = find_images(DATA / "mr_brain_study3")
    assert [len(files) for files in study] == [40, 22, 22]
    pairs = find_images(DATA / EDGE / "failing_sliceorientation_001")
    assert [len(files) for files in pairs] == [2, 2]
    spacings = [
        np.linalg.norm(read_image(pair, DATA / EDGE / "failing_sliceorientation_001")[1]["affine"][:3, 2])
        for pair in pairs
    ]
    np.testing.assert_allclose(sorted(spacings), [3.3, 4.4], atol=0.05)
