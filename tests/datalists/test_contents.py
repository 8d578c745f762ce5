"""What the pixels tell that names do not: label maps, the same image twice; and files of other formats."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from finetune_bundle import bundle
from labeled_files import LISTS, classify, entries, segment, write_maps, write_table
from scan_files import noise, refuses, write_image, write_nifti, write_series

from dira_monai.apps.infer.inputs import find_inputs
from dira_monai.bundle.config import read_config
from dira_monai.datalists.leakage import check_overlap
from dira_monai.datalists.prepare import prepare_data
from dira_monai.datalists.summary import describe_labeled, summarize_datalist
from dira_monai.datalists.unlabeled import inference_items, make_datalist
from dira_monai.images.find import first_file
from dira_monai.workflows.embed import _find_images

SHAPES = {2: (16, 12), 3: (8, 7, 6)}


def write(path, array):
    return write_nifti(path, array) if array.ndim == 3 and array.shape[2] != 3 else write_image(path, array)


def listed(made):
    return sorted(first_file(entry["image"]) for key in ("training", "validation") for entry in made[key])


def test_label_maps_by_their_values(tmp_path, spatial_dims):
    end = {2: "png", 3: "nii.gz"}[spatial_dims]
    shape = SHAPES[spatial_dims]
    for index in range(6):
        write(tmp_path / f"images/p{index}.{end}", noise(*shape, seed=index))
        write(tmp_path / f"nodules/p{index}.{end}", noise(*shape, seed=index, high=3))  # by the name of its image
        write(tmp_path / f"images/organs{index}.{end}", noise(*shape, seed=index, high=5))  # in the folder of images
    small = tuple(length - 1 for length in shape)
    write(tmp_path / f"few/p0.{end}", noise(*small, high=3))  # the name of an image of another size
    made = make_datalist(tmp_path)
    assert listed(made) == [f"few/p0.{end}", *(f"images/p{index}.{end}" for index in range(6))]
    assert made["label_maps"] == 12
    assert "12 label maps left out" in summarize_datalist(made)


def test_label_maps_that_jpeg_blurred(tmp_path):
    rows, columns = np.arange(64)[:, None], np.arange(48)
    disks = [np.hypot(rows - 30, columns - 20) < 9 + index for index in range(7)]
    for index, disk in enumerate(disks[:6]):
        write_image(tmp_path / f"A/{index}.jpg", rows + columns + noise(64, 48, seed=index, high=99))
        write_image(tmp_path / f"B/{index}.jpg", 255 * disk)
    write_image(tmp_path / "A/drawing.jpg", 255 * disks[6])  # no other of its name
    made = make_datalist(tmp_path)
    assert listed(made) == [*(f"A/{index}.jpg" for index in range(6)), "A/drawing.jpg"]
    assert made["label_maps"] == 6


def test_colored_label_maps_and_pictures_of_few_values(tmp_path):
    for index in range(4):
        write_image(tmp_path / f"p{index}.png", noise(16, 12, 3, seed=index))
        write_image(tmp_path / f"q{index}.png", np.array([[9, 0, 0], [0, 9, 0]])[noise(16, 12, seed=index, high=2)])
        write_image(tmp_path / "alone" / f"a{index}.png", noise(30, 12, seed=index, high=2))  # no other of the size
    made = make_datalist(tmp_path, in_channels=3)
    assert listed(made) == [*(f"alone/a{index}.png" for index in range(4)), *(f"p{index}.png" for index in range(4))]


def test_label_maps_in_class_folders(tmp_path):
    for name in ("benign", "normal"):
        for index in range(1, 11):
            write_image(tmp_path / name / f"{name} ({index}).png", noise(16, 12, seed=index + len(name)))
            write_image(tmp_path / name / f"{name} ({index})_mask.png", noise(16, 12, high=2))
    made = classify(tmp_path, ["benign", "normal"])
    assert (len(entries(made)), made["label_maps"], made["patient_rule"]) == (20, 20, "file")
    assert "20 label maps left out" in describe_labeled(made)


@pytest.mark.parametrize("other", ["b.png", "b.bmp", "b.tif", "b.nii.gz"])
def test_patients_with_the_same_image_stay_together(tmp_path, other):
    for index in range(8):
        write_image(tmp_path / f"x{index}.png", noise(16, 12, seed=index))
    same = noise(16, 12, seed=3)
    if other.endswith("gz"):
        nib.save(nib.Nifti1Image(same.T[..., None].astype(np.float32), np.eye(4)), tmp_path / other)
    else:
        write_image(tmp_path / other, same)
    for seed in range(4):
        made = make_datalist(tmp_path, validation_fraction=0.5, seed=seed)
        places = {entry["image"]: key for key in ("training", "validation") for entry in made[key]}
        assert places[other] == places["x3.png"]
        assert made["copies"] == [[other, "x3.png"]]
    assert f"1 images there several times ({other} = x3.png)" in summarize_datalist(made)


def test_the_same_image_in_two_splits_of_a_table(tmp_path):
    names = [f"x{index}.png" for index in range(10)]
    splits = ["train"] * 6 + ["val"] * 2 + ["test"] * 2
    rows = [
        f"{name},{('healthy', 'ill')[i % 2]},{split}" for i, (name, split) in enumerate(zip(names, splits, strict=True))
    ]
    write_table(tmp_path, "\n".join(["file,label,split", *rows]) + "\n", names)
    for copy, original in (("x0.png", "x9.png"), ("x2.png", "x9.png"), ("x1.png", "x6.png")):
        (tmp_path / "images" / copy).write_bytes((tmp_path / "images" / original).read_bytes())
    made = classify(tmp_path)
    assert {key: [entry["image"] for entry in made[key]] for key in ("training", "validation", "test")} == {
        "training": [f"images/x{index}.png" for index in (3, 4, 5)],
        "validation": ["images/x6.png", "images/x7.png"],
        "test": ["images/x8.png", "images/x9.png"],
    }
    assert "2 images there several times" in describe_labeled(made)


def test_copies_of_most_test_images_leave_training(tmp_path):
    rows = [f"{s}{i}.png,{('healthy', 'ill')[i % 2]},{s}" for s in ("train", "test") for i in range(10)]
    write_table(tmp_path, "\n".join(["file,label,split", *rows]) + "\n", [row.split(",")[0] for row in rows])
    for index in range(7):
        (tmp_path / f"images/test{index}.png").write_bytes((tmp_path / f"images/train{index}.png").read_bytes())
    made = classify(tmp_path)
    kept = sorted(first_file(entry["image"]) for name in ("training", "validation") for entry in made[name])
    assert kept == [f"images/train{index}.png" for index in (7, 8, 9)]
    assert len(made["test"]) == 10


def test_a_data_set_that_is_there_twice_has_each_image_in_one_list(tmp_path, spatial_dims):
    suffixes = {2: (".png", ".bmp"), 3: (".nii.gz", ".nii")}[spatial_dims]
    for index in range(12):
        for name, suffix in zip("ab", suffixes, strict=True):
            write(tmp_path / name / f"{name}{index}{suffix}", noise(*SHAPES[spatial_dims], seed=index))
    made = make_datalist(tmp_path, validation_fraction=0.4)
    training, validation = ({Path(e["image"]).name.split(".")[0][1:] for e in made[key]} for key in LISTS[:2])
    assert len(training | validation) == len(made["copies"]) == 12
    assert validation
    assert not training & validation


def test_a_test_image_that_pre_training_saw_by_another_name(tmp_path):
    write_maps(tmp_path / "labeled", 3)
    for index in range(3):
        write_nifti(tmp_path / "other" / f"y{index}.nii", noise(6, 8, 5, seed=20 + index))
    made = segment(tmp_path / "labeled")
    tested = tmp_path / "labeled" / made["test"][0]["image"]
    write_nifti(tmp_path / "other" / "z.nii", np.asarray(nib.load(tested).dataobj))
    (tmp_path / "list.json").write_text(json.dumps(make_datalist(tmp_path / "other")))
    refuses("1 of 2 test images or their patients are in", check_overlap, made, tested, tmp_path / "list.json", False)


def test_files_of_other_formats_are_counted(tmp_path):
    for index in range(3):
        write_image(tmp_path / f"x{index}.png", noise(16, 12, seed=index))
    for name in ("a.gif", "b.GIF", "c.webp", "notes.txt", "t.csv", "x0.json", "README"):
        (tmp_path / name).write_bytes(b"x")
    made = make_datalist(tmp_path)
    assert made["other_formats"] == {".gif": 2, ".webp": 1}
    assert summarize_datalist(made).endswith("0 skipped, 3 files of other formats: .gif 2, .webp 1")
    for index in range(3):
        (tmp_path / f"x{index}.png").unlink()
    refuses(r"DICOM file, but 3 files of other formats: \.gif 2, \.webp 1", make_datalist, tmp_path)


def test_a_copy_that_comes_later_follows_its_original(tmp_path):
    def lists():
        made = prepare_data(str(tmp_path / "scans"), str(tmp_path / "out"), 2, 1, 0, 0.3)
        return {Path(entry["image"]).name: key for key in ("training", "validation") for entry in made[key]}

    for index in range(10):
        write_image(tmp_path / "scans" / f"x{index}.png", noise(16, 12, seed=index))
    before = lists()
    chosen = {before[f"x{index}.png"]: index for index in range(10)}  # one of training, one of validation
    for index in chosen.values():
        write_image(tmp_path / "scans" / f"new{index}.bmp", noise(16, 12, seed=index))
    after = lists()
    assert len(chosen) == 2
    assert {name: after[name] for name in before} == before
    assert {after[f"new{index}.bmp"]: index for index in chosen.values()} == chosen


def test_patients_with_other_names_stay_where_their_images_were(tmp_path):
    def places():
        made = prepare_data(str(tmp_path / "scans"), str(tmp_path / "out"), 2, 1, 0, 0.3, "folder")
        return {Path(entry["image"]).stem: key for key in ("training", "validation") for entry in made[key]}

    for index in range(10):
        write_image(tmp_path / f"scans/P{index}/{index}.png", noise(16, 12, seed=index))
    before = places()
    for index in range(10):
        (tmp_path / f"scans/P{index}").rename(tmp_path / f"scans/person {index}")
    assert {*before.values()} == {"training", "validation"}
    assert places() == before


def test_patients_linked_by_a_copy_follow_the_one_who_was_there(tmp_path):
    for index in range(10):
        write_image(tmp_path / "scans" / f"p{index}/a.png", noise(16, 12, seed=index))
        write_image(tmp_path / "scans" / f"p{index}/b.png", noise(16, 12, seed=20 + index))

    def places():
        made = prepare_data(str(tmp_path / "scans"), str(tmp_path / "out"), 2, 1, 0, 0.3, "folder")
        return {entry["patient"]: key for key in ("training", "validation") for entry in made[key]}

    before = places()
    for name in ("training", "validation"):
        old = next(patient for patient, key in before.items() if key == name)
        seed = 40 if name == "training" else 50
        write_image(tmp_path / f"scans/a_{name}_link/a.png", noise(16, 12, seed=int(old[1:])))
        write_image(tmp_path / f"scans/a_{name}_link/b.png", noise(16, 12, seed=seed))
        write_image(tmp_path / f"scans/a_{name}_end/a.png", noise(16, 12, seed=seed))
        write_image(tmp_path / f"scans/a_{name}_end/b.png", noise(16, 12, seed=seed + 1))
    after = places()
    assert {patient: after[patient] for patient in before} == before
    assert {name: after[name] for name in after if name not in before} == {
        f"a_{name}_{part}": name for name in ("training", "validation") for part in ("link", "end")
    }


@pytest.mark.parametrize("table", [False, True])
def test_images_with_names_of_label_maps_stay_images(tmp_path, table):
    images = [
        *(f"{folder}/{folder[0]}{i}.png" for folder in ("annotations", "contours", "scans") for i in range(3)),
        *(f"scans/patient_label_scan{i}.png" for i in range(3)),
    ]
    for index, name in enumerate(images):
        write_image(tmp_path / name, noise(16, 12, seed=index))
    for index in range(3):
        write_image(tmp_path / f"overlays/z{index}.png", noise(16, 12, 3, seed=index))  # no images of their own
        write_image(tmp_path / f"annotations/s{index}.png", noise(16, 12, 3, seed=index))  # scans/s0.png drawn upon
        smooth = np.repeat(np.repeat(noise(4, 3, seed=index, high=2) * 255, 16, 0), 16, 1)
        write_image(tmp_path / f"contours/y{index}.jpg", smooth)  # of few values, but for what JPEG adds
        write_image(tmp_path / f"contours/x{index}.png", noise(16, 12, seed=index, high=4))
    if table:
        rows = "".join(f"{name},{index % 2}\n" for index, name in enumerate(images))
        (tmp_path / "labels.csv").write_text(f"file,label\n{rows}")
        made = classify(tmp_path, patient="path")
        found, text = [entry["image"] for entry in entries(made)], describe_labeled(made)
    else:
        made = make_datalist(tmp_path, patient="path")
        found, text = listed(made), summarize_datalist(made)
    assert (found, made["label_maps"], made["named_as_maps"]) == (sorted(images), 12, 6)
    assert "6 named as label maps taken, since they hold gray values and no image has their name" in text


def test_images_beside_those_with_label_maps_are_no_label_maps(tmp_path):
    for index, folder in enumerate(("images", "images", "lesions", "labels", "labels")):
        write_image(tmp_path / f"{folder}/p{index % 3}.png", noise(16, 12, seed=index))
    made = make_datalist(tmp_path)
    assert (listed(made), made["label_maps"]) == (["images/p0.png", "images/p1.png"], 2)
    assert made["excluded"] == {"in lesions": 1}
    assert "2 label maps left out, 1 in lesions left out" in summarize_datalist(made)


@pytest.mark.filterwarnings("ignore:Invalid value for VR UI")
def test_volumes_beside_slices_of_label_maps(tmp_path):
    for patient in range(1, 4):
        folder = tmp_path / f"MR/{patient}/T2SPIR"  # as CHAOS has them
        write_series(folder / "DICOM_anon", noise(6, 16, 12, seed=patient), patient=f"p{patient}")
        for index in range(6):
            write_image(folder / f"Ground/IMG-0004-{index:05d}.png", 63 * noise(16, 12, seed=index, high=4))
    made = make_datalist(tmp_path)
    assert (made["spatial_dims"], len(listed(made)), made["label_maps"], made["skipped"]) == (3, 3, 18, [])
    cure = "T2SPIR/Ground/IMG-0004-00002.png, ...; write those of slices into one volume, such as NIfTI"
    refuses(cure, segment, tmp_path, spatial_dims=3)


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_lists_inference_and_embedding_leave_out_the_same_label_maps(tmp_path, spatial_dims):
    shape = {2: (40, 48), 3: (20, 24, 10)}[spatial_dims]
    for index in range(4):
        write_nifti(tmp_path / "annotations" / f"c{index}.nii.gz", noise(*shape, seed=index))  # images, by their values
    for index in range(4, 7):
        image = noise(*shape, seed=index)
        write_nifti(tmp_path / "scans" / f"c{index}.nii.gz", image)
        write_nifti(tmp_path / "regions" / f"c{index}.nii.gz", (image > 100).astype(np.uint8))  # maps, by their values
    made = make_datalist(tmp_path, patient="path")
    listed = sorted(str(tmp_path / entry["image"]) for key in LISTS[:2] for entry in made[key])
    assert len(listed) == 7
    assert sorted(item["image"] for item in inference_items(None, str(tmp_path), str(tmp_path / "out"))) == listed
    assert sorted(map(str, _find_images(tmp_path))) == listed
    config = read_config(bundle("segmentation", spatial_dims), {"suffixes": [".nii.gz"]}, ("inference.json",))
    assert sorted(find_inputs([tmp_path], config, tmp_path / "out").paths) == listed
