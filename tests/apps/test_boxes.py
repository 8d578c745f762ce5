"""Boxes of findings, from tables and from drawn masks."""

import nibabel as nib
import numpy as np
import pytest
from planted_maps import fill
from planted_scans import BRIGHT, CLASSES, DARK, SHAPE, flat, masks_file, write_scan, write_table
from scan_files import write_image, write_nifti, write_slice

from dira_monai import InputError
from dira_monai.apps.localization.boxes import class_of, read_boxes, read_masks
from dira_monai.datalists.classes import read_label_table
from dira_monai.datalists.options import LabelOptions

HEADER = "file,finding,x,y,w,h"


def read_rows(folder, *rows, header=HEADER, **label_map):
    """Truths and missing images of a table of boxes in the folder of the images."""
    return read_boxes(write_table(folder / "boxes.csv", header, *rows), folder, CLASSES, label_map)


@pytest.mark.parametrize(
    "rows",
    [
        ("file,finding,x,y,w,h", "a.png,bright,1,2,3,4.5"),
        ("Image Index,Finding Label,Bbox [x,y,w,h],,,", "a.png,bright,1,2,3,4.5,,,"),  # ChestX-ray14's own
        ("image,label,left,top,right,bottom", "a,bright,1,2,4,6.5"),
        ("path,finding,x,y,width,height", "sub/a.jpg,shiny,1,2,3,4.5"),  # as the original was called
    ],
)
def test_columns_of_boxes(tmp_path, rows):
    write_scan(tmp_path / "sub", "a", 2)
    write_scan(tmp_path / "sub", "other", 2)
    (truth,), missing = read_rows(tmp_path, *rows[1:], header=rows[0], shiny="bright")
    assert not missing
    assert (truth.image, truth.finding, truth.shape) == ("sub/a.png", "bright", (24, 16))
    np.testing.assert_array_equal(truth.boxes, [[1, 2, 4, 6.5]])


@pytest.mark.parametrize(
    ("header", "rows"),
    [
        ("patientId,x,y,width,height,Target", ("a,1.0,2.0,3.0,4.5,1", "other,,,,,0")),  # RSNA Pneumonia
        ("image_id,class_name,x_min,y_min,x_max,y_max", ("a,1,1,2,4,6.5", "other,No finding,nan,nan,,")),  # VinDr-CXR
        ("filename,class,xmin,ymin,xmax,ymax", ("a.png,1,1,2,4,6.5", "other.png,,,,,")),
    ],
)
def test_tables_of_boxes_list_images_without_findings(tmp_path, header, rows):
    write_scan(tmp_path, "a", 2)
    write_scan(tmp_path, "other", 2)
    table = write_table(tmp_path / "boxes.csv", header, *rows)
    (truth,), missing = read_boxes(table, tmp_path, CLASSES, {"1": "dark"})
    assert (truth.image, truth.finding, truth.boxes.tolist(), missing) == ("a.png", "dark", [[1, 2, 4, 6.5]], [])


def test_boxes_of_one_finding_come_together(tmp_path, capsys):
    write_scan(tmp_path, "a", 2)
    rows = ("a,bright,0,0,1,1", "a,dark,0,0,1,1", "a,nothing,9,9,99,99", "a,bright,22,14,2,2.0005")
    (bright, dark), _ = read_rows(tmp_path, *rows, "a,bright,-1,1,5,16", nothing=None)
    np.testing.assert_array_equal(bright.boxes, [[0, 0, 1, 1], [22, 14, 24, 16], [0, 1, 4, 16]])
    assert "2 of 4 boxes stand out of their images by at most a voxel and are clipped" in capsys.readouterr().out
    assert (bright.finding, dark.finding) == ("bright", "dark")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("z,bright,1,1,2,2", r"row 2: the image 'z' does not exist in"),
        ("a,shiny,1,1,2,2", r"row 2: the finding 'shiny' is none of the classes bright, dark; .*--label_map"),
        ("a,bright,20,1,6,2", r"row 2: the box of a\.png lies outside of the image of 24 x 16: .*\[26\.0, 3\.0\]"),
        ("a,bright,-1.1,1,5,2", r"row 2: the box of a\.png lies outside of the image"),
        ("a,bright,1,1,0,2", r"row 2: the box of a\.png is empty: it reaches from \[1\.0, 1\.0\] to \[1\.0, 3\.0\]"),
        ("a,bright,nan,1,1,2", r"row 2: the box of a\.png is empty"),
        ("a,bright,1,one,0,2", r"row 2: y must be a number, got 'one'"),
        ("a,bright,1,1,2", r"row 2: h must be a number, got ''"),
        ("x/a,bright,1,1,2,2", r"row 2: the image 'x/a' does not exist in"),
    ],
)
def test_boxes_refused(tmp_path, row, message):
    write_scan(tmp_path / "images", "a", 2)
    table = write_table(tmp_path / "boxes.csv", "file,finding,x,y,w,h", row)
    with pytest.raises(InputError, match=rf"boxes\.csv, {message}"):
        read_boxes(table, tmp_path / "images", CLASSES, {}, strict=True)


