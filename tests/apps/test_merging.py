"""Masks of one class each become one label map an image, whose numbers the made files fix."""

import json
import shlex

import nibabel as nib
import numpy as np
import pydicom
import pytest
from labeled_files import entries, segment
from PIL import Image
from scan_files import noise, read, refuses, write_image, write_nifti, write_series

from dira_monai.apps.merging.merge import merge_masks
from dira_monai.apps.planning.labels import find_classes
from dira_monai.bundle.values import take_words
from dira_monai.datalists.options import LabelOptions
from dira_monai.images.reader import ScanReader

AFFINE = np.array([[0, -2, 0, 10], [1, 0, 0, 20], [0, 0, 3, -5], [0, 0, 0, 1.0]])
SHAPE = (6, 8, 5)
OBLIQUE = (0.8, 0.6, 0, -0.6, 0.8, 0)
LIVER, SPLEEN = np.zeros((2, *SHAPE), np.uint8)
LIVER[1:4, 1:3, 1:3], SPLEEN[4:, 4:, 3:] = 1, 255
MERGED = np.where(LIVER, 1, np.where(SPLEEN, 2, 0))


def write(path, array, affine=AFFINE):
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, affine), path)
    return path


def write_case(root, layout, index=0, masks=(("liver", LIVER), ("spleen", SPLEEN)), **options):
    """An image and its masks, where ``layout`` has them; the image's place in the output."""
    image, mask = (part.replace("N", str(index)) for part in layout)
    write(root / f"{image}.nii.gz", noise(*SHAPE, seed=index))
    for name, array in masks:
        write(root / f"{mask.replace('CLASS', name)}.nii.gz", array, **options)
    return f"{image}.nii.gz"


LAYOUTS = {
    "TotalSegmentator": ("sN/ct", "sN/segmentations/CLASS"),
    "beside": ("caseN", "caseN_CLASS"),
    "with words": ("images/N", "masks/N_CLASS_seg"),
    "folders of classes": ("images/N", "labels/CLASS/N"),
    "BIDS": ("sub-N/anat/sub-N_T1w", "derivatives/sub-N/anat/sub-N_CLASS_mask"),
}


def test_masks_behind_a_slope(tmp_path):
    mask = LIVER.astype(np.float32)
    mask[1, LIVER[1] > 0] = np.float32(0.9999999)
    write_case(tmp_path / "in", LAYOUTS["beside"], masks=[("liver", mask)])
    merge_masks(tmp_path / "in", tmp_path / "out")
    np.testing.assert_array_equal(nib.load(tmp_path / "out/case0.nii.gz").get_fdata(), LIVER)


def test_what_is_printed_can_be_typed(tmp_path):
    masks = [("tumor, necrotic", LIVER), ("[edema]", SPLEEN)]
    write_case(tmp_path / "in", LAYOUTS["TotalSegmentator"], masks=masks)
    out = tmp_path / "merged $HOME, it's"
    _, _, _, _, labels, _, names = shlex.split(merge_masks(tmp_path / "in", out)[-1])
    assert (labels, take_words(names)) == (str(out), ["background", "[edema]", "tumor, necrotic"])


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_masks_of_volumes(tmp_path, layout):
    data, out = tmp_path / "data", tmp_path / "out"
    files = [write_case(data, layout, index) for index in range(3)]
    lines = merge_masks(data, out)
    assert lines[-1] == f'go on with --labels {out} --class_names "[background, liver, spleen]"'
    assert lines[0] == f"liver: {3 * 12} voxels in 3 label maps"
    for file in files:
        made = nib.load(out / file)
        np.testing.assert_array_equal(made.dataobj, MERGED)
        np.testing.assert_array_equal(made.affine, AFFINE)
    names = json.loads((out / "dataset.json").read_text())["labels"]
    assert names == {"background": 0, "liver": 1, "spleen": 2}
    made = segment(data, [*names], labels=str(out), patient="path", test_fraction=0)
    assert (made["skipped"], made["label_maps"]) == ([], 6 if layout[1] == "caseN_CLASS" else 0)
    listed = {entry["image"]: entry for entry in entries(made)}
    assert sorted(listed) == sorted(files)
    assert all(entry["holds"] == [1, 1, 1] for entry in listed.values())
    plan = find_classes(data, LabelOptions(task="segmentation", class_names=["a", "b"], labels=str(out)))
    assert plan["class_names"].value == ["background", "liver", "spleen"]


@pytest.mark.parametrize("layout", [("pN/ct", "pN/CLASS"), ("ct_N", "CLASS_N"), ("ct/N", "CLASS/N")])
def test_names_choose_and_order_the_classes(tmp_path, layout):
    data, out, new = (tmp_path / name for name in ("data", "out", "new"))
    masks = (("liver", LIVER), ("spleen", SPLEEN), ("skin", np.ones(SHAPE, np.uint8)))
    files = [write_case(data, layout, index, masks) for index in range(2)]
    merge_masks(data, out, names="spleen, liver", modalities="ct")
    for file in files:
        np.testing.assert_array_equal(nib.load(out / file).dataobj, np.array([0, 2, 1])[MERGED])
    refuses("no mask of lung, only of liver", merge_masks, data, new, names="liver,lung", modalities="ct")
    refuses("out is not empty", merge_masks, data, out, names="liver")


