import json

import nibabel as nib
import numpy as np
import pytest
from monai.data import load_decathlon_datalist
from monai.transforms import LoadImage
from scan_files import cut, noise, write_image, write_nifti, write_series, write_slice

from dira_monai.datalist import write_datalist
from dira_monai.errors import InputError
from dira_monai.label_maps import LabelRule, find_classes
from dira_monai.labelled import describe_labelled, make_labelled_datalist
from dira_monai.patients import choose_validation
from dira_monai.reader import ScanReader

SHAPES = {2: (6, 8), 3: (6, 8, 5)}
LISTS = ("training", "validation", "test")


def write_maps(root, spatial_dims, count=10, folders=("images", "labels"), ending=""):
    """NIfTI images case_0 ... with label maps that hold the classes 0 and 1."""
    for index in range(count):
        image = noise(*SHAPES[spatial_dims], seed=index)
        write_nifti(root / folders[0] / f"case_{index}.nii.gz", image)
        write_nifti(root / folders[1] / f"case_{index}{ending}.nii.gz", (image > 100).astype(np.uint8))
    return root


def write_table(root, text, images=(), folder="images"):
    for index, name in enumerate(images):
        write_image(root / folder / name, noise(6, 8, seed=index))
    (root / "labels.csv").parent.mkdir(parents=True, exist_ok=True)
    (root / "labels.csv").write_text(text)
    return root


def ten(words, head="file,label", more=lambda index: ""):
    """A table and names of ten images with these words in turn."""
    names = [f"x{index}.png" for index in range(10)]
    rows = [f"{name},{words[index % len(words)]}{more(index)}" for index, name in enumerate(names)]
    return "\n".join([head, *rows]) + "\n", names


def segment(root, **options):
    given = {"class_names": ["background", "lung"], "pictures_only": False, **options}
    return make_labelled_datalist(root, "segmentation", given.pop("class_names"), **given)


def classify(root, class_names=("healthy", "ill"), **options):
    return make_labelled_datalist(root, "classification", class_names, **options)


def entries(made):
    return sorted((entry for key in LISTS for entry in made[key]), key=lambda entry: entry["image"])


def labels(made):
    return [entry["label"] for entry in entries(made)]


def reasons(made):
    return {entry["image"]: entry["reason"] for entry in made["skipped"]}


@pytest.mark.parametrize("spatial_dims", [2, 3])
@pytest.mark.parametrize(
    ("folders", "ending"),
    [(("images", "labels"), ""), (("Images", "masks"), "_mask"), (("imagesTr", "labelsTr"), "_gt")],
)
def test_pairs_of_image_and_label_map(tmp_path, spatial_dims, folders, ending):
    made = segment(write_maps(tmp_path, spatial_dims, folders=folders, ending=ending))
    assert made["spatial_dims"] == spatial_dims
    assert [(entry["image"], entry["label"]) for entry in entries(made)] == [
        (f"{folders[0]}/case_{index}.nii.gz", f"{folders[1]}/case_{index}{ending}.nii.gz") for index in range(10)
    ]
    assert [len(made[key]) for key in LISTS] == [7, 1, 2]  # 2 of 10, then round(0.8) of 8
    assert all(entry["holds"] == [1, 1] for entry in entries(made))
    assert json.loads(json.dumps(made)) == made


def test_any_two_suffixes_and_places_pair(tmp_path):
    write_image(tmp_path / "images" / "a" / "x_0000.jpg", noise(6, 8))
    write_image(tmp_path / "masks" / "a" / "x.png", noise(6, 8, high=2))
    write_image(tmp_path / "images" / "b" / "x.png", noise(6, 8))
    write_image(tmp_path / "masks" / "b" / "x.png", noise(6, 8, high=2))
    write_nifti(tmp_path / "images" / "case_0001.nii.gz", noise(6, 8))
    write_image(tmp_path / "masks" / "case_0001_seg.png", noise(8, 6, high=2))
    made = segment(tmp_path, patient="file", test_fraction=0)
    assert labels(made) == ["masks/a/x.png", "masks/b/x.png", "masks/case_0001_seg.png"]
    assert made["test"] == []


def test_a_dicom_series_pairs_by_its_folder(tmp_path):
    for index in range(2):
        write_series(tmp_path / "images" / f"p{index}", noise(3, 4, 5), series=f"1.{index}", patient=f"p{index}")
    size, origin = (5, 4, 3), (-10, 20, 5)  # LPS, as write_series has it
    affine = np.diag([-0.75, -0.5, 2.5, 1.0])
    affine[:3, 3] = np.array([-1, -1, 1]) * origin
    (tmp_path / "labels").mkdir()
    for index in range(2):
        values = noise(*size, seed=index, high=2).astype(np.uint8)
        nib.save(nib.Nifti1Image(values, affine), tmp_path / "labels" / f"p{index}.nii.gz")
    made = segment(tmp_path, test_fraction=0, strict=True)
    assert labels(made) == ["labels/p0.nii.gz", "labels/p1.nii.gz"]
    assert made["patient_rule"] == "dicom"
    entry = made["training"][0]
    assert entry["image"] == f"images/{entry['patient']}"  # the folder, which stock MONAI reads as one volume
    volume, label = (LoadImage(image_only=True)(tmp_path / entry[key]) for key in ("image", "label"))
    assert volume.shape == label.shape == size
    np.testing.assert_allclose(volume.affine, affine)
    ours, _ = ScanReader().get_data(ScanReader().read(tmp_path / entry["image"]))
    np.testing.assert_array_equal(ours, volume.numpy())


