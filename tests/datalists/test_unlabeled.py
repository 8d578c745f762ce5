import json
import os

import numpy as np
import pytest
from labeled_files import LISTS, SHAPES, classify, images_of, segment, ten, write_maps, write_table
from scan_files import close_folders, noise, relative, write_image, write_nifti, write_series

from dira_monai.datalists.checks import check_datalist
from dira_monai.datalists.io import load_datalist, write_datalist
from dira_monai.datalists.summary import describe_datalist, summarize_datalist
from dira_monai.datalists.unlabeled import inference_items, make_datalist
from dira_monai.utils.errors import InputError


def test_make_datalist(pictures):
    made = make_datalist(pictures)
    assert made["dataset_dir"] == str(pictures)
    assert (made["spatial_dims"], made["in_channels"], made["seed"]) == (2, 1, 0)
    assert images_of(made["validation"]) == ["p03.png"]  # the one of 20 that seed 0 draws at 0.1
    assert made["skipped"] == []
    assert sorted(images_of(made["training"]) + images_of(made["validation"])) == [f"p{i:02d}.png" for i in range(20)]
    entry = made["training"][0]
    assert entry["patient"] == entry["image"].removesuffix(".png")
    assert entry["shape"] == [8, 6]
    assert json.loads(json.dumps(made)) == made


def test_a_folder_may_begin_with_a_tilde(pictures, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    os.symlink(pictures, "~no_such_user")
    assert make_datalist("~no_such_user")["dataset_dir"] == str(tmp_path / "~no_such_user")
    assert make_datalist("~/~no_such_user")["dataset_dir"] == str(tmp_path / "~no_such_user")


def test_same_files_give_the_same_lists(pictures, monkeypatch):
    made = make_datalist(pictures)
    walk = os.walk
    monkeypatch.setattr(
        os, "walk", lambda *a, **k: ((at, dirs[::-1], files[::-1]) for at, dirs, files in walk(*a, **k))
    )
    assert make_datalist(pictures, workers=3) == made
    assert make_datalist(pictures, seed=1)["validation"] != made["validation"]


@pytest.mark.parametrize(("fraction", "count"), [(0.5, 8), (0.01, 1), (0.99, 19)])
def test_validation_fraction(pictures, fraction, count):
    assert len(make_datalist(pictures, validation_fraction=fraction)["validation"]) == count


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"validation_fraction": 1.0}, "validation_fraction must be a number above 0 and below 1, got 1.0"),
        ({"validation_fraction": "all"}, "validation_fraction must be a number above 0 and below 1, got 'all'"),
        ({"spatial_dims": 4}, "spatial_dims must be 2 or 3, got 4"),
        ({"in_channels": 0}, "in_channels must be a whole number from 1 to 1000000, got 0"),
        ({"patient": "names"}, "patient must be auto, dicom, name, .*, prefix1, prefix2 or a CSV file, got 'names'"),
        ({"patient": "name"}, r"p00\.png has no patient in its name, so the patient rule name does not fit"),
        ({"patient": "dicom"}, r"p00\.png is no DICOM file"),
        ({"patient": "folder"}, r"p00\.png lies in no folder of its own"),
        ({"patient": "none.csv"}, r"the patient table none\.csv does not exist"),
    ],
)
def test_make_datalist_refuses(pictures, arguments, message):
    with pytest.raises(InputError, match=message):
        make_datalist(pictures, **arguments)


def test_unusable_images_are_skipped(flawed):
    made = make_datalist(flawed)
    reasons = {entry["image"]: entry["reason"] for entry in made["skipped"]}
    assert set(reasons) == {"p03.png", "p05.png", "p07.png", "volume.nii.gz"}
    assert reasons["p03.png"].startswith("p03.png cannot be read: ")
    assert reasons["p05.png"] == "p05.png holds the value 0 everywhere."
    assert reasons["p07.png"].startswith("p07.png has 3 differing channels")
    assert reasons["volume.nii.gz"] == "volume.nii.gz has 3 spatial dimensions where spatial_dims is 2."
    assert len(made["training"]) + len(made["validation"]) == 17


def test_strict_stops_at_the_first(flawed):
    with pytest.raises(InputError, match=r"^p03\.png cannot be read: "):
        make_datalist(flawed, strict=True)
    for name in ("p03.png", "p05.png", "p07.png"):
        (flawed / name).unlink()
    with pytest.raises(InputError, match=r"^volume\.nii\.gz has 3 spatial dimensions"):
        make_datalist(flawed, strict=True)


