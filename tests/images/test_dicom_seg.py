import json
import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
from monai.data import ITKReader
from monai.transforms import Compose, EnsureChannelFirst, LoadImage, Orientation, Spacing
from scan_files import AXIAL, SAGITTAL, bare, mend, noise, write_frames, write_series, write_slice

from dira_monai.images.dicom_seg.write import write_segmentation
from dira_monai.images.reader import ScanReader
from dira_monai.utils.errors import InputError

hd = pytest.importorskip("highdicom", reason='highdicom is not installed: pip install -e ".[seg]"')
DATA = Path(os.environ.get("DIRA_DATA", Path(__file__).parents[3] / "shared/data")) / "dicom"
CLASSES = ["background", "liver", "tumor"]
CR = pydicom.uid.ComputedRadiographyImageStorage
FRAME = {"FrameOfReferenceUID": "1.2.9"}
HAVE = pytest.mark.skipif(not DATA.is_dir(), reason=f"no real scans: {DATA} is missing; set DIRA_DATA")
OBLIQUE = (0.8, 0.6, 0, -0.6, 0.8, 0)


def affine_of(series):
    """The affine that the reader gives a series, in RAS."""
    files = sorted(series.iterdir()) if series.is_dir() else [series]
    return ScanReader().get_data(ScanReader().read(files))[1]["affine"]


def run(folder, labels=None, affine=None, series="series", names=CLASSES, **options):
    """Labels, where there are any, made a segmentation of the series in the folder: the line, and the file."""
    if labels is not None:
        affine = affine_of(folder / series) if affine is None else affine
        nib.save(nib.Nifti1Image(labels.astype(np.uint8), affine), folder / "labels.nii")
    out = folder / "out" / "seg.dcm"
    line = write_segmentation(folder / series, folder / "labels.nii", out, names, **options)
    return line, hd.seg.segread(out)


def by_position(seg):
    """For each plane of a segmentation, by its position in space: the label map (rows, columns) and its source UID."""
    found = {}
    shared = seg.SharedFunctionalGroupsSequence[0]
    for frame, group in enumerate(seg.PerFrameFunctionalGroupsSequence):
        position = tuple(np.round(np.array(group.PlanePositionSequence[0].ImagePositionPatient, float), 3))
        segments = group.get("SegmentIdentificationSequence") or shared.SegmentIdentificationSequence  # of one alone
        number = segments[0].ReferencedSegmentNumber
        source = group.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID
        labels = found.setdefault(position, (np.zeros((seg.Rows, seg.Columns), int), source))[0]
        labels += number * seg.get_stored_frame(frame + 1).astype(int)
    return found


def check(seg, files, expected):
    """Each slice of ``files`` has the labels ``expected[k]`` (rows, columns) in the frames that refer to it."""
    found = by_position(seg)
    for file, labels in zip(files, expected, strict=True):
        data = pydicom.dcmread(file, stop_before_pixels=True)
        assert seg.PatientID == data.PatientID
        assert seg.StudyInstanceUID == data.StudyInstanceUID
        assert seg.FrameOfReferenceUID == data.FrameOfReferenceUID
        position = tuple(np.round(np.array(data.ImagePositionPatient, float), 3))
        if labels.any():
            np.testing.assert_array_equal(found[position][0], labels)
            assert found[position][1] == data.SOPInstanceUID
        else:
            assert position not in found


@pytest.mark.parametrize("orientation", [AXIAL, SAGITTAL, OBLIQUE])
@pytest.mark.parametrize("codes", ["RAS", "LPS", "SAR"])
def test_same_grid_in_any_order_and_direction_of_axes(tmp_path, orientation, codes):
    files = write_series(tmp_path / "series", noise(5, 6, 4), orientation=orientation, **FRAME)
    truth = noise(5, 6, 4, seed=1, high=3)  # slices, rows, columns
    truth[2] = 0
    affine = affine_of(tmp_path / "series")
    turn = nib.orientations.ornt_transform(nib.io_orientation(affine), nib.orientations.axcodes2ornt(codes))
    image = nib.Nifti1Image(truth.T, affine).as_reoriented(turn)
    line, seg = run(tmp_path, image.get_fdata(), image.affine)
    assert line.endswith(f"5 slices, voxel by voxel; pixels: liver {(truth == 1).sum()}, tumor {(truth == 2).sum()}")
    check(seg, files, truth)