def test_more_boxes_refused(tmp_path):
    def refused(message, *rows, **options):
        with pytest.raises(InputError, match=message):
            read_rows(tmp_path, *rows, **options)

    with pytest.raises(InputError, match=r"the table of boxes .*boxes\.csv does not exist"):
        read_boxes(tmp_path / "boxes.csv", tmp_path, CLASSES, {})
    for folder in ("one", "two"):
        write_scan(tmp_path / folder, "a", 2)
    row = "a,bright,1,1,2,2"
    refused(r"row 2 names a, which may be one/a\.png and two/a\.png; write the path", row)
    columns = r"no column file, image, path, .*; its columns are name, finding"
    refused(columns, row, header="name,finding,x,y,w,h")
    columns = "there is no column h or height or h] or bottom or y_max or ymax; the columns are file, finding"
    refused(columns, f"one/{row}", header="file,finding,x,y,w")
    write_scan(tmp_path, "v", 3)
    refused(r"box of v\.nii\.gz has 2 axes, 1, 1, 3, 3, where the image has 3", "v,bright,1,1,2,2")
    ranks = r"all have 2 or all 3 spatial axes, but there are one/a\.png \(2\) and v\.nii\.gz \(3\)"
    refused(ranks, "v,bright,1,1,2,2", f"one/{row}")


def test_the_exact_path_is_preferred(tmp_path):
    for folder in (tmp_path, tmp_path / "sub"):
        write_scan(folder, "a", 2)
    truths, _ = read_rows(tmp_path, "a,bright,1,1,2,2", "sub/a.png,dark,1,1,2,2")
    assert [truth.image for truth in truths] == ["a.png", "sub/a.png"]


def test_series_by_its_folder(tmp_path):
    write_slice(tmp_path / "p1" / "1.dcm", np.arange(12, dtype="<u2").reshape(3, 4))
    assert [truth.image for truth in read_rows(tmp_path, "p1,bright,1,1,2,2")[0]] == [["p1/1.dcm"]]


def test_masks_refused(tmp_path):
    write_nifti(tmp_path / "images/a.nii", np.arange(120, dtype=np.int16).reshape(4, 5, 6))
    for mask, message in (
        (np.zeros((4, 5, 7), dtype=np.int16), r"a\.nii has the shape 4 x 5 x 7 where its image has 4 x 5 x 6"),
        (np.full((4, 5, 6), 0.5, dtype=np.float32), r"a\.nii must hold whole numbers, got 0\.5"),
    ):
        write_nifti(tmp_path / "masks/a.nii", mask)
        with pytest.raises(InputError, match=message):
            read_masks(tmp_path / "masks", tmp_path / "images", CLASSES, {}, "dark")


def test_masks_behind_a_slope(tmp_path):
    write_nifti(tmp_path / "images/a.nii", np.arange(120, dtype=np.int16).reshape(4, 5, 6))
    mask = np.zeros((4, 5, 6), dtype=np.float32)
    mask[1:3, 2:4, 3:5] = 0.99999994
    write_nifti(tmp_path / "masks/a.nii", mask)
    (truth,), _ = read_masks(tmp_path / "masks", tmp_path / "images", CLASSES, {"1": "dark"})
    np.testing.assert_array_equal(truth.boxes, [[1, 2, 3, 3, 4, 5]])


