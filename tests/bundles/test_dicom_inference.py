"""A DICOM series through the inference of the segmentation bundle and back: series, NIfTI, DICOM segmentation."""

from copy import deepcopy
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
import SimpleITK
import torch
from monai.bundle import run
from running import causes
from scan_files import AXIAL, SAGITTAL, mend, write_frames, write_series

from dira_monai.apps.infer import infer as package_infer
from dira_monai.images.dicom_seg.write import write_segmentation

hd = pytest.importorskip("highdicom", reason='highdicom is not installed: pip install -e ".[seg]"')
CONFIG = Path(__file__).parents[2] / "bundles" / "dira_finetune_segmentation_3d" / "configs" / "inference.json"
CLASSES = ["background", "dense"]
OBLIQUE = (0.8, 0.6, 0, -0.6, 0.8, 0)
EVEN = [0, 2, 4, 6, 8]
TWO_THICKNESSES = [0, 2, 4, 6, 10, 14, 18]


def body(depths, tilt=0):
    """Slices of 18 x 20 pixels that cut a bar along the normal, off the middle: 1800 HU above the rest."""
    volume = np.zeros((len(depths), 18, 20), np.int16)
    for image, depth in zip(volume, depths, strict=True):
        first = 2 + round(-tilt * depth / 0.5)  # rows are 0.5 mm apart
        image[first : first + 6, 4:16] = 1800
    return volume


def write_network(folder):
    """A network that marks what is above 0 HU."""
    network = torch.nn.Conv3d(1, 2, 1)
    with torch.no_grad():
        network.weight.copy_(torch.tensor([-1.0, 1.0]).view(2, 1, 1, 1, 1))
        network.bias.copy_(torch.tensor([0.5, -0.5]))  # 0 HU is 0.5 of the range
    torch.save(network.state_dict(), folder / "model.pt")
    return {"_target_": "torch.nn.Conv3d", "in_channels": 1, "out_channels": 2, "kernel_size": 1}


def options_of(folder):
    return {
        "datalist": [str(folder / "series")],
        "class_names": CLASSES,
        "ckpt_dir": str(folder),
        "output_dir": str(folder),
        "patch_size": [16, 16, 16],
        "network_def": write_network(folder),
    }


def infer(folder, reader):
    """The label map that the bundle writes."""
    run(config_file=str(CONFIG), reader=reader, **options_of(folder))
    return folder / "series_seg.nii.gz"


def check_frames(seg, files, volume):
    """Each slice with labels has a frame at its own place, of its own pixels."""
    places = {file: pydicom.dcmread(file).ImagePositionPatient for file in files}
    frames = {
        tuple(group.PlanePositionSequence[0].ImagePositionPatient): seg.get_stored_frame(number)
        for number, group in enumerate(seg.PerFrameFunctionalGroupsSequence, 1)
    }
    for file, stored in zip(files, volume, strict=True):
        found = frames.get(tuple(places[file]), np.zeros((18, 20)))
        np.testing.assert_array_equal(found, stored > 1024)
    assert len(frames) == volume.any(axis=(1, 2)).sum()


@pytest.mark.parametrize(
    ("depths", "orientation", "shift", "reader"),
    [
        (EVEN[::-1], AXIAL, (0, 0, 0), None),
        (EVEN, OBLIQUE, (0, 0, 0), None),
        (EVEN, SAGITTAL, (0, 0, 0), None),
        (EVEN, AXIAL, (0, -0.25, 0), None),
        (TWO_THICKNESSES, AXIAL, (0, -0.25, 0), "dira_monai.ScanReader"),
    ],
)
def test_every_pixel_of_the_series_gets_its_label(tmp_path, depths, orientation, shift, reader):
    volume = body(depths, shift[1])
    if reader is None:
        volume[0] = 0
    files = write_series(
        tmp_path / "series", volume, depths, orientation, shift, FrameOfReferenceUID="1.2.9", SliceThickness=2
    )
    for file, depth in zip(files, depths, strict=True):
        if depths is TWO_THICKNESSES and depth > 6:
            mend(file, lambda data: setattr(data, "SliceThickness", 4))
    write_segmentation(tmp_path / "series", infer(tmp_path, reader), tmp_path / "seg.dcm", CLASSES)
    seg = hd.seg.segread(tmp_path / "seg.dcm")
    check_frames(seg, files, volume)