@pytest.mark.parametrize(
    ("images", "maps", "options"),
    [("images", "masks", {}), ("images/train", "masks/train", {}), ("films", "masks", {"labels": "masks"})],
)
def test_x_rays_in_one_folder_pair_by_their_names(tmp_path, images, maps, options):
    for index in range(4):
        stored = noise(6, 8, seed=index)
        tags = {"position": None, "Modality": "DX", "series": f"1.{index}", "patient": f"p{index}"}
        write_slice(tmp_path / images / f"x{index}.dcm", stored, **tags)
        write_image(tmp_path / maps / f"x{index}.png", stored > 100)
    made = segment(tmp_path, test_fraction=0, strict=True, **options)
    pairs = [(entry["image"], entry["label"]) for entry in entries(made)]
    assert pairs == [(f"{images}/x{index}.dcm", f"{maps}/x{index}.png") for index in range(4)]
    for image, label in pairs:
        scan, mask = LoadImage(reader=ScanReader())(tmp_path / image), LoadImage()(tmp_path / label)
        np.testing.assert_array_equal(scan > 100 - 1024, mask)
    with pytest.raises(InputError, match="2D fine-tuning reads PNG and JPEG; convert it"):
        segment(tmp_path, pictures_only=True, **options)


def test_a_series_that_shares_its_folder_is_left_out_with_the_reason(tmp_path):
    for index in range(3):
        write_series(tmp_path / f"p{index}", noise(3, 4, 5), series=f"1.{index}", patient=f"p{index}")
    (tmp_path / "p1" / "report.txt").write_text("what the scanner adds")
    rows = "".join(f"p{index},{'ab'[index % 2]},p{index}\n" for index in range(3))
    (tmp_path / "p3").mkdir()
    write_series(tmp_path / "p3", noise(3, 4, 5), series="1.3", patient="p3")
    (tmp_path / "labels.csv").write_text("file,label,patient\n" + rows + "p3,b,p3\n")
    made = make_labelled_datalist(tmp_path, "classification", ["a", "b"], test_fraction=0, seed=1)
    assert [skip["reason"].split(" in a folder")[1] for skip in made["skipped"]] == [
        " with 1 others; move each series to a folder of its own."
    ]


@pytest.mark.parametrize("inside", [True, False])
def test_labels_names_the_folder(tmp_path, inside):
    write_maps(tmp_path / "data", 2)
    folder = tmp_path / "data" / "nodules" if inside else tmp_path / "elsewhere"
    (tmp_path / "data" / "labels").rename(folder)
    (tmp_path / "data" / "images").rename(tmp_path / "data" / "scans")
    made = segment(tmp_path / "data", labels="nodules" if inside else str(folder))
    assert labels(made)[0] == ("nodules/case_0.nii.gz" if inside else "../elsewhere/case_0.nii.gz")
    with pytest.raises(InputError, match="labels must be a folder of label maps, got 'none'"):
        segment(tmp_path / "data", labels="none")


def test_folders_that_are_missing_or_ambiguous(tmp_path):
    write_image(tmp_path / "images" / "a.png", noise(6, 8))
    with pytest.raises(InputError, match=r"holds no images with label maps: folders images and labels .*, got None"):
        segment(tmp_path)
    for name in ("labels", "masks"):
        write_image(tmp_path / name / "a.png", noise(6, 8, high=2))
    with pytest.raises(InputError, match="holds label maps in the folders labels and masks; name one by --labels"):
        segment(tmp_path)


@pytest.fixture(params=[2, 3])
def flawed(request, tmp_path):
    """Eighteen good pairs, and one of each flaw."""
    shape = SHAPES[request.param]
    write_maps(tmp_path, request.param, count=18)
    for name in ("alone", "small", "shifted", "broken", "values", "half", "two", "nan"):
        write_nifti(tmp_path / "images" / f"{name}.nii.gz", noise(*shape, seed=3))
    folder, good = tmp_path / "labels", noise(*shape, high=2)
    write_nifti(folder / "lonely.nii.gz", good)
    write_nifti(folder / "small.nii.gz", good[1:])
    write_nifti(folder / "shifted.nii.gz", good, spacing=(1.05, 2, 3))
    cut(write_nifti(folder / "broken.nii.gz", noise(*[4 * n for n in shape])))
    write_nifti(folder / "values.nii.gz", good + 1)
    write_nifti(folder / "half.nii.gz", (good / 2).astype(np.float32))
    write_nifti(folder / "nan.nii.gz", np.where(good, np.nan, 0).astype(np.float32))
    write_nifti(folder / "two_gt.nii.gz", good)
    write_nifti(folder / "two_seg.nii.gz", good)
    return tmp_path