def nearest(labels, affine, points):
    """Labels of the voxels that are nearest to points in RAS, 0 outside, one after another."""
    voxels = np.rint((points - affine[:3, 3]) @ np.linalg.inv(affine[:3, :3]).T).astype(int)
    good = ((voxels >= 0) & (voxels < labels.shape)).all(-1)
    result = np.zeros(good.shape, int)
    result[good] = labels[tuple(voxels[good].T)]
    return result


def pixel_places(file):
    """Places in RAS of the pixels (rows, columns) of a file."""
    data = pydicom.dcmread(file, stop_before_pixels=True)
    row, column = np.reshape(np.array(data.ImageOrientationPatient, float), (2, 3))
    down, right = np.mgrid[: data.Rows, : data.Columns][..., None]
    between_rows, between_columns = map(float, data.PixelSpacing)
    place = np.array(data.ImagePositionPatient, float) + right * row * between_columns + down * column * between_rows
    return place * [-1, -1, 1]


@pytest.mark.parametrize(("depths", "shift"), [(None, (0, 0, 0)), ([0, 2, 4, 7, 10], (0, 0, 0)), (None, (0, -0.2, 0))])
@pytest.mark.parametrize("orientation", [AXIAL, OBLIQUE])
def test_another_grid_is_resampled_by_the_affines(tmp_path, depths, shift, orientation):
    files = write_series(
        tmp_path / "series", noise(5, 12, 10), depths=depths, shift=shift, orientation=orientation, **FRAME
    )
    moved = affine_of(tmp_path / "series") @ np.diag([0.83, 1.27, 0.71, 1])
    moved[:3, 3] += [0.31, -0.17, 0.23]
    labels = noise(14, 12, 20, seed=2, high=3)
    line, seg = run(tmp_path, labels, moved)
    assert "nearest voxels of a grid of 14 x 12 x 20" in line
    stored = nib.load(tmp_path / "labels.nii").affine
    check(seg, files, [nearest(labels, stored, pixel_places(file)) for file in files])


def test_tilted_series_as_stock_monai_reads_it(tmp_path):
    files = write_series(tmp_path / "series", noise(5, 6, 4), shift=(0, -0.2, 0), **FRAME)
    truth = noise(5, 6, 4, seed=1, high=3)
    line, seg = run(tmp_path, truth.T, LoadImage(reader=ITKReader)(tmp_path / "series").affine.numpy())
    assert "voxel by voxel" in line
    check(seg, files, truth)


@pytest.mark.parametrize("depths", [[0, 2, 4, 6], [4, 0, 6, 2]])
def test_multi_frame(tmp_path, depths):
    write_frames(tmp_path / "a.dcm", noise(4, 5, 6), depths, **FRAME)
    truth = noise(4, 5, 6, seed=1, high=3)  # by depth
    _, seg = run(tmp_path, truth.T, series="a.dcm")
    for group in seg.PerFrameFunctionalGroupsSequence:
        depth = group.PlanePositionSequence[0].ImagePositionPatient[2] - 5
        number = group.DerivationImageSequence[0].SourceImageSequence[0].ReferencedFrameNumber
        assert depths[number - 1] == depth
    found = by_position(seg)
    assert sorted(found) == [(-10, 20, 5 + depth) for depth in (0, 2, 4, 6)]
    for labels, position in zip(truth, sorted(found), strict=True):
        np.testing.assert_array_equal(found[position][0], labels)