def test_nothing_usable(tmp_path):
    with pytest.raises(
        InputError, match=f"{tmp_path} holds no PNG, JPEG, TIFF, BMP, NIfTI, MGZ, NRRD, MHD or DICOM file"
    ):
        make_datalist(tmp_path)
    for name in ("a.png", "b.png"):
        write_image(tmp_path / name, np.zeros((4, 4)))
    with pytest.raises(
        InputError, match=f"{tmp_path} holds no usable image among 2; the first: a.png holds the value 0"
    ):
        make_datalist(tmp_path)


def test_a_folder_that_cannot_be_searched_is_named(pictures, tmp_path, monkeypatch):
    for name in ("p", "masks/closed", "closed"):
        (pictures / name).mkdir(parents=True)
    close_folders(monkeypatch, "closed")
    sentence = "cannot be searched: Permission denied."
    expected = [{"image": name, "reason": f"{name} {sentence}"} for name in ("closed", "masks/closed")]
    made = make_datalist(pictures)
    assert (made["skipped"], len(made["training"])) == (expected, 19)
    assert "2 skipped" in summarize_datalist(made)
    with pytest.raises(InputError, match=f"closed {sentence}"):
        make_datalist(pictures / "closed")
    write_maps(tmp_path / "labeled", 2)
    write_table(tmp_path / "classes", *ten(["healthy", "ill"]))
    for kind, make in (("labeled", segment), ("classes", classify)):
        (tmp_path / kind / "closed").mkdir(exist_ok=True)
        assert make(tmp_path / kind)["skipped"] == expected[:1]


def test_one_patient_cannot_be_split(tmp_path):
    write_image(tmp_path / "a.png", noise(4, 4))
    with pytest.raises(InputError, match="belong to one patient, a, but training and validation need one each"):
        make_datalist(tmp_path)


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ([], "has no list 'training'"),
        ({"training": [{"image": "a"}]}, "has no list 'validation'"),
        ({"training": [], "validation": [{"image": "a"}]}, "has an empty list 'training'"),
        ({"training": [{"image": "a"}, {"label": "b"}], "validation": []}, "has no 'image' in entry 1 of 'training'"),
        ({"training": [{"image": 5}], "validation": []}, "has no path but 5 as 'image' in entry 0 of 'training'"),
        ({"training": [{"image": ["a", 5]}], "validation": []}, r"has no path but \['a', 5\] as 'image' in entry 0"),
        (
            {"training": [{"image": "a", "patient": ["x"]}], "validation": []},
            r"has no name but \['x'\] as 'patient' in entry 0",
        ),
        (
            {"training": [{"image": "a"}], "validation": [{"image": "b"}], "dataset_dir": None},
            "has None as 'dataset_dir', which is no path",
        ),
        (
            {"training": [{"image": "a", "patient": 1}], "validation": [{"image": "b", "patient": 1}]},
            "has 1 patients in both training and validation: 1",
        ),
    ],
)
def test_check_datalist(broken, message):
    with pytest.raises(InputError, match=f"^the datalist {message}"):
        check_datalist(broken)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"image": "a.png"}, {"image": "b/../a.png"}),
        ({"image": "a.png", "patient": 1}, {"image": "link.png", "patient": 2}),
        ({"image": "a.png"}, {"image": "linked/a.png"}),
        ({"image": ["b/1.dcm", "b/2.dcm"]}, {"image": "b"}),
        ({"image": "b/"}, {"image": ["b/1.dcm"]}),
        ({"image": ["b/1.dcm", "b/2.dcm"]}, {"image": ["b/2.dcm", "b/3.dcm"]}),
    ],
)
def test_an_image_in_two_lists_is_refused(tmp_path, one, other):
    write_image(tmp_path / "a.png", noise(4, 4))
    (tmp_path / "b").mkdir()
    (tmp_path / "link.png").symlink_to(tmp_path / "a.png")
    (tmp_path / "linked").symlink_to(tmp_path)
    listed = {"dataset_dir": str(tmp_path), "training": [{"image": "c.png"}, one], "validation": [other]}
    name = one["image"] if isinstance(one["image"], str) else one["image"][0]
    with pytest.raises(InputError, match=f"has 1 images in both training and validation: {name}"):
        check_datalist(listed)
    write_datalist({**listed, "dataset_dir": "."}, tmp_path / "list.json")
    with pytest.raises(InputError, match=r"list\.json has 1 images in both training and validation"):
        load_datalist(tmp_path / "list.json")
    listed |= {"validation": [{"image": "d.png"}], "test": [other]}
    check_datalist(listed)
    with pytest.raises(InputError, match=f"in both training and test: {name}"):
        check_datalist(listed, lists=("training", "validation", "test"))