def test_mask_without_image(tmp_path):
    write_nifti(tmp_path / "masks/a.nii", np.ones((4, 5, 6), dtype=np.int16))
    write_nifti(tmp_path / "images/b.nii", np.ones((4, 5, 6), dtype=np.int16))
    truths, missing = read_masks(tmp_path / "masks", tmp_path / "images", CLASSES, {})
    assert (truths, len(missing)) == ([], 1)
    with pytest.raises(InputError, match=r"masks/a\.nii: the image 'a' does not exist in"):
        read_masks(tmp_path / "masks", tmp_path / "images", CLASSES, {}, strict=True)


def test_masks_lie_where_their_images_lie(tmp_path):
    image = write_scan(tmp_path / "images", "a", 3)
    affine, labels = nib.load(image).affine, fill(np.zeros(SHAPE, dtype=np.int16), BRIGHT, 1)
    file, flip = masks_file(tmp_path / "masks"), np.diag([-1.0, 1, 1, 1])
    flip[0, 3] = SHAPE[0] - 1
    nib.save(nib.Nifti1Image(labels[::-1], affine @ flip), file)  # the same place, stored the other way round
    with pytest.raises(InputError, match=r"masks/a\.nii lies up to .* mm away from its image: their affines differ"):
        read_masks(file.parent, image.parent, CLASSES, {}, "bright")
    nib.save(nib.Nifti1Image(labels, affine), file)
    (truth,), _ = read_masks(file.parent, image.parent, CLASSES, {}, "bright")
    np.testing.assert_array_equal(truth.boxes, [BRIGHT])


@pytest.mark.parametrize("folder", ["images", "scans"])
def test_masks_in_the_folder_of_the_images(tmp_path, folder):
    for name in ("one", "two"):
        write_scan(tmp_path / folder / name, "a", 2)
        write_image(tmp_path / "drawn" / folder / name / "a.png", fill(np.zeros(SHAPE[:2]), flat(DARK)).T)
    truths, missing = read_masks(tmp_path / "drawn", tmp_path, CLASSES, {}, "dark")
    expected = [(f"{folder}/{name}/a.png", [flat(DARK)]) for name in ("one", "two")]
    assert [(truth.image, truth.boxes.tolist()) for truth in truths] == expected
    assert not missing


def test_a_point_in_a_name_begins_no_suffix(tmp_path):
    write_scan(tmp_path, "1.2", 2)
    (truth,), missing = read_rows(tmp_path, "1.2.840,dark,1,1,2,2", "1.2.dcm,dark,1,1,2,2")
    assert (truth.image, len(truth.boxes), len(missing)) == ("1.2.png", 1, 1)


NAMES = ["images/x.png", "x.png", "x", "./images/x.png", "images\\x.png", "{root}/images/x.png"]


@pytest.mark.parametrize("name", NAMES)
def test_boxes_and_labels_name_images_alike(tmp_path, name):
    write_scan(tmp_path / "images", "x", 2)
    write_scan(tmp_path / "masks", "x", 2)  # images lie in images
    row = f"{name.format(root=tmp_path)},dark"
    boxes = write_table(tmp_path / "boxes.csv", "file,finding,x,y,w,h", f"{row},1,1,2,2")
    labels = write_table(tmp_path / "labels.csv", "file,label", row)
    options = LabelOptions(task="classification", class_names=CLASSES)
    (found,) = read_label_table(labels, tmp_path, ["images/x.png"], options).rows
    (truth,), _ = read_boxes(boxes, tmp_path, CLASSES, {})
    assert truth.image == found.image == "images/x.png"


def test_class_of():
    assert class_of("dark", CLASSES, {}, "here") == "dark"
    assert class_of("x", CLASSES, {"x": "dark"}, "here") == "dark"
    assert class_of("x", CLASSES, {"x": None}, "here") is None
    rest = {"x": None, "*": "dark"}
    assert [class_of(word, CLASSES, rest, "here") for word in ("x", "y", CLASSES[-1])] == [None, "dark", CLASSES[-1]]
    with pytest.raises(InputError, match="here: the finding 'shadow' is none of the classes"):
        class_of("x", CLASSES, {"x": "shadow"}, "here")