def test_xray_with_codes_and_colors(tmp_path):
    path = write_slice(tmp_path / "a.dcm", noise(4, 5), position=None, Modality="CR", SOPClassUID=CR)
    truth = noise(4, 5, high=3)
    codes = {"liver": {"type": ["10200004", "SCT", "Liver"], "color": [255, 0, 0]}}
    (tmp_path / "codes.json").write_text(json.dumps(codes))
    _, seg = run(tmp_path, truth.T, np.eye(4), "a.dcm", codes=tmp_path / "codes.json", algorithm="net")
    liver, tumor = seg.get_segment_description(1), seg.get_segment_description(2)
    assert (liver.segment_label, liver.segmented_property_type.meaning) == ("liver", "Liver")
    assert liver.algorithm_identification.name == "net"
    kind = tumor.segmented_property_type
    assert (kind.scheme_designator, kind.meaning) == ("99DIRA", "tumor")
    np.testing.assert_allclose(hd.color.CIELabColor(*_lab(liver)).to_rgb(), (255, 0, 0), atol=1)
    data = pydicom.dcmread(path)
    labels = seg.get_pixels_by_source_instance([data.SOPInstanceUID], combine_segments=True)
    np.testing.assert_array_equal(labels[0], truth)


def _lab(description):
    high, a, b = description.RecommendedDisplayCIELabValue
    return high * 100 / 65535, a * 255 / 65535 - 128, b * 255 / 65535 - 128


@pytest.fixture
def series(tmp_path):
    write_series(tmp_path / "series", noise(3, 4, 5), **FRAME)
    labels = nib.Nifti1Image(noise(5, 4, 3, high=3).astype(np.uint8), affine_of(tmp_path / "series"))
    nib.save(labels, tmp_path / "labels.nii")
    return tmp_path


def test_series_in_a_folder_below(series):
    (series / "study").mkdir()
    (series / "series").rename(series / "study/series")
    with pytest.raises(InputError, match="study holds no slice of a DICOM series; name the folder in which"):
        run(series, series="study")


def test_series_of_a_folder_with_several(series):
    write_series(series / "series", noise(3, 4, 5), series="1.2.4", **FRAME)
    with pytest.raises(InputError, match=r"holds 2 DICOM series where one is needed \(1.2.3, 1.2.4\); see --series"):
        run(series)
    _, seg = run(series, series_uid="1.2.4")
    assert seg.ReferencedSeriesSequence[0].SeriesInstanceUID == "1.2.4"


def test_series_without_preamble(series):
    for file in (series / "series").iterdir():
        bare(file, file)
    assert "3 slices, voxel by voxel" in run(series)[0]


def test_written_segmentation_does_not_disturb_its_folder(series):
    write_segmentation(series / "series", series / "labels.nii", series / "series" / "seg.dcm", CLASSES)
    assert ScanReader().get_data([series / "series"])[0].shape == (5, 4, 3)
    run(series)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"names": ["background", "liver"]}, r"labels\.nii holds the value 2 where 2 classes allow 0 to 1"),
        ({"names": "liver"}, "class_names must be different names of 64 letters at most, background first, got"),
        ({"series_uid": "9"}, "holds 0 DICOM series where one is needed"),
        ({"names": ["background", "a\\b", "c"]}, "class_names must be different names of 64 letters at most"),
        ({"algorithm": "x" * 65}, "algorithm must be a name of 64 letters at most, got 'xxx"),
        ({"codes": "none.json"}, r"none\.json cannot be read"),
    ],
)
def test_wrong_arguments(series, options, words):
    with pytest.raises(InputError, match=words):
        run(series, **options)
    assert not (series / "out").exists()


def test_series_without_pixel_spacing(series):
    for file in (series / "series").iterdir():
        mend(file, lambda data: delattr(data, "PixelSpacing"))
    with pytest.raises(InputError, match="has no valid PixelSpacing, so its place in the series is unknown"):
        run(series)


@pytest.mark.parametrize(
    "codes",
    [
        {"lung": {}},
        {"liver": {"kind": 1}},
        {"liver": {"color": [1, 2]}},
        {"liver": {"type": "x"}},
        {"liver": {"type": ["", "SCT", "Liver"]}},
    ],
)
def test_wrong_codes(series, codes):
    (series / "codes.json").write_text(json.dumps(codes))
    with pytest.raises(InputError, match=r"codes\.json"):
        run(series, codes=series / "codes.json")