def test_pairs_that_cannot_be_used(flawed):
    made = segment(flawed)
    told = reasons(made)
    assert len(entries(made)) == 18
    axes = "5 x 8 x 5", "6 x 8 x 5"
    if made["spatial_dims"] == 2:
        axes = "5 x 8", "6 x 8"
    assert told.pop("images/broken.nii.gz").startswith("labels/broken.nii.gz cannot be read: it is cut off")
    assert told == {
        "images/alone.nii.gz": "images/alone.nii.gz has no label map.",
        "labels/lonely.nii.gz": "the label map labels/lonely.nii.gz has no image.",
        "images/small.nii.gz": f"the label map labels/small.nii.gz has {axes[0]} voxels where its image has {axes[1]}.",
        "images/shifted.nii.gz": "the label map labels/shifted.nii.gz lies up to 0.25 mm away from its image: "
        "their affines differ.",
        "images/values.nii.gz": "labels/values.nii.gz holds the label values 1, 2 where 2 classes allow 0 to 1.",
        "images/half.nii.gz": "labels/half.nii.gz holds the label values 0, 0.5 (0.5 is no whole number) "
        "where 2 classes allow 0 to 1.",
        "images/nan.nii.gz": "labels/nan.nii.gz holds the label values 0, nan (nan is no whole number) "
        "where 2 classes allow 0 to 1.",
        "images/two.nii.gz": "images/two.nii.gz has several label maps: labels/two_gt.nii.gz, labels/two_seg.nii.gz.",
        "labels/two_gt.nii.gz": "the label map labels/two_gt.nii.gz has no image.",
        "labels/two_seg.nii.gz": "the label map labels/two_seg.nii.gz has no image.",
    }
    with pytest.raises(InputError, match=r"images/alone\.nii\.gz has no label map"):
        segment(flawed, strict=True)


def test_a_small_difference_of_geometry_is_rounding(tmp_path):
    write_maps(tmp_path, 3)
    values = noise(*SHAPES[3], high=2)
    write_nifti(tmp_path / "labels" / "case_0.nii.gz", values, spacing=(1.001, 2, 3))  # 0.005 mm at the corner
    assert segment(tmp_path)["skipped"] == []


def test_two_images_with_one_name_and_label_maps_in_color(tmp_path):
    write_maps(tmp_path, 2)
    write_image(tmp_path / "images" / "case_0.png", noise(8, 6))
    write_image(tmp_path / "images" / "color.png", noise(8, 6))
    write_image(tmp_path / "labels" / "color.png", noise(8, 6, 3, high=2))
    told = reasons(segment(tmp_path))
    assert told["images/case_0.png"].endswith("has the same label map as images/case_0.nii.gz, labels/case_0.nii.gz.")
    assert told["images/color.png"] == "the label map labels/color.png has 3 channels where 1 is needed."


def write_masks(root, values, spatial_dims=2, count=5):
    for index in range(count):
        image = noise(*SHAPES[spatial_dims], seed=index)
        write_nifti(root / "images" / f"{index}.nii.gz", image)
        write_nifti(root / "masks" / f"{index}.nii.gz", np.array(values, dtype=np.float32)[image % len(values)])
    return root


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_wrong_classes_are_refused_with_what_mends_them(tmp_path, spatial_dims):
    write_masks(tmp_path, [0, 255], spatial_dims)
    words = (
        r"^masks/0\.nii\.gz holds the label values 0, 255 where 2 classes allow 0 to 1; "
        r'give --label_threshold 127 or --label_values "\[0, 255\]"\.$'
    )
    with pytest.raises(InputError, match=words):
        segment(tmp_path)
    for option in ({"label_threshold": 127}, {"label_values": [0, 255]}):
        assert [entry["holds"] for entry in entries(segment(tmp_path, **option))] == [[1, 1]] * 5
    with pytest.raises(InputError, match=r"0, 255 where 2 classes have the label_values \[0, 1\]; give"):
        segment(tmp_path, label_values=[0, 1])
    with pytest.raises(InputError, match="no image of the class 'lung' in training"):
        segment(tmp_path, label_threshold=255)
    with pytest.raises(InputError, match="allow 0 to 2; give --label_values with one value a class"):
        segment(tmp_path, class_names=["a", "b", "c"])


