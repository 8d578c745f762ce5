import gzip
import shutil

import numpy as np
import pydicom
import pytest
from monai.transforms import LoadImage
from pydicom.uid import RTStructureSetStorage
from scan_files import bare, cut, mend, noise, read, write_frames, write_series, write_slice

from dira_monai.dicom.headers import read_header
from dira_monai.images.facts import measure_image
from dira_monai.images.find import find_images, read_image
from dira_monai.images.measuring import measure_each
from dira_monai.utils.errors import InputError

load = LoadImage(reader="dira_monai.ScanReader", dtype=None)


def write_phases(folder, starts, acquired=True, **tags):
    """A series of several runs over five slices, 2 mm apart, the second 1000 HU brighter; names mix the runs."""
    for run, start in enumerate(starts):
        for k in range(5):
            options = {"AcquisitionNumber": run + 1} if acquired else {}
            pixels = noise(4, 5, seed=k) + 1000 * run
            write_slice(folder / f"{(7 * k + 3 * run) % 11}_{run}.dcm", pixels, (0, 0, 2.0 * (start + k)), **options)
    return folder


@pytest.mark.parametrize("starts", [(0, 0), (0, 3)])
def test_phases_of_one_series_are_told_apart_by_their_acquisition(tmp_path, starts):
    found = find_images(write_phases(tmp_path, starts))
    volumes = [read_image(image, tmp_path) for image in found]
    assert [array.shape for array, _ in volumes] == [(5, 4, 5)] * 2
    for run, (array, meta) in enumerate(sorted(volumes, key=lambda volume: volume[0].mean())):
        expected = np.stack([noise(4, 5, seed=k).T for k in range(5)], axis=2) + 1000 * run - 1024
        np.testing.assert_array_equal(array, expected)
        assert meta["affine"][2, 3] == 2 * starts[run]


def test_phases_that_nothing_tells_apart_are_refused(tmp_path):
    found = find_images(write_phases(tmp_path, (0, 0), acquired=False))
    assert [len(files) for files in found] == [10]
    with pytest.raises(InputError, match="several slices lie at one position"):
        read_image(found[0], tmp_path)


def test_copy_of_a_slice_does_not_disturb_its_series(tmp_path):
    volume = noise(5, 4, 5)
    files = write_series(tmp_path, volume)
    shutil.copy(files[2], tmp_path / "copy.dcm")
    np.testing.assert_array_equal(read(tmp_path)[0], volume.T - 1024)
    assert [len(image) for image in find_images(tmp_path)] == [5, 1]  # listed, so that a list names it as left out


def test_cut_slice_of_a_folder_is_not_passed_over(tmp_path):
    volume = noise(4, 40, 40)
    files = write_series(tmp_path, volume)
    shutil.copy(cut(files[3]), tmp_path / "._copy.dcm")  # hidden, as macOS leaves them
    with pytest.raises(InputError, match=f"{files[3].name} cannot be read: it is cut off or no DICOM image"):
        read(tmp_path)
    files[3].unlink()
    np.testing.assert_array_equal(read(tmp_path)[0], volume[:3].T - 1024)


def test_slice_of_another_pixel_spacing_is_another_volume(tmp_path):
    files = write_series(tmp_path, noise(5, 4, 5))
    wide = write_slice(tmp_path / "wide.dcm", noise(4, 5), position=(-10, 20, 20), PixelSpacing=[2, 2])
    assert [len(image) for image in find_images(tmp_path)] == [5, 1]
    with pytest.raises(InputError, match=r"wide\.dcm has another orientation or pixel spacing than .*\.dcm\."):
        read(*files, wide)


@pytest.mark.parametrize("spacing", [None, [0, 0], [-0.5, 0.5]])
def test_series_without_valid_pixel_spacing_is_refused(tmp_path, spacing):
    write_series(tmp_path, noise(3, 4, 5), PixelSpacing=spacing)
    with pytest.raises(InputError, match=r"\.dcm has no valid PixelSpacing, so its place in the series is unknown"):
        read(tmp_path)


@pytest.mark.parametrize("name", ["ImagePositionPatient", "ImageOrientationPatient"])
def test_listed_slices_without_a_place_are_refused(tmp_path, name):
    files = write_series(tmp_path, noise(3, 4, 5))
    mend(files[1], lambda data: delattr(data, name))
    with pytest.raises(InputError, match=f"{files[1].name} has no valid {name}, so its place in the series is unkn"):
        read(*files)


