import os
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
from monai.data import ITKReader
from monai.transforms import Compose, EnsureChannelFirst, LoadImage, Orientation
from pydicom import dcmread
from pydicom.encaps import encapsulate
from pydicom.uid import JPEGLosslessSV1
from scan_files import AXIAL, SAGITTAL, affine_of, cut, noise, write_series, write_slice

from dira_monai.errors import InputError
from dira_monai.reader import ScanReader

DATA = Path(os.environ.get("DIRA_DATA", Path(__file__).parents[2] / "shared/data"))
load = LoadImage(reader="dira_monai.reader.ScanReader", dtype=None)


def read(*files):
    reader = ScanReader()
    return reader.get_data(reader.read(files if len(files) > 1 else files[0]))


@pytest.mark.parametrize("orientation", [AXIAL, SAGITTAL, (0.8, 0.6, 0, -0.6, 0.8, 0)])
def test_dicom_series_is_what_itk_reads_from_the_folder(tmp_path, orientation):
    files = write_series(tmp_path, noise(6, 4, 5), orientation=orientation)
    to_ras = Compose([EnsureChannelFirst(), Orientation("RAS", labels=None)])
    loaded = to_ras(load(files[::-1]))
    expected = to_ras(LoadImage(reader=ITKReader, dtype=None)(tmp_path))
    np.testing.assert_array_equal(loaded.numpy(), expected.numpy())
    np.testing.assert_allclose(loaded.affine.numpy(), expected.affine.numpy(), atol=1e-6)


def test_dicom_series_in_slice_order_and_hu(tmp_path):
    volume = noise(6, 4, 5)
    files = write_series(tmp_path, volume)
    array, meta = read(*[files[i] for i in (3, 0, 5, 1, 4, 2)])
    np.testing.assert_array_equal(array, volume.T - 1024)
    expected = np.diag([-0.75, -0.5, 2.5, 1])
    expected[:3, 3] = [10, -20, 5]
    np.testing.assert_allclose(meta["affine"], expected)
    assert "note" not in meta


@pytest.mark.parametrize(
    ("depths", "shift", "note"),
    [
        ([0, 1, 2, 9, 10], (0, 0, 0), "uneven slice gaps 1 to 7 mm"),
        ([0, 2, 4.1, 6, 8], (0, 0, 0), None),
        ([0, 2, 4, 6, 8], (0, 1, 0), "slices sheared by 45 degrees (gantry tilt)"),
    ],
)
def test_dicom_note(tmp_path, depths, shift, note):
    files = write_series(tmp_path, noise(5, 4, 5), depths=depths, shift=shift)
    assert read(*files)[1].get("note") == note


def test_uneven_gaps_print_no_warning(tmp_path, capfd):
    files = write_series(tmp_path, noise(3, 4, 5), depths=[0, 1, 5])
    assert read(*files)[1]["affine"][2, 2] == pytest.approx(2.5)
    assert capfd.readouterr() == ("", "")


def test_dicom_xray(tmp_path):
    pixels = noise(4, 5)
    options = {"PixelRepresentation": 0, "BitsStored": 12, "HighBit": 11, "RescaleIntercept": 0}
    path = write_slice(tmp_path / "a", pixels, position=None, PhotometricInterpretation="MONOCHROME1", **options)
    array, meta = read(path)
    np.testing.assert_array_equal(array, 4095 - pixels.T)  # low values are bright in the file
    np.testing.assert_allclose(meta["affine"], np.diag([0.75, 0.5, 1, 1]))


def test_multi_frame_dicom(tmp_path):
    volume = noise(6, 4, 5).astype(np.uint16)
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(volume), str(tmp_path / "a.dcm"))
    loaded = load([tmp_path / "a.dcm"])
    np.testing.assert_array_equal(loaded.numpy(), volume.T)


def test_broken_slice_is_named(tmp_path):
    files = write_series(tmp_path, noise(4, 40, 40))
    cut(files[2], 0.9)
    with pytest.raises(InputError, match=f"{files[2].name} cannot be read: it is cut off"):
        read(*files)


def test_slice_that_cannot_be_decoded_is_named(tmp_path):
    files = write_series(tmp_path, noise(4, 40, 40))
    data = dcmread(files[1])
    data.PixelData = encapsulate([b"no jpeg at all. " * 20])
    data["PixelData"].is_undefined_length = True
    data.file_meta.TransferSyntaxUID = JPEGLosslessSV1
    data.save_as(files[1], enforce_file_format=True)
    with pytest.raises(InputError, match=f"{files[1].name} cannot be read: .* its pixels cannot be decoded"):
        read(*files)


def test_slices_of_different_sizes(tmp_path):
    small = write_slice(tmp_path / "a.dcm", noise(4, 5))
    large = write_slice(tmp_path / "b.dcm", noise(4, 6), position=(0, 0, 1))
    with pytest.raises(InputError, match=r"a\.dcm cannot be read: .*[Ss]ize"):
        read(small, large)


@pytest.mark.realdata
@pytest.mark.parametrize(
    ("folder", "shape", "spacing", "note"),
    [
        ("ct_chest_jpeg_lossless", (512, 512, 24), 2.0, None),
        (
            "ct_head_tilt_variable_spacing",
            (512, 512, 28),
            5.6274,
            "uneven slice gaps 1.08 to 7 mm; slices sheared by 18",
        ),
        ("mr_brain_study3/36468-FLAIRreg-58706", (280, 320, 22), 6.5, None),
    ],
)
def test_real_dicom(folder, shape, spacing, note):
    if not (DATA / "dicom").is_dir():
        pytest.skip(f"no real scans: {DATA} is missing; set DIRA_DATA")
    files = sorted((DATA / "dicom" / folder).iterdir())
    array, meta = read(*files)
    ordered = SimpleITK.ImageSeriesReader.GetGDCMSeriesFileNames(str(DATA / "dicom" / folder))
    known = SimpleITK.ReadImage(ordered)
    np.testing.assert_array_equal(array, SimpleITK.GetArrayViewFromImage(known).T)
    np.testing.assert_allclose(meta["affine"], affine_of(known), atol=1e-6)
    assert array.shape == shape
    assert np.linalg.norm(meta["affine"][:3, 2]) == pytest.approx(spacing, abs=1e-4)
    assert meta.get("note", "").startswith(note or "")
    assert ("note" in meta) == (note is not None)