@pytest.mark.parametrize("orientation", [AXIAL, OBLIQUE, SAGITTAL])
def test_simple_itk_puts_a_single_segment_on_the_voxels_of_the_series(tmp_path, orientation):
    volume = body(EVEN)
    volume[2, 3:5] = 0
    files = write_series(tmp_path / "series", volume, EVEN, orientation, FrameOfReferenceUID="1.2.9")
    write_segmentation(tmp_path / "series", infer(tmp_path, None), tmp_path / "seg.dcm", CLASSES)
    labels = SimpleITK.ReadImage(str(tmp_path / "seg.dcm"), imageIO="GDCMImageIO")
    grid = SimpleITK.ReadImage([str(file) for file in files])
    on_grid = SimpleITK.Resample(labels, grid, SimpleITK.Transform(), SimpleITK.sitkNearestNeighbor)
    np.testing.assert_array_equal(SimpleITK.GetArrayFromImage(on_grid) > 0, volume > 1024)


@pytest.mark.parametrize("orientation", [AXIAL, OBLIQUE, SAGITTAL])
@pytest.mark.parametrize("reader", [None, "dira_monai.ScanReader"])
def test_the_segmentation_of_the_command_lies_where_the_series_lies(tmp_path, orientation, reader):
    volume = body(EVEN)
    files = write_series(tmp_path / "series", volume, EVEN, orientation, FrameOfReferenceUID="1.2.9")
    assert package_result(tmp_path, reader=reader, dicom_seg=True).status == "done"
    seg = hd.seg.segread(tmp_path / "series_seg.dcm")
    assert seg.get_segment_description(1).segment_label == "dense"
    assert seg.FrameOfReferenceUID == "1.2.9"
    (shared,) = seg.SharedFunctionalGroupsSequence
    assert shared.PixelMeasuresSequence[0].PixelSpacing == [0.5, 0.75]
    assert shared.PlaneOrientationSequence[0].ImageOrientationPatient == list(orientation)
    check_frames(seg, files, volume)


def test_a_series_that_no_segmentation_can_refer_to_keeps_its_label_map(tmp_path):
    write_series(tmp_path / "series", body(EVEN), EVEN)
    row = package_result(tmp_path, dicom_seg=True)
    assert row.status == "failed"
    assert row.note.startswith("has a label map, but no DICOM segmentation: ")
    assert (tmp_path / "series_seg.nii.gz").is_file()


def test_other_files_have_no_segmentation(tmp_path):
    nib.save(nib.Nifti1Image(body(EVEN).T - 1024, np.eye(4)), tmp_path / "series.nii")
    values = options_of(tmp_path)
    del values["datalist"]
    (row,) = package_infer(CONFIG, [tmp_path / "series.nii"], dicom_seg=True, **values).rows
    assert (row.status, row.note) == ("done", "no DICOM, so no DICOM segmentation")


def package_result(folder, **options):
    """What the package's command makes of the series."""
    values = options_of(folder) | {"reader": options.pop("reader", None)}
    (row,) = package_infer(CONFIG, values.pop("datalist"), **values | options).rows
    return row


def check_refused(folder, cause):
    """The package's command names the cause."""
    row = package_result(folder)
    assert row.status == "failed"
    assert cause in row.note
    assert not (folder / "series_seg.nii.gz").exists()


def check_stock_stops(folder):
    with pytest.raises(RuntimeError) as caught:
        infer(folder, None)
    assert "series contains more than one DICOM series" in causes(caught.value)


def check_labeled(folder, volume):
    """The package's command has labeled the volume of HU, slices first."""
    assert package_result(folder).status == "done"
    found = nib.load(folder / "series_seg.nii.gz").get_fdata()
    np.testing.assert_array_equal(found.T, volume > 0)


@pytest.fixture
def two_series(tmp_path):
    for index in range(2):
        for file in write_series(tmp_path / str(index), body(EVEN), EVEN, series=f"1.{index}"):
            (tmp_path / "series").mkdir(exist_ok=True)
            file.rename(tmp_path / "series" / f"{index}_{file.name}")
    return tmp_path