def test_two_series_of_a_folder_are_two_images(tmp_path):
    check_datalist(
        {"dataset_dir": str(tmp_path), "training": [{"image": ["s/1", "s/2"]}], "validation": [{"image": ["s/3"]}]}
    )


def test_load_datalist(pictures, tmp_path):
    made = make_datalist(pictures)
    write_datalist(made, tmp_path / "new" / "list.json")
    loaded = load_datalist(tmp_path / "new" / "list.json")
    assert images_of(loaded["training"]) == [str(pictures / name) for name in images_of(made["training"])]
    assert loaded["training"][0]["shape"] == made["training"][0]["shape"]
    assert os.listdir(tmp_path / "new") == ["list.json"]


def test_load_datalist_of_moved_images(pictures, tmp_path):
    write_datalist(make_datalist(pictures), pictures / "list.json")
    moved = pictures.rename(tmp_path / "moved")
    assert load_datalist(moved / "list.json")["dataset_dir"] == str(moved)
    (moved / "list.json").rename(tmp_path / "list.json")
    assert load_datalist(tmp_path / "list.json", moved)["dataset_dir"] == str(moved)
    with pytest.raises(InputError, match=r"p\d\d.png, an image of .*list.json, does not exist"):
        load_datalist(tmp_path / "list.json")


def test_load_stock_datalist_with_series(tmp_path):
    series = write_series(tmp_path / "s", noise(3, 4, 5))
    write_nifti(tmp_path / "a.nii.gz", noise(4, 5, 6))
    stock = {"training": [{"image": "./a.nii.gz", "label": 1}], "validation": [{"image": relative(series, tmp_path)}]}
    (tmp_path / "dataset.json").write_text(json.dumps(stock))
    loaded = load_datalist(tmp_path / "dataset.json")
    assert loaded["training"] == [{"image": str(tmp_path / "a.nii.gz"), "label": 1}]
    assert loaded["validation"] == [{"image": [str(file) for file in series]}]


def test_load_datalist_that_is_none(tmp_path):
    (tmp_path / "list.json").write_text("{")
    with pytest.raises(InputError, match=r"list\.json is not valid JSON: "):
        load_datalist(tmp_path / "list.json")
    with pytest.raises(InputError, match=r"none\.json does not exist"):
        load_datalist(tmp_path / "none.json")


def test_table_has_a_row_for_each_of_a_few_images(tmp_path):
    write_series(tmp_path / "s", noise(3, 4, 5), patient="someone")
    write_nifti(tmp_path / "other.nii.gz", noise(4, 5, 6), spacing=(1, 2, 3.5))
    head, *rows = describe_datalist(make_datalist(tmp_path)).splitlines()
    assert head.split() == ["image", "split", "patient", "shape", "spacing", "mm", "intensity"]
    low, high = noise(4, 5, 6).min(), noise(4, 5, 6).max()
    (other,) = (row for row in rows if row.startswith("other.nii.gz"))
    assert " ".join(other.split()).endswith(f"other 4 x 5 x 6 1 x 2 x 3.5 {low} to {high}")
    (series,) = (row for row in rows if " (3 files) " in row)
    assert "someone" in series
    assert "5 x 4 x 3  0.75 x 0.5 x 2.5" in series


def test_table_groups_many_images(pictures):
    for index in range(3):
        write_image(pictures / "wide" / f"{index}.jpg", noise(9, 5 + index))
    made = make_datalist(pictures)
    head, first, second = describe_datalist(made).splitlines()
    assert head.split() == ["format", "folder", "images", "shape", "spacing", "mm", "intensity"]
    assert first.split()[:6] == ["JPEG", "wide", "3", "5-7", "x", "9"]
    assert second.split()[:7] == ["PNG", ".", "20", "8", "x", "6", "-"]
    assert summarize_datalist(made) == (
        "22 training and 1 validation images of 23 patients (by file: 0, 1, 2, p00, p01, ...), 0 skipped"
    )