def test_a_value_at_the_threshold_is_the_first_class():
    rule = LabelRule(2, threshold=127)
    for values, holds in (([0, 127], [1, 0]), ([128], [0, 1]), ([127, 128], [1, 1])):
        assert find_classes("a.png", np.array(values), rule) == holds


def test_in_2d_only_what_the_bundles_read(tmp_path):
    for index in range(6):
        write_image(
            tmp_path / "images" / f"x{index}.{('png', 'jpg', 'jpeg', 'JPG')[index % 4]}", noise(6, 8, seed=index)
        )
    write_nifti(tmp_path / "images" / "slice.nii.gz", noise(6, 8, 1))
    write_slice(tmp_path / "images" / "s" / "ray.dcm", noise(6, 8))
    rows = [f"x{index},{index % 2}" for index in range(6)] + ["slice,0", "ray,1"]
    (tmp_path / "labels.csv").write_text("\n".join(["file,label", *rows]))
    made = classify(tmp_path, spatial_dims=2, patient="file")
    assert [entry["image"][7:9] for entry in entries(made)] == [f"x{index}" for index in range(6)]
    reason = "has another format: 2D fine-tuning reads PNG and JPEG; convert it."
    told = sorted(skip["reason"] for skip in made["skipped"])
    assert told == [f"images/{name} {reason}" for name in ("s/ray.dcm", "slice.nii.gz")]
    assert len(entries(classify(tmp_path, spatial_dims=2, patient="file", pictures_only=False))) == 8


def test_in_2d_label_maps_are_pictures_too(tmp_path):
    for index in range(4):
        write_image(tmp_path / "images" / f"{index}.png", noise(8, 6, seed=index))
        write_image(tmp_path / "masks" / f"{index}.png", noise(8, 6, seed=index, high=2))
    write_image(tmp_path / "images" / "n.png", noise(8, 6))
    write_nifti(tmp_path / "masks" / "n.nii.gz", noise(6, 8, 1, high=2))
    made = make_labelled_datalist(tmp_path, "segmentation", ["background", "lung"])
    assert reasons(made) == {
        "images/n.png": "masks/n.nii.gz has another format: 2D fine-tuning reads PNG and JPEG; convert it."
    }
    assert len(segment(tmp_path)["skipped"]) == 0
    assert len(entries(make_labelled_datalist(write_maps(tmp_path / "3d", 3), "segmentation", ["a", "b"]))) == 10


def test_label_values_are_in_the_order_of_the_classes(tmp_path):
    write_masks(tmp_path, [7, 2, 4])
    with pytest.raises(InputError, match="has no image of the class 'b' in training"):
        segment(tmp_path, class_names=["a", "b", "c", "d"], label_values=[2, 9, 4, 7])
    made = segment(tmp_path, class_names=["a", "b", "c"], label_values=[4, 7, 2])
    assert [entry["holds"] for entry in entries(made)] == [[1, 1, 1]] * 5