def test_a_name_within_a_longer_one(tmp_path):
    data, out, new = (tmp_path / name for name in ("data", "out", "new"))
    masks = (("kidney_left", LIVER), ("kidney", SPLEEN))
    file = write_case(data, ("N", "N_CLASS"), 0, masks)
    merge_masks(data, out, names="kidney,kidney left")
    np.testing.assert_array_equal(nib.load(out / file).dataobj, np.array([0, 2, 1])[MERGED])
    write_case(data, ("N", "CLASS-N"), 0, [("kidney", LIVER)])
    refuses("has two masks of kidney", merge_masks, data, new, names="kidney,kidney_left")


def test_masks_of_pictures(tmp_path):
    """As IDRiD has them: pictures of three channels, masks in folders and with endings of their own."""
    data, out = tmp_path / "data", tmp_path / "out"
    root, red = data / "A. Segmentation", np.zeros((6, 8, 3), np.uint8)
    for index in range(10):
        place = f"{'a. Training' if index < 7 else 'b. Testing'} Set"
        write_image(root / "1. Original Images" / place / f"IDRiD_{index}.jpg", noise(6, 8, 3, seed=index))
        for number, (kind, ending) in enumerate([("1. Microaneurysms", "MA"), ("5. Optic Disc", "OD")]):
            mask = red.copy()
            mask[number : number + 2, 3, 0] = 76
            write_image(root / "2. All Groundtruths" / place / kind / f"IDRiD_{index}_{ending}.tif", mask)
    refuses("2 voxels of MA and OD|1 voxels of MA and OD", merge_masks, data, out)
    lines = merge_masks(data, out, names="OD,Microaneurysms", later_wins=True)
    assert "masks overlap, and the later class is taken: 10 voxels of OD and Microaneurysms" in lines
    made = Image.open(out / "A. Segmentation/1. Original Images/b. Testing Set/IDRiD_9.png")
    expected = np.zeros((6, 8))
    expected[:3, 3] = 2, 2, 1
    np.testing.assert_array_equal(made, expected)
    names = ["background", "OD", "MA"]
    made = segment(data, names, labels=str(out), in_channels=3, pictures_only=True)
    assert {entry["patient"] for entry in made["test"]} == {"IDRiD_7", "IDRiD_8", "IDRiD_9"}


def test_masks_of_dicom_series(tmp_path):
    volume, mask = noise(3, 4, 5), np.zeros((3, 4, 5), np.int16)
    mask[1, 2, 3] = 255
    for number, (name, stored) in enumerate([("PATIENT_DICOM", volume), ("MASKS_DICOM/liver", mask + 1024)]):
        write_series(tmp_path / "data/p1" / name, stored, series=f"1.{number}")
    merge_masks(tmp_path / "data", tmp_path / "out")
    made = nib.load(tmp_path / "out/p1/PATIENT_DICOM.nii.gz")
    np.testing.assert_array_equal(np.argwhere(made.dataobj), [[3, 2, 1]])  # column, row, slice
    first = np.array([-10, 20, 5])  # LPS, as write_series has it, with columns of 0.75 and rows of 0.5 mm
    place = first + np.array([3 * 0.75, 2 * 0.5, 2.5])
    np.testing.assert_allclose(made.affine @ [3, 2, 1, 1], [*place * [-1, -1, 1], 1])


def write_seg(folder, kind, masks, labels=("liver", "tumor")):
    """A segmentation by highdicom of the series in ``ct``: masks (slices, rows, columns), one a segment."""
    hd = pytest.importorskip("highdicom", reason='highdicom is not installed: pip install -e ".[seg]"')
    slices = [pydicom.dcmread(file) for file in sorted((folder / "ct").iterdir())]
    slices.sort(key=lambda data: np.cross(OBLIQUE[:3], OBLIQUE[3:]) @ data.ImagePositionPatient)
    for data in slices:
        data.SliceThickness = 2.5
        for name in ("PatientName", "PatientBirthDate", "PatientSex", "StudyID", "StudyDate", "StudyTime"):
            setattr(data, name, data.get(name, ""))
        data.AccessionNumber = data.ReferringPhysicianName = ""
    code = hd.sr.CodedConcept("1", "99X", "x")
    segments = [
        hd.seg.SegmentDescription(number, label, code, code, hd.seg.SegmentAlgorithmTypeValues.MANUAL)
        for number, label in enumerate(labels, 1)
    ]
    pixels = sum(number * mask for number, mask in enumerate(masks, 1)) if kind == "LABELMAP" else np.stack(masks, -1)
    made = hd.seg.Segmentation(
        slices, pixels, kind, segments, hd.UID(), 2, hd.UID(), 1, "m", "n", "v", "0", max_fractional_value=100
    )
    made.save_as(folder / "seg" / "1-1.dcm")