def test_a_scan_over_midnight_stops_stock_monai_alone(tmp_path):
    for index, file in enumerate(write_series(tmp_path / "series", body(EVEN), EVEN)):
        mend(file, lambda data, index=index: setattr(data, "SeriesDate", f"2020010{1 + index // 2}"))
    check_stock_stops(tmp_path)
    check_labeled(tmp_path, body(EVEN) - 1024)


def test_a_folder_of_several_series_is_refused(two_series):
    check_stock_stops(two_series)
    check_refused(two_series, "is a folder with 2 DICOM series where one is needed")


@pytest.mark.parametrize(
    ("depths", "tags", "words"),
    [
        ([0, 2, 4, 8, 10], {}, "a gap of 4 mm beside gaps of 2 mm, where slices are missing"),
        ([0, 2, 4, 6.5, 9], {}, "uneven slice gaps of 2 to 2.5 mm, which stock MONAI would read as even ones"),
        ([0, 0, 2, 2, 4], {"EchoTime": [10, 80, 10, 80, 10]}, "is a folder with 2 DICOM series where one"),
        ([0, 0, 2, 2, 4], {"ImageType": [["ORIGINAL", "PRIMARY", part] for part in "MPMPM"]}, "2 DICOM series where"),
        ([0, 0, 2, 2, 4], {"AcquisitionTime": ["10", "11", "10", "11", "10"]}, "folder with 2 DICOM series where one"),
        ([0, 2, 4], {"ImageOrientationPatient": [list(AXIAL), list(SAGITTAL), [1, 0, 0, 0, 0, -1]]}, "3 DICOM series"),
        ([0], {"ImageType": [["ORIGINAL", "PRIMARY", "M", "ND", "MOSAIC"]]}, "is a mosaic"),
    ],
)
def test_what_is_no_even_volume_is_refused(tmp_path, depths, tags, words):
    files = write_series(tmp_path / "series", body(depths), depths)
    for name, values in tags.items():
        for file, value in zip(files, values, strict=True):
            mend(file, lambda data, name=name, value=value: setattr(data, name, value))
    check_refused(tmp_path, words)


@pytest.mark.parametrize(
    ("depths", "rescale", "words"),
    [
        ([0, 2, 4, 0, 2, 4], (1, -1024), "several slices lie at one position (time points, echoes or directions)"),
        ([0, 2, 8, 4, 6], (1, -1024), "frames in another order than they lie in space"),
        ([0, 2, 4], None, "holds frames of different RescaleSlope: 1.0, 2.0, 3.0"),
    ],
)
def test_a_file_of_frames_that_make_no_volume_is_refused(tmp_path, depths, rescale, words):
    path = write_frames(tmp_path / "series.dcm", body(depths), depths, rescale=rescale or (1, 0))
    if rescale is None:
        mend(path, rescale_each_frame)
    values = options_of(tmp_path)
    del values["datalist"]
    (row,) = package_infer(CONFIG, [path], **values).rows
    assert row.status == "failed"
    assert words in row.note
    assert not (tmp_path / "series_seg.nii.gz").exists()


def rescale_each_frame(data):
    (values,) = data.SharedFunctionalGroupsSequence[0].PixelValueTransformationSequence
    del data.SharedFunctionalGroupsSequence[0].PixelValueTransformationSequence
    for slope, frame in enumerate(data.PerFrameFunctionalGroupsSequence, 1):
        frame.PixelValueTransformationSequence = [deepcopy(values)]
        frame.PixelValueTransformationSequence[0].RescaleSlope = slope


@pytest.mark.parametrize("slopes", [[1, 0.25, 1, 1, 1], [0.5, 0.25, 0.75, 0.5, 0.25]])
def test_slices_have_each_its_slope(tmp_path, slopes):
    """Also where they give several number types, as in PET."""
    for file, slope in zip(write_series(tmp_path / "series", body(EVEN), EVEN), slopes, strict=True):
        mend(file, lambda data, slope=slope: setattr(data, "RescaleSlope", slope))
    check_labeled(tmp_path, body(EVEN) * np.reshape(slopes, (5, 1, 1)) - 1024)


def test_copies_of_slices_are_left_out(tmp_path):
    file = write_series(tmp_path / "series", body(EVEN), EVEN)[2]
    file.with_name("copy.dcm").write_bytes(file.read_bytes())
    check_labeled(tmp_path, body(EVEN) - 1024)