def test_an_image_as_label_map_is_told_in_short(tmp_path):
    write_masks(tmp_path, np.arange(20) / 2)
    with pytest.raises(InputError, match=r"values 0, 0\.5, 1, 1\.5, 2, 2\.5, 3, 3\.5, \.\.\. \(20 in all\) \(0\.5, "):
        segment(tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"label_threshold": 1, "label_values": [0, 1]}, "label_threshold and label_values exclude each other"),
        ({"label_threshold": "a"}, "label_threshold must be a number that separates 2 classes, got 'a' for 2"),
        ({"label_threshold": 1, "class_names": ["a", "b", "c"]}, "separates 2 classes, got 1 for 3"),
        ({"label_values": [0, 0]}, r"label_values must be 2 different values, one a class, got \[0, 0\]"),
        ({"class_names": ["a"]}, r"class_names must be a list of at least 2 different names, got \['a'\]"),
        ({"class_names": ["a", "a"]}, r"at least 2 different names, got \['a', 'a'\]"),
        ({"class_names": "ab"}, "at least 2 different names, got 'ab'"),
        ({"multi_label": True}, "multi_label has no meaning where the task is segmentation, got True"),
        ({"test_fraction": 1}, "test_fraction must be at least 0 and below 1, got 1"),
        ({"validation_fraction": 0}, "validation_fraction must lie between 0 and 1, got 0"),
        ({"exclude_patients_of": "boxes"}, r"exclude_patients_of must be a split of the data \(\), got 'boxes'"),
    ],
)
def test_arguments_that_are_refused(tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        segment(write_maps(tmp_path, 2, count=3), **options)


def test_a_task_that_there_is_not(tmp_path):
    with pytest.raises(InputError, match="task must be segmentation or classification, got 'detection'"):
        make_labelled_datalist(tmp_path, "detection", ["a", "b"])


@pytest.mark.parametrize("head", ["file,label", "image,finding", "path,diagnosis", "file,class"])
def test_a_table_of_classes(tmp_path, head):
    text, names = ten(["healthy", "ill", "1.0"], head)
    made = classify(write_table(tmp_path, text, names))
    assert labels(made) == [0, 1, 1, 0, 1, 1, 0, 1, 1, 0]
    assert entries(made)[0]["image"] == "images/x0.png"
    assert (made["skipped"], made["left_out"], made["patient_rule"]) == ([], {}, "file")


@pytest.mark.parametrize("place", ["below", "images", "elsewhere"])
@pytest.mark.parametrize("form", ["images/x{}.png", "x{}", "./x{}.png", "{root}/images/x{}.png", "images\\x{}.png"])
def test_rows_find_their_images(tmp_path, place, form):
    root = tmp_path / "data"
    names = [f"x{index}.png" for index in range(10)]
    rows = [f"{form.format(index, root=root)},{index % 2}" for index in range(10)]
    write_table(root, "\n".join(["file,label", *rows]), names)
    if place == "elsewhere":
        (root / "labels.csv").rename(tmp_path / "other.csv")
    folder = root / "images" if place == "images" else root
    made = classify(folder, labels=str(tmp_path / "other.csv") if place == "elsewhere" else None)
    assert labels(made) == [0, 1] * 5


def test_a_table_and_the_files_that_it_does_not_fit(tmp_path):
    text, names = ten(["healthy", "ill", "healthy"])
    write_table(tmp_path, text + "gone.png,ill\n", [*names, "extra.png"])
    (tmp_path / "labels.csv").write_text((tmp_path / "labels.csv").read_text().replace("x5.png,healthy", "x5.png,"))
    cut(tmp_path / "images" / "x1.png")
    told = reasons(classify(tmp_path))
    assert told["gone.png"] == f"gone.png does not exist, although it stands in {tmp_path / 'labels.csv'}, row 12."
    assert told["images/extra.png"] == f"images/extra.png has no row in {tmp_path / 'labels.csv'}."
    assert told["images/x5.png"] == f"{tmp_path / 'labels.csv'}, row 7 has no label that is known."
    assert told["images/x1.png"].startswith("images/x1.png cannot be read")
    with pytest.raises(InputError, match=r"gone\.png does not exist"):
        classify(tmp_path, strict=True)
    write_table(tmp_path, text, [f"other{index}.png" for index in range(20)])
    made = classify(tmp_path)
    assert made["left_out"] == {"without a row in labels.csv": 21}
    assert list(reasons(made)) == ["images/x1.png"]


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("file,label\na.png,sick\n", {}, r"labels\.csv, row 2: 'sick' is none of the classes healthy, ill; say what"),
        ("file,label\na.png,2\n", {}, "row 2: '2' is none of the classes healthy, ill"),
        ("file,label\na.png,ill\na,healthy\n", {}, r"row 3 says \('healthy', '', ''\) of a where .* row 2 says"),
        ("file,label\nb,ill\n", {}, r"row 2 names b, which may be images/b\.jpg and images/b\.png"),
        (
            "file,word\na.png,ill\n",
            {},
            r"has no column label, labels, .*; its columns are file, word: .*--label_column",
        ),
        ("name,label\na.png,ill\n", {}, "has no column file, image, path"),
        ("file,label\na.png,ill\n", {"label_column": "word"}, "has no column word"),
        ("file,label\na.png,ill\n", {"label_map": {"ill": "sick"}}, "label_map makes 'sick' of 'ill', which is none"),
        ("file,ill\na.png,maybe\n", {"class_names": ["ill"]}, "row 2: column ill must be 1, 0, .* got 'maybe'"),
        ("file,ill\na.png,0.5\n", {"class_names": ["ill"]}, "row 2: column ill must be 1, 0, .* got '0.5'"),
        ("file,ill\na.png,1\n", {"class_names": ["ill"], "label_map": {"a": "ill"}}, "label_map, .*, has no use"),
        ("file,label\nc.png,ill\n", {}, r"holds no usable image with a label; the first: c\.png does not exist"),
        ("file,label,split\na.png,ill,odd\n", {}, "no usable image .*: all are left out by their split or label"),
        ("file,label\n", {"labels": "images"}, "labels must be a CSV file where the task is classification"),
        ("file,label\n", {"labels": "none.csv"}, r"the table of labels none\.csv does not exist"),
        ("file,label\na.png,ill\n", {"label_values": [0, 1]}, "label_values has no meaning where the task is classif"),
    ],
)
def test_tables_that_are_refused(tmp_path, text, options, message):
    write_table(tmp_path, text, ["a.png", "b.png", "b.jpg"])
    with pytest.raises(InputError, match=message):
        classify(tmp_path, multi_label="class_names" in options, **options)


def test_a_table_in_another_encoding(tmp_path):
    write_table(tmp_path, "", ["a.png"])
    (tmp_path / "labels.csv").write_bytes("file,label\na.png,schön\n".encode("latin-1"))
    with pytest.raises(InputError, match=r"the table of labels .*labels\.csv is not in UTF-8"):
        classify(tmp_path)