@pytest.mark.parametrize("suffix", [".IMA", ".dicom", ".0001", ""])
def test_dicom_files_are_found_by_content(tmp_path, suffix):
    volume = noise(3, 4, 5)
    files = [file.rename(tmp_path / f"slice{file.stem[-1]}{suffix}") for file in write_series(tmp_path, volume)]
    (tmp_path / "volume.raw").write_bytes(b"\x08\0\x05\0" * 200)  # numbers, and no group 8
    (tmp_path / "DICOMDIR").write_bytes(bytes(128) + b"DICM")
    assert find_images(tmp_path) == [[file.name for file in files]]
    np.testing.assert_array_equal(load([str(file) for file in files]).numpy(), volume.T - 1024)


def write_xray(path):
    return write_slice(path, noise(4, 5), position=None, RescaleSlope=None, RescaleIntercept=None)


def write_film(path):
    return write_frames(path, noise(4, 4, 5), [6, 4, 2, 0])


@pytest.mark.parametrize("suffix", [".dcm", ""])
def test_files_without_preamble(tmp_path, suffix):
    volume = noise(3, 4, 5)
    for k, file in enumerate(write_series(tmp_path, volume)):
        bare(file, tmp_path / f"bare{k}{suffix}")
    assert [len(image) for image in find_images(tmp_path)] == [3]
    np.testing.assert_array_equal(read(tmp_path)[0], volume.T - 1024)


@pytest.mark.parametrize("write", [write_xray, write_film])
def test_single_file_without_preamble(tmp_path, write):
    path = write(tmp_path / "a.dcm")
    expected = read(path)[0]
    np.testing.assert_array_equal(read(bare(path, tmp_path / "b"))[0], expected)


def test_packed_files_are_named(tmp_path):
    path = write_slice(tmp_path / "a.dcm", noise(4, 5))
    (tmp_path / "b.dcm.gz").write_bytes(gzip.compress(path.read_bytes()))
    path.write_bytes(gzip.compress(path.read_bytes()))
    reasons = [str(error) for error in measure_each(measure_image, find_images(tmp_path), tmp_path)]
    assert reasons == [f"{name} cannot be read: it is packed by gzip." for name in ("a.dcm", "b.dcm.gz")]


def test_other_objects_of_a_study_are_named_and_left_out(tmp_path):
    volume = noise(3, 4, 5)
    write_series(tmp_path / "study", volume)
    dose = write_slice(tmp_path / "study" / "dose.dcm", noise(4, 5), series="8", Modality="RTDOSE")
    plan = write_slice(tmp_path / "study" / "structures.dcm", noise(4, 5), series="9", Modality="RTSTRUCT")

    def strip(data):
        data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID = RTStructureSetStorage
        for name in ("PixelData", "Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "SamplesPerPixel"):
            delattr(data, name)

    mend(plan, strip)
    np.testing.assert_array_equal(read(tmp_path / "study")[0], volume.T - 1024)
    with pytest.raises(InputError, match=r"dose\.dcm is a DICOM dose distribution and no image"):
        read(dose)
    with pytest.raises(InputError, match=r"structures\.dcm cannot be read: it is no image but of the kind RT Struct"):
        read(plan)


@pytest.mark.parametrize(
    ("patient", "character_set"),
    [
        ("Jürgen", "ISO_IR 100"),
        ("Jürgen", "ISO_IR 192"),
        ("Люкceмбypг", "ISO_IR 144"),
        ("山田", ["", "ISO 2022 IR 87"]),
    ],
)
def test_a_patient_is_the_same_in_each_character_set(tmp_path, patient, character_set):
    path = write_slice(tmp_path / "a", noise(4, 5), patient=patient, SpecificCharacterSet=character_set)
    assert read_header(path).patient == patient == pydicom.dcmread(path).PatientID


def test_a_patient_of_no_named_character_set_is_read_as_utf_8(tmp_path):
    path = write_slice(tmp_path / "a", noise(4, 5), patient="Jürgen", SpecificCharacterSet="ISO_IR 192")
    path.write_bytes(path.read_bytes().replace(b"ISO_IR 192", b" " * 10))
    assert read_header(path).patient == "Jürgen"


def test_bytes_of_no_named_character_set_can_be_printed(tmp_path):
    path = write_slice(tmp_path / "a", noise(4, 5), patient="Jürgen", SpecificCharacterSet="ISO_IR 100")
    path.write_bytes(path.read_bytes().replace(b"ISO_IR 100", b"ISO_IR 6  "))
    assert read_header(path).patient.isprintable()
    assert read_header(path).patient.encode()