@pytest.mark.parametrize("codes", [{"color": [300, 0, 0]}, {"type": ["1", "SCT", "x" * 65]}])
def test_codes_that_dicom_does_not_take(series, codes):
    (series / "codes.json").write_text(json.dumps({"liver": codes}))
    with pytest.raises(InputError, match="the codes of liver cannot be written: "):
        run(series, codes=series / "codes.json")
    assert not (series / "out").exists()


@pytest.mark.parametrize("labels", [np.zeros((5, 4, 3)), np.eye(5)[:, :4, None].repeat(3, axis=2)])
def test_classes_without_pixels(series, labels):
    line, seg = run(series, labels)
    assert line.endswith(f"pixels: liver {int(labels.sum())}, tumor 0")
    volume = seg.get_volume(segment_numbers=[1], combine_segments=True)
    places = np.moveaxis(np.indices(volume.spatial_shape), 0, -1) @ volume.affine[:3, :3].T + volume.affine[:3, 3]
    expected = nearest(labels, nib.load(series / "labels.nii").affine, (places * [-1, -1, 1]).reshape(-1, 3))
    np.testing.assert_array_equal(volume.array.reshape(-1), expected)
    assert seg.number_of_segments == 2


def test_label_map_elsewhere(series):
    image = nib.load(series / "labels.nii")
    far = np.eye(4)
    far[:3, 3] = 500
    with pytest.raises(InputError, match=r"labels\.nii lies elsewhere than the series: none of its labels meets"):
        run(series, np.asarray(image.dataobj), far @ image.affine)


def test_command(series, command):
    words = ["seg", "series", "labels.nii", "seg.dcm", "--class_names", "['background', 'liver', 'tumor']"]
    status, output, errors = command(*words)
    assert (status, errors) == (0, "")
    assert output.startswith("seg.dcm: 3 slices, voxel by voxel; pixels: liver ")
    status, _, errors = command("seg", "none", *words[2:])
    assert status == "error: none does not exist."


@pytest.mark.realdata
@HAVE
@pytest.mark.parametrize("folder", ["ct_chest_jpeg_lossless", "mr_brain_study3/36468-FLAIRreg-58706"])
def test_real_series_as_a_bundle_sees_it(tmp_path, folder):
    prepared = Compose([EnsureChannelFirst(), Orientation("RAS", labels=None), Spacing((3, 3, 4))])
    image = prepared(LoadImage(reader=ITKReader)(DATA / folder))
    labels = (image[0] > image.mean()).numpy().astype(np.uint8)
    _, seg = run(tmp_path, labels, image.affine.numpy(), DATA / folder, ["background", "dense"])
    files, affine = sorted((DATA / folder).iterdir()), nib.load(tmp_path / "labels.nii").affine
    check(seg, files, [nearest(labels, affine, pixel_places(file)) for file in files])


@pytest.mark.realdata
@HAVE
def test_real_multi_frame_file(tmp_path):
    file = next((DATA / "header_edge_cases" / "siemens_multiframe_anatomical_001").iterdir())
    truth = noise(8, 256, 256, high=3)
    with pytest.raises(InputError, match=r"cannot be referred to by a segmentation: .* no Frame Of Reference UID"):
        run(tmp_path, truth.T, series=file)
    data = pydicom.dcmread(file)
    data.FrameOfReferenceUID = "1.2.9"
    data.save_as(tmp_path / "a.dcm")
    line, seg = run(tmp_path, series="a.dcm")
    assert "voxel by voxel" in line
    found = by_position(seg)
    for labels, group in zip(truth, data.PerFrameFunctionalGroupsSequence, strict=True):  # they lie in rising order
        position = np.round(np.array(group.PlanePositionSequence[0].ImagePositionPatient, float), 3)
        np.testing.assert_array_equal(found[tuple(position)][0], labels)