def test_label_map_joins_and_leaves_out(tmp_path):
    text, names = ten(["normal", "virus", "bacteria", "unclear"])
    kinds = {"normal": "healthy", "virus": "ill", "bacteria": "ill", "unclear": None}
    made = classify(write_table(tmp_path, text, names), label_map=kinds)
    assert labels(made) == [0, 1, 1, 0, 1, 1, 0, 1]
    assert made["left_out"] == {"labeled unclear": 2}


def test_several_labels_in_one_column(tmp_path):
    words = ["Mass|Edema", "No Finding", "Edema", "", "none", "Hernia|Mass"]
    made = classify(
        write_table(tmp_path, *ten(words, "file,findings")),
        ["Edema", "Mass"],
        multi_label=True,
        label_map={"Hernia": "none"},
    )
    assert labels(made)[:6] == [[1, 1], [0, 0], [1, 0], [0, 0], [0, 0], [0, 1]]
    with pytest.raises(InputError, match="row 7: 'Hernia' is none of the classes Edema, Mass"):
        classify(tmp_path, ["Edema", "Mass"], multi_label=True)


def test_one_column_a_class(tmp_path):
    words = ["1,0", "0.0,1.0", ",1", "-1,1", "nan,0", "1,-1.0", ","]
    made = classify(
        write_table(tmp_path, *ten(words, "file,Edema,Mass")), ["Mass", "Edema"], multi_label=True, patient="file"
    )
    expected = [[0, 1], [1, 0], [1, None], [1, None], [0, None], [None, 1], [0, 1], [1, 0], [1, None]]
    assert labels(made) == expected
    assert list(reasons(made)) == ["images/x6.png"]  # nothing is known of it
    assert json.loads(json.dumps(made)) == made


def test_one_folder_a_class(tmp_path):
    for kind in ("NORMAL", "PNEUMONIA", "OTHER", "A", "B", "C"):
        for index in range(4):
            write_image(tmp_path / kind / f"{kind}{index}.png", noise(6, 8))
    write_image(tmp_path / "stray.png", noise(6, 8))
    names = {"OTHER": None, "A": None, "B": None, "C": None}
    made = classify(tmp_path, ["NORMAL", "PNEUMONIA"], label_map=names)
    assert labels(made) == [0] * 4 + [1] * 4
    assert made["left_out"] == {f"labeled {name}": 4 for name in ("A", "B", "C", "OTHER")}
    assert made["patient_rule"] == "file"  # six folders are not six patients
    assert "lies in no folder of a class" in reasons(made)["stray.png"]
    with pytest.raises(InputError, match=r"A/A0\.png: 'A' is none of the classes NORMAL, PNEUMONIA; say what"):
        classify(tmp_path, ["NORMAL", "PNEUMONIA"])


def test_folders_of_splits_classes_and_patients(tmp_path):
    for split, patients in {"train": range(8), "test": range(8, 10)}.items():
        for patient in patients:
            for kind in ("healthy", "ill"):
                write_image(tmp_path / split / kind / f"p{patient}" / f"{kind}.png", noise(6, 8))
    made = classify(tmp_path)
    assert [{entry["patient"] for entry in made[key]} for key in ("validation", "test")] == [
        choose_validation([f"p{index}" for index in range(8)], 0.1, 0),
        {"p8", "p9"},
    ]
    assert labels(made) == [0, 0, 1, 1] + [0] * 8 + [1] * 8
    table = tmp_path / "patients.csv"
    table.write_text(
        "file,patient\n" + "".join(f"{entry['image']},{entry['patient'][-1]}\n" for key in LISTS for entry in made[key])
    )
    again = classify(tmp_path, patient=str(table))
    assert {entry["patient"] for entry in again["test"]} == {"8", "9"}


def test_splits_are_drawn_by_patient(tmp_path):
    text, names = ten(["healthy", "ill"], "file,label,patient", lambda index: f",p{index // 2}")
    root = write_table(tmp_path, text, names)
    everyone = [f"p{index}" for index in range(5)]
    for seed in (0, 1, 2):
        made = classify(root, test_fraction=0.4, validation_fraction=0.3, seed=seed)
        test = choose_validation(everyone, 0.4, seed)
        validation = choose_validation(sorted({*everyone} - test), 0.3, seed)
        assert [{entry["patient"] for entry in made[key]} for key in LISTS] == [
            {*everyone} - test - validation,
            validation,
            test,
        ]
    assert made["patient_rule"] == "labels.csv"
    assert classify(root, patient="file")["training"][0]["patient"].startswith("x")