@pytest.mark.parametrize("kind", ["BINARY", "FRACTIONAL", "LABELMAP"])
def test_segments_of_dicom_segmentations(tmp_path, kind):
    data, out, place = tmp_path / "data", tmp_path / "out", {"FrameOfReferenceUID": "1.2.9", "orientation": OBLIQUE}
    truth = {}
    for case in ("p1", "p2"):
        write_series(data / case / "ct", noise(5, 6, 4), series=f"1.{case[1]}", patient=case, **place)
        truth[case] = noise(5, 6, 4, seed=int(case[1]), high=3)
        truth[case][2] = 0
        (data / case / "seg").mkdir()
        masks = [(truth[case] == number).astype(np.uint8) for number in (1, 2)]
        write_seg(data / case, kind, [0.8 * mask for mask in masks] if kind == "FRACTIONAL" else masks)
    assert merge_masks(data, out)[-1].endswith('--class_names "[background, liver, tumor]"')
    for case, values in truth.items():
        made = nib.load(out / case / "ct.nii.gz")
        np.testing.assert_array_equal(made.dataobj, values.T)
        files = sorted((data / case / "ct").iterdir())
        np.testing.assert_allclose(made.affine, ScanReader().get_data(ScanReader().read(files))[1]["affine"])
    made = segment(data, ["background", "liver", "tumor"], labels=str(out), test_fraction=0, validation_fraction=0.5)
    assert [entry["image"] for entry in entries(made)] == ["p1/ct", "p2/ct"]
    merge_masks(data, tmp_path / "one", names="tumor")
    np.testing.assert_array_equal(nib.load(tmp_path / "one/p1/ct.nii.gz").dataobj, truth["p1"].T == 2)
    words = "of the kind Label Map" if kind == "LABELMAP" else "segmentation and no image; dira-monai merge-masks"
    refuses(words, read, data / "p1/seg/1-1.dcm")
    first = pydicom.dcmread(data / "p1/seg/1-1.dcm")
    first.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].PixelSpacing = [1, 1.5]
    first.save_as(data / "p1/seg/1-1.dcm")
    refuses("1-1.dcm lies on another grid than its series", merge_masks, data, tmp_path / "three")


def test_what_is_refused(tmp_path):
    layout, data, out = ("N", "N_CLASS"), tmp_path / "data", tmp_path / "out"
    data.mkdir()
    refuses("lies in .*; name a folder beside it", merge_masks, data, data / "out")
    refuses("holds no images with masks; name the classes by --names", merge_masks, data, out)
    write_case(data, ("N", "masks/CLASS/N"), 0, [("background", LIVER)])
    refuses("background is 0 in every label map", merge_masks, data, out)
    (data / "masks/background/0.nii.gz").unlink()
    write_case(data, layout, 0)
    write_case(data, layout, 1, [("liver", LIVER)])
    for names in ("liver,liver", "liver,,spleen"):
        refuses("names must be different words, got .'liver', '", merge_masks, data, out, names=names)
    refuses(r"1 of 2 images have no mask of spleen: 1.nii.gz; .*--allow_missing", merge_masks, data, out)
    assert "spleen: 16 voxels in 1 label maps" in merge_masks(data, tmp_path / "some", allow_missing=True)
    write_case(data, layout, 1, [("spleen", LIVER)])
    refuses("overlap, 12 voxels of liver and spleen; give --later_wins", merge_masks, data, out)
    write_case(data, layout, 1, [("spleen", LIVER + SPLEEN)])
    refuses("the values 0, 1, 255 where a mask of one class", merge_masks, data, out)
    lines = merge_masks(data, tmp_path / "threshold", label_threshold=127)
    assert lines[:2] == [
        "liver: 0 voxels in 0 label maps; leave it out by --names",
        "spleen: 32 voxels in 2 label maps",
    ]
    write_case(data, layout, 1, [("spleen", SPLEEN)], affine=AFFINE + np.eye(4)[3] * [[7], [0], [0], [0]])
    refuses("mask 1_spleen.nii.gz lies up to 7 mm away .*resample_from_to", merge_masks, data, out)
    write_case(data, layout, 1, [("spleen", SPLEEN[:5])])
    refuses("has 5 x 8 x 5 voxels where its image has 6 x 8 x 5; resample", merge_masks, data, out)
    assert not out.exists()
    assert not [*tmp_path.glob(".merge-*")]


def test_a_list_names_the_command(tmp_path):
    for index in range(3):
        write_nifti(tmp_path / f"s{index}/ct.nii.gz", noise(*SHAPE, seed=index))
        for name in ("liver", "spleen"):
            write_nifti(tmp_path / f"s{index}/segmentations/{name}.nii.gz", LIVER)
    refuses("has several label maps: .*; merge masks .* by dira-monai merge-masks", segment, tmp_path)