def test_an_error_tells_what_was_skipped(tmp_path):
    write_image(tmp_path / "a.png", noise(6, 8))
    write_image(tmp_path / "b.png", np.zeros((6, 8)))
    with pytest.raises(InputError, match=r"one patient.*; 1 images were skipped, the first: b\.png holds the value 0"):
        make_datalist(tmp_path)


def test_a_folder_is_an_image_for_inference(tmp_path):
    assert inference_items(str(tmp_path), None, "out") == [{"image": str(tmp_path)}]
    with pytest.raises(InputError, match="none: no such file"):
        inference_items(str(tmp_path / "none"), None, "out")


@pytest.mark.parametrize("folder", ["labels", "more/Masks", "labelsTr", "labelsTs/a"])
def test_label_maps_are_no_images_to_learn_from(tmp_path, folder):
    for index in range(4):
        write_image(tmp_path / "images" / f"{index}.png", noise(6, 8, seed=index))
        write_image(tmp_path / folder / f"{index}.png", noise(6, 8, high=2))
    made = make_datalist(tmp_path)
    assert sorted(entry["image"] for entry in made["training"] + made["validation"]) == [
        f"images/{index}.png" for index in range(4)
    ]
    assert made["label_maps"] == 4
    assert summarize_datalist(made).endswith("0 skipped, 4 label maps left out")
    items = inference_items(None, str(tmp_path), str(tmp_path / "images/out"))
    write_image(tmp_path / "images/out/0/0_restored.png", noise(6, 8))
    assert inference_items(None, str(tmp_path), str(tmp_path / "images/out")) == items
    assert items == [{"image": f"{tmp_path}/images/{index}.png"} for index in range(4)]
    assert len(inference_items(None, str(tmp_path / "images"), str(tmp_path))) == 5  # results lie above
    alone = make_datalist(tmp_path / folder)
    assert (len(alone["training"] + alone["validation"]), alone["label_maps"]) == (4, 0)


def test_lists_of_other_programs_are_answered_by_the_command_that_makes_them(tmp_path):
    decathlon = {
        "name": "Liver",
        "labels": {"0": "background"},
        "training": [{"image": "a", "label": "b"}],
        "test": ["c"],
    }
    (tmp_path / "dataset.json").write_text("\ufeff" + json.dumps(decathlon), encoding="utf-8")
    with pytest.raises(
        InputError, match=r"has no list 'validation'; make lists of its folder by dira-monai datalist FOLDER"
    ):
        load_datalist(tmp_path / "dataset.json")


def test_ct_that_is_padded_below_air_is_told_and_kept(tmp_path):
    for index, low in enumerate((-1024, -2000, -3024)):
        volume = noise(6, 6, 6, seed=index).astype(np.int16)
        volume[0] = low
        write_nifti(tmp_path / f"{index}.nii.gz", volume)
    made = make_datalist(tmp_path, spatial_dims=3)
    assert made["skipped"] == []
    line = summarize_datalist(made)
    assert "2 images go below -1024 (to -3024), as CT is padded: an intensity_range of HU cuts it off" in line
    for key in ("training", "validation"):
        made[key] = [entry for entry in made[key] if entry["image"] == "0.nii.gz"]
    assert "go below" not in summarize_datalist(made)


@pytest.mark.parametrize("spatial_dims", [2, 3])
@pytest.mark.parametrize("kind", ["table", "table above", "folders"])
def test_what_a_fine_tuning_is_measured_on_is_left_out(tmp_path, kind, spatial_dims):
    words = ["train"] * 4 + ["val"] * 2 + ["test"] * 3
    names = [f"{f'{word}/' if kind == 'folders' else ''}c{n:02d}.nii.gz" for n, word in enumerate(words)]
    for number, name in enumerate(names):
        write_nifti(tmp_path / "images" / name, noise(*SHAPES[spatial_dims], seed=number))
    if kind != "folders":
        rows = [f"c{n:02d},{n % 2},{word}" for n, word in enumerate(words)]
        table = tmp_path / ("labels.csv" if kind == "table above" else "images/labels.csv")
        table.write_text("\n".join(["image_id,label,split", *rows]))
    made = make_datalist(tmp_path / "images")
    assert sorted(entry["image"] for key in LISTS[:2] for entry in made[key]) == names[:6]
    assert summarize_datalist(made).endswith(", 3 of split test left out")
    taken = make_datalist(tmp_path / "images", include_test=True)
    assert sorted(entry["image"] for key in LISTS[:2] for entry in taken[key]) == sorted(names)