@pytest.mark.parametrize("place", ["data", "data/images", "elsewhere"])
def test_the_rule_of_a_table_says_where_it_lies(tmp_path, monkeypatch, place):
    text, names = ten(["healthy", "ill"], "file,label,patient", lambda index: f",p{index // 2}")
    root, table = write_table(tmp_path / "data", text, names), tmp_path / place / "p.csv"
    table.parent.mkdir(exist_ok=True)
    table.write_text(text)
    monkeypatch.chdir(table.parent)
    inside = {"data": "p.csv", "data/images": "images/p.csv", "elsewhere": str(table)}[place]
    assert classify(root, patient="p.csv")["patient_rule"] == inside  # given from the working directory
    assert classify(root, labels=str(table))["patient_rule"] == inside
    assert classify(root / "images")["patient_rule"] == str(root / "labels.csv")  # one folder above


def test_splits_of_the_table(tmp_path):
    split = ["train", "val", "Test", "boxes", "", "train", "testing", "boxes", "validation", "train"]
    text, names = ten(["healthy", "ill"], "file,label,patient,split", lambda index: f",p{index},{split[index]}")
    made = classify(write_table(tmp_path, text.replace("x9.png,ill,p9", "x9.png,ill,p7"), names))
    assert [[entry["image"][8] for entry in made[key]] for key in LISTS] == [
        ["0", "4", "5", "9"],
        ["1", "8"],
        ["2", "6"],
    ]
    assert made["left_out"] == {"boxes": 2}
    made = classify(tmp_path, exclude_patients_of="boxes")
    assert [entry["image"][8] for entry in made["training"]] == ["0", "4", "5"]
    assert made["left_out"] == {"boxes": 2, "of patients of boxes": 1}
    with pytest.raises(InputError, match=r"must be a split of the data \(, Test, boxes, .*\), got 'box'"):
        classify(tmp_path, exclude_patients_of="box")


def test_validation_is_drawn_from_training_where_the_table_has_none(tmp_path):
    text, names = ten(["healthy", "ill"], "file,label,split", lambda index: ",test" if index < 2 else ",train")
    made = classify(write_table(tmp_path, text, names), validation_fraction=0.5)
    assert [entry["image"][8] for entry in made["test"]] == ["0", "1"]
    drawn = choose_validation([f"x{index}" for index in range(2, 10)], 0.5, 0)
    assert {entry["patient"] for entry in made["validation"]} == drawn


def test_test_is_drawn_from_training_where_the_table_has_none(tmp_path):
    text, names = ten(["healthy", "ill"], "file,label,split", lambda index: ",val" if index < 2 else ",train")
    made = classify(write_table(tmp_path, text, names), test_fraction=0.5)
    drawn = choose_validation([f"x{index}" for index in range(2, 10)], 0.5, 0)
    assert [{entry["patient"] for entry in made[key]} for key in LISTS] == [
        {f"x{index}" for index in range(2, 10)} - drawn,
        {"x0", "x1"},
        drawn,
    ]
    assert describe_labelled(made).endswith("drawn from the training patients: test (test_fraction 0.5)")
    without = classify(tmp_path, test_fraction=0)
    assert [len(without[key]) for key in LISTS] == [8, 2, 0]
    assert "drawn" not in describe_labelled(without)
    (tmp_path / "labels.csv").write_text("file,label,split\nx0.png,ill,val\nx1.png,ill,train\n")
    with pytest.raises(InputError, match="training and test need 2 patients, got 1: x1; give another patient rule, or"):
        classify(tmp_path)


SPLIT_FOLDERS = ["train"] * 6 + ["val"] * 2 + ["test"] * 2


@pytest.mark.parametrize(
    ("kind", "above"),
    [
        *(("table", above) for above in ("{}", "{}/images", "images/{}", "Images/{}/more")),
        *(("segmentation", above) for above in ("{}/images", "images/{}", "imagesTr/{}")),
        *(("class folders", above) for above in ("{}", "images/{}")),
    ],
)
def test_folders_of_splits(tmp_path, kind, above):
    text, names = ten(["healthy", "ill"])
    for index, (name, split) in enumerate(zip(names, SPLIT_FOLDERS, strict=True)):
        folder = above.format(split) + (("/healthy", "/ill")[index % 2] if kind == "class folders" else "")
        write_image(tmp_path / folder / name, noise(6, 8, seed=index))
        if kind == "segmentation":
            write_image(tmp_path / folder.replace("images", "labels") / name, noise(6, 8, high=2))
    if kind == "table":
        (tmp_path / "labels.csv").write_text(text)
    made = segment(tmp_path) if kind == "segmentation" else classify(tmp_path)
    found = [sorted(entry["image"].split("/")[-1] for entry in made[key]) for key in LISTS]
    assert found == [names[:6], names[6:8], names[8:]]
    assert made["drawn"] == {}
    if kind != "segmentation":
        assert [entry["label"] for entry in sorted(entries(made), key=lambda e: e["image"][-6:])] == [0, 1] * 5


@pytest.mark.parametrize("stray", ["images/x.png", "images/other/x.png"])
def test_folders_of_splits_that_do_not_hold_all_images_are_none(tmp_path, stray):
    files = [tmp_path / "images" / split / f"{index}.png" for index, split in enumerate(SPLIT_FOLDERS)]
    for file in [*files, tmp_path / stray]:
        write_image(file, noise(6, 8))
        write_image(tmp_path / "labels" / file.relative_to(tmp_path / "images"), noise(6, 8, high=2))
    made = segment(tmp_path, test_fraction=0)
    assert list(made["drawn"]) == ["validation"]


def test_splits_that_are_refused(tmp_path):
    text, names = ten(["healthy", "ill"], "file,label,patient,split", lambda i: f",p{i % 3},{'test' * (i > 7)}")
    root = write_table(tmp_path, text.replace(",p1,", ",p1,val"), names)
    with pytest.raises(InputError, match="has 2 patients in both training and test: p0, p2"):
        classify(root)
    (root / "labels.csv").write_text("file,label,patient\nx0.png,ill,a\nx1.png,healthy,b\n")
    with pytest.raises(InputError, match="training, validation and test need 3 patients, got 2: a, b"):
        classify(root)
    (root / "labels.csv").write_text("file,label,split\n" + "".join(f"x{i}.png,{i % 2},test\n" for i in range(4)))
    with pytest.raises(InputError, match="has an empty list 'training'"):
        classify(root)
    text = "".join(f"x{i}.png,{int(i > 7)},{'test' if i > 7 else 'train'}\n" for i in range(10))
    (root / "labels.csv").write_text("file,label,split\n" + text)
    with pytest.raises(InputError, match=r"no image of the class 'ill' in training \(0 in validation, 2 in test\)"):
        classify(root)


def test_segmentation_with_a_table_of_patients_and_splits(tmp_path):
    write_maps(tmp_path, 2, count=6)
    rows = "".join(f"case_{i},p{i // 2},{'train' if i < 4 else 'test'}\n" for i in range(5))
    (tmp_path / "p.csv").write_text("file,patient,split\n" + rows)
    made = segment(tmp_path, patient=str(tmp_path / "p.csv"))
    assert [len(made[key]) for key in LISTS] == [2, 2, 1]
    assert reasons(made) == {"images/case_5.nii.gz": "images/case_5.nii.gz has no patient in the patient table."}


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_monai_reads_the_lists_of_segmentation(tmp_path, spatial_dims):
    made = segment(write_maps(tmp_path / "data", spatial_dims))
    write_datalist(made, tmp_path / "out" / "datalist.json")
    for key in LISTS:
        read = load_decathlon_datalist(tmp_path / "out" / "datalist.json", True, key, made["dataset_dir"])
        assert [(entry["image"], entry["label"]) for entry in read] == [
            (f"{tmp_path}/data/{entry['image']}", f"{tmp_path}/data/{entry['label']}") for entry in made[key]
        ]


@pytest.mark.parametrize("multi_label", [False, True])
def test_monai_reads_the_lists_of_classification(tmp_path, multi_label):
    head = "file,healthy,ill" if multi_label else "file,label"
    text, names = ten(["1,0", ",1", "0,1"] if multi_label else ["healthy", "ill", "ill"], head)
    made = classify(write_table(tmp_path / "data", text, names), multi_label=multi_label)
    write_datalist(made, tmp_path / "datalist.json")
    for key in LISTS:
        read = load_decathlon_datalist(tmp_path / "datalist.json", False, key, made["dataset_dir"])
        assert [(entry["image"], entry["label"]) for entry in read] == [
            (f"{tmp_path}/data/{entry['image']}", entry["label"]) for entry in made[key]
        ]


def test_describe_labelled(tmp_path):
    text, names = ten(["healthy", "ill"], "file,label,patient,split", lambda index: f",p{index // 3},")
    write_table(tmp_path, text + "".join(f"gone{index},ill,p,\n" for index in range(5)) + "x0,ill,p,odd\n", names)
    (tmp_path / "labels.csv").write_text((tmp_path / "labels.csv").read_text().replace("x0,ill,p,odd\n", ""))
    made = classify(tmp_path, test_fraction=0)
    table, notes = describe_labelled(made).splitlines()[:5], describe_labelled(made).splitlines()[5:]
    counts = {key: len(made[key]) for key in LISTS}
    assert table[0].split() == ["training", "validation", "test"]
    assert table[1].split() == ["images", *map(str, counts.values())]
    assert table[2].split() == ["patients", "3", "1", "0"]
    ill = [sum(entry["label"] for entry in made[key]) for key in LISTS]
    assert table[3].split() == ["healthy", *(str(counts[key] - n) for key, n in zip(LISTS, ill, strict=True))]
    assert table[4].split() == ["ill", *map(str, ill)]
    assert notes[0] == "5 skipped, patients by labels.csv"
    assert notes[1].startswith("skipped: gone0 does not exist")
    assert notes[4] == "skipped: ... and 2 more"
