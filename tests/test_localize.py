import csv
import json
import os
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from PIL import Image
from scan_files import write_image, write_nifti, write_slice
from test_localization import cube, fill, planted

from dira_monai import InputError
from dira_monai.__main__ import main
from dira_monai.boxes import class_of, read_boxes, read_masks
from dira_monai.classifier import read_classifier
from dira_monai.label_tables import Vocabulary, read_label_table
from dira_monai.labelled import make_labelled_datalist
from dira_monai.leaks import find_leaks
from dira_monai.localization import OVERLAPS, THRESHOLDS, heat_map
from dira_monai.localization_report import describe_report
from dira_monai.localize import localize

BUNDLES = Path(__file__).parents[1] / "bundles"

CLASSES = ["bright", "dark"]
SHAPE = (24, 16, 20)  # of a file: columns and rows, or voxels along P, I and R
BRIGHT, DARK = cube(2, 6, 3), cube(8, 14, 3)  # even ends: halving and doubling the image keeps them


def flat(box):
    return [*box[:2], *box[3:5]]


def box_of(name, spatial_dims):
    box = {"bright": BRIGHT, "dark": DARK}[name]
    return box if spatial_dims == 3 else flat(box)


def planted_image(spatial_dims):
    image = np.full(SHAPE[:spatial_dims], 100, dtype=np.int16)
    return fill(fill(image, box_of("bright", spatial_dims), 200), box_of("dark", spatial_dims), 0)


def write_scan(folder, name, spatial_dims):
    if spatial_dims == 2:
        return write_image(folder / f"{name}.png", planted_image(2).T)  # Pillow takes rows first
    turn = nib.orientations.ornt_transform(*map(nib.orientations.axcodes2ornt, ("RAS", "PIR")))
    affine = nib.Nifti1Image(np.zeros((20, 24, 16)), np.eye(4)).as_reoriented(turn).affine
    folder.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(planted_image(3), affine), folder / f"{name}.nii.gz")
    return folder / f"{name}.nii.gz"


def write_bundle(root, spatial_dims):
    """A classifier that looks at what is bright or dark, as a bundle."""
    network, dims = planted(spatial_dims), f"{spatial_dims}d"
    parts = [
        {"_target_": f"torch.nn.Conv{dims}", "in_channels": 1, "out_channels": 2, "kernel_size": 1},
        {"_target_": f"torch.nn.AdaptiveAvgPool{dims}", "output_size": 1},
        {"_target_": "torch.nn.Flatten"},
        {"_target_": "torch.nn.Linear", "in_features": 2, "out_features": 2},
    ]
    scale = {"a_min": 0, "a_max": 200, "b_min": 0, "b_max": 1}
    config = {
        "bundle_root": "$undefined.name",
        "ckpt_dir": "$@bundle_root + '/models'",
        "class_names": CLASSES,
        "multi_label": False,
        "image_size": [12, 8] if spatial_dims == 2 else [10, 12, 8],  # the volume turned to RAS, halved
        "device": "$torch.device('cpu')",
        "parts": parts,
        "network_def": "$torch.nn.Sequential(*@parts)",
        "preprocessing": {
            "_target_": "Compose",
            "transforms": [
                {"_target_": "LoadImaged", "keys": "image"},
                {"_target_": "EnsureChannelFirstd", "keys": "image"},
                {
                    "_target_": "Orientationd",
                    "_disabled_": spatial_dims == 2,
                    "keys": "image",
                    "axcodes": "RAS",
                    "labels": None,
                },
                {"_target_": "ScaleIntensityRanged", "keys": "image", **scale},
                {"_target_": "Resized", "keys": "image", "spatial_size": "@image_size"},
            ],
        },
    }
    for folder in ("configs", "models"):
        (root / folder).mkdir(parents=True)
    (root / "configs" / "inference.json").write_text(json.dumps(config))
    torch.save(network.state_dict(), root / "models" / "model.pt")
    return root


def write_table(path, *rows):
    path.write_text("\n".join(rows) + "\n")
    return path


def write_datalist(path, directory, **lists):
    """A datalist whose images are their own patients."""
    path.parent.mkdir(parents=True, exist_ok=True)
    entries = {key: [{"image": name, "patient": name.split(".")[0]} for name in names] for key, names in lists.items()}
    path.write_text(json.dumps({"dataset_dir": str(directory), **entries}))
    os.utime(path, (0, 0))  # a training writes it before the weights
    return path


@pytest.fixture(params=[2, 3])
def study(request, tmp_path):
    """Options of a run on two images; the classifier was trained on others."""
    spatial_dims, images = request.param, tmp_path / "images"
    files = [write_scan(images, name, spatial_dims).name for name in ("a", "b", "c", "d")]
    bundle = write_bundle(tmp_path / "bundle", spatial_dims)
    write_datalist(bundle / "output/datalist.json", images, training=files[2:3], validation=files[3:], test=files[:2])
    lows, sizes = ("x,y,z", "w,h,d") if spatial_dims == 3 else ("x,y", "w,h")
    rows = [f"file,finding,{lows},{sizes}"]
    for file, name in ((files[0], "bright"), (files[0], "dark"), (files[1], "dark")):
        low, high = np.split(np.array(box_of(name, spatial_dims)), 2)
        rows.append(",".join(map(str, [file, name, *low, *(high - low)])))
    table = write_table(tmp_path / "boxes.csv", *rows)
    return {"bundle": bundle, "dataset_dir": images, "boxes": table, "output_dir": tmp_path / "out", "threshold": 0.6}


def dims_of(study):
    return 2 if (study["dataset_dir"] / "a.png").exists() else 3


def test_planted_squares_are_found_exactly(study):
    report = localize(**study)
    for name, boxes in (("bright", 1), ("dark", 2), ("all", 3)):
        found = report["findings"][name]
        assert (found["boxes"], found["pointing_game"], found["constant_maps"]) == (boxes, 1, 0)
        assert found["accuracy"] == dict.fromkeys(map(str, OVERLAPS), 1.0)
    share = 4**2 / (24 * 16) if dims_of(study) == 2 else 4**3 / (24 * 16 * 20)
    assert report["findings"]["bright"]["pointing_at_random"] == pytest.approx(share)
    assert [case["predicted_boxes"] for case in report["cases"]] == [
        [box_of(name, dims_of(study))] for name in ("bright", "dark", "dark")
    ]
    assert (report["leak"], report["patient_rule"], report["target_layer"]) == ([], "file", "0")


def test_the_threshold_decides(study):
    # the background of the map is 0.5: below it, one component is the image without what the class is not
    found = localize(**study | {"threshold": 0.5})["findings"]["bright"]
    assert found["accuracy"]["0.1"] == 0
    sweep = localize(**study)["sweep"]["bright"]
    assert [(row["component"], row["threshold"]) for row in sweep] == [
        (component, threshold) for component in ("largest", "each") for threshold in THRESHOLDS
    ]
    assert [row["accuracy"]["0.6"] for row in sweep] == [float(threshold > 0.5) for threshold in THRESHOLDS] * 2


def test_files(study):
    report = localize(**study)
    folder = study["output_dir"]
    assert json.loads((folder / "localization.json").read_text()) == report
    with open(folder / "localization.csv") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 3 * (2 * len(THRESHOLDS) + 1)
    exact = next(row for row in rows if (row["finding"], row["component"], row["threshold"]) == ("all", "each", "0.9"))
    assert (exact["boxes"], exact["iou_0.6"]) == ("3", "1.0")
    with Image.open(folder / "localization.png") as panel:
        pixels = np.asarray(panel)
    assert (pixels == (255, 40, 40)).all(axis=-1).any()  # predicted boxes, which hide the equal true ones
    localize(**study | {"output_dir": folder / "plain", "pictures": 0})
    assert not (folder / "plain/localization.png").exists()


def masks_file(folder):
    folder.mkdir()
    return folder / "a.nii"


def test_masks_give_the_same_boxes(study):
    spatial_dims = dims_of(study)
    labels = np.zeros(SHAPE[:spatial_dims], dtype=np.int16)
    fill(fill(labels, box_of("bright", spatial_dims), 1), box_of("dark", spatial_dims), 2)
    masks = study["output_dir"].parent / "masks"
    if spatial_dims == 2:
        write_image(masks / "a.png", labels.T)
    else:
        nib.save(nib.Nifti1Image(labels, nib.load(study["dataset_dir"] / "a.nii.gz").affine), masks_file(masks))
    options = {key: value for key, value in study.items() if key != "boxes"} | {"masks": masks}
    report = localize(**options, label_map={1: "bright", 2: "dark"})
    assert report["findings"]["all"]["accuracy"]["0.6"] == 1
    truths, _ = read_masks(masks, study["dataset_dir"], CLASSES, {}, "dark")
    assert [truth.finding for truth in truths] == ["dark"]
    np.testing.assert_array_equal(truths[0].boxes, [box_of(name, spatial_dims) for name in CLASSES])
    with pytest.raises(InputError, match=r"a\.(png|nii): the finding '1' is none of the classes bright, dark"):
        localize(**options)


def test_leak_is_refused_or_reported(study):
    images, datalist = study["dataset_dir"], study["bundle"] / "output/datalist.json"
    names = sorted(file.name for file in images.iterdir())
    write_datalist(datalist, images, training=names[:1], validation=names[2:])
    with pytest.raises(InputError, match=r"1 of 2 boxed images are .* validates on: a\.\S+ \(training, same image\); "):
        localize(**study)
    report = localize(**study, allow_leak=True)
    assert report["leak"] == [{"image": names[0], "patient": "a", "list": "training", "by": "image"}]


def test_missing_datalist_is_refused_or_reported(study):
    other = study["output_dir"].parent / "other.json"
    with pytest.raises(InputError, match=r"other\.json does not exist, so it cannot be checked .*--allow_leak True"):
        localize(**study, datalist=other)
    report = localize(**study, datalist=other, allow_leak=True)
    assert report["leak"] is None
    assert "does not exist" in report["leak_unchecked"]


def leak_files(tmp_path):
    for name in ("a", "b", "c", "d"):
        write_image(tmp_path / f"{name}.png", np.arange(6).reshape(2, 3))
    return write_table(tmp_path / "p.csv", "file,patient", "a,1", "b.png,1", "c,2", "d.png,3")


def raw_datalist(tmp_path, training, validation, **rest):
    lists = {
        name: [{"image": f"{image}.png", "patient": patient} for image, patient in entries]
        for name, entries in (("training", training), ("validation", validation))
    }
    path = tmp_path / "list.json"
    path.write_text(json.dumps({"dataset_dir": str(tmp_path)} | lists | rest))
    return path


def other_run(study, **lists):
    """The weights of another run, beside the list that it was trained with."""
    run = study["output_dir"].parent / "run"
    (run / "models").mkdir(parents=True)
    shutil.copy(study["bundle"] / "models/model.pt", run / "models/model.pt")
    write_datalist(run / "output/datalist.json", study["dataset_dir"], **lists)
    return run


@pytest.mark.parametrize("how", ["weights", "ckpt_dir"])
def test_the_list_is_that_of_the_weights(study, how):
    a, b, *_ = sorted(file.name for file in study["dataset_dir"].iterdir())
    run = other_run(study, training=[a], validation=[b])
    options = {"weights": run / "models/model.pt"} if how == "weights" else {"overrides": {how: str(run / "models")}}
    with pytest.raises(InputError, match=r"2 of 2 boxed images are of patients that .*run/output/datalist\.json"):
        localize(**study, **options)
    report = localize(**study, **options, allow_leak=True)
    assert [leak["list"] for leak in report["leak"]] == ["training", "validation"]
    assert Path(report["datalist"]) == run / "output/datalist.json"


def test_weights_of_no_run_need_a_named_list(study):
    moved = shutil.copy(study["bundle"] / "models/model.pt", study["output_dir"].parent / "best.pt")
    with pytest.raises(InputError, match=r"best\.pt lies in no folder models of a run, .* by --datalist; --allow_leak"):
        localize(**study, weights=moved)
    report = localize(**study, weights=moved, allow_leak=True)
    assert (report["leak"], report["datalist"]) == (None, None)
    named = study["bundle"] / "output/datalist.json"
    assert localize(**study, weights=moved, datalist=named)["leak"] == []


def test_a_list_that_is_newer_than_the_weights(study):
    datalist, weights = study["bundle"] / "output/datalist.json", study["bundle"] / "models/model.pt"
    os.utime(weights, (1000, 1000))
    os.utime(datalist, (1000, 1000))
    assert not localize(**study)["datalist_newer"]
    os.utime(datalist, (1001, 1001))
    with pytest.raises(InputError, match=r"datalist\.json is newer than .*model\.pt; name the list .* by --datalist"):
        localize(**study)
    report = localize(**study, datalist=datalist)
    assert (report["leak"], report["datalist_newer"]) == ([], True)
    assert f"{datalist} is newer than {weights}: it may be the list of another training" in describe_report(report)


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ({"class_names": CLASSES[::-1]}, r"class_names is \['bright', 'dark'\] in .* has \['dark', 'bright'\]; give"),
        ({"multi_label": True}, "multi_label is False in the configuration of the classifier where .* has True"),
        ({"in_channels": 3}, "in_channels is 1 in the configuration"),
        ({"spatial_dims": 1}, "spatial_dims is [23] in the configuration"),
    ],
)
def test_a_list_of_another_classifier(study, told, message):
    config, datalist = study["bundle"] / "configs/inference.json", study["bundle"] / "output/datalist.json"
    own = {"in_channels": 1, "spatial_dims": dims_of(study), "patch_size": 4, "axcodes": None}
    config.write_text(json.dumps(json.loads(config.read_text()) | own))
    content = json.loads(datalist.read_text()) | {"class_names": CLASSES, "multi_label": False}
    datalist.write_text(json.dumps(content))
    os.utime(datalist, (0, 0))
    size = [12, 8] if dims_of(study) == 2 else [10, 12, 8]
    used = own | {"class_names": CLASSES, "multi_label": False, "image_size": size}
    assert localize(**study)["settings"] == used
    datalist.write_text(json.dumps(content | told))
    for allow in (False, True):
        with pytest.raises(InputError, match=message):
            localize(**study, datalist=datalist, allow_leak=allow)


def test_patients_of_the_report(study):
    lines = describe_report(localize(**study))
    datalist = study["bundle"] / "output/datalist.json"
    told = f"training: {datalist}, patients by file (patients unknown: only the same images are found)"
    assert told in lines
    table = write_table(study["boxes"].with_name("p.csv"), "file,patient", "a,a", "b,b", "c,c", "d,d")
    assert f"training: {datalist}, patients by {table}" in describe_report(localize(**study, patient=str(table)))
    assert localize(**study, patient=None)["patient_rule"] == "file"
    with pytest.raises(InputError, match="patient must be auto, dicom, folder, file or a CSV file, got '5'"):
        localize(**study, patient=5)


def folder_study(root, places):
    """Twelve images of six patients, and the datalist that is made of them; ``places`` by patient and number."""
    for patient in range(6):
        for number in range(2):
            write_image(root / places(patient, number) / "x.png", np.arange(6).reshape(2, 3) + patient)
    return root


def listed(root, path, **options):
    made = make_labelled_datalist(root, "classification", ["ill", "well"], **options)
    path.write_text(json.dumps(made))
    return made


def test_leak_by_folder_in_a_larger_folder(tmp_path):
    root = folder_study(tmp_path / "data", lambda patient, number: f"images/p{patient}/s{number}")
    rows = [f"images/p{patient}/s0/x.png,{('ill', 'well')[patient % 2]}" for patient in range(6)]
    write_table(root / "labels.csv", "file,label", *rows)
    made = listed(root, tmp_path / "list.json")
    assert made["patient_rule"] == "folder"
    trained, tested = (made[key][0]["patient"] for key in ("training", "test"))
    write_image(root / "masks" / "x.png", np.arange(6).reshape(2, 3))  # the shared folder is no more images
    images = [f"images/{patient}/s1/x.png" for patient in (trained, tested)]
    leaks, rule = find_leaks(images, root, tmp_path / "list.json")
    assert leaks == [{"image": images[0], "patient": trained, "list": "training", "by": "patient"}]
    assert rule == "folder"
    below = [image.removeprefix("images/") for image in images]
    assert [leak["image"] for leak in find_leaks(below, root / "images", tmp_path / "list.json")[0]] == below[:1]


def test_a_folder_elsewhere_names_no_patient(tmp_path):
    root = folder_study(tmp_path / "data", lambda patient, number: f"p{patient}/s{number}")
    entries = [{"image": f"p{patient}/s0/x.png", "patient": f"p{patient}"} for patient in range(6)]
    lists = {"dataset_dir": str(root), "training": entries[:4], "validation": entries[4:], "patient_rule": "folder"}
    (tmp_path / "list.json").write_text(json.dumps(lists))
    write_image(tmp_path / "boxed/p1/s2/x.png", np.arange(6).reshape(2, 3))
    with pytest.raises(InputError, match=r"p1/s2/x\.png lies in no folder of a patient below .*data as .*by --patient"):
        find_leaks(["p1/s2/x.png"], tmp_path / "boxed", tmp_path / "list.json")
    table = write_table(
        tmp_path / "p.csv", "file,patient", *(f"p{n}/s{s}/x.png,p{n}" for n in range(6) for s in (0, 2))
    )
    (leak,), _ = find_leaks(["p1/s2/x.png"], tmp_path / "boxed", tmp_path / "list.json", str(table))
    assert (leak["patient"], leak["by"]) == ("p1", "patient")


@pytest.mark.parametrize("split", ["", "train/"])
def test_leak_by_folder_below_class_folders(tmp_path, split):
    def place(patient, number):
        return f"{split}{('ill', 'well')[patient % 2]}/p{patient}/s{number}"

    root = folder_study(tmp_path / "data", place)
    if split:
        root.joinpath("test/ill").mkdir(parents=True)
        root.joinpath("train/ill/p0").rename(root / "test/ill/p0")
        root.joinpath("test/well").mkdir()
        root.joinpath("train/well/p1").rename(root / "test/well/p1")
    made = listed(root, tmp_path / "list.json")
    assert made["patient_rule"] == "folder"
    tested, trained = made["test"][0], made["training"][0]
    assert find_leaks([tested["image"]], root, tmp_path / "list.json")[0] == []
    more = str(Path(trained["image"]).parent.with_name("s9") / "x.png")
    write_image(root / more, np.arange(6).reshape(2, 3))
    assert find_leaks([more], root, tmp_path / "list.json")[0] == [
        {"image": more, "patient": trained["patient"], "list": "training", "by": "patient"}
    ]


def test_folders_that_are_not_the_patients_of_the_list(tmp_path):
    root = folder_study(tmp_path, lambda patient, number: f"p{patient}/s{number}")
    entries = [{"image": f"p{patient}/s0/x.png", "patient": str(patient)} for patient in range(6)]
    (tmp_path / "list.json").write_text(json.dumps({"training": entries[:4], "validation": entries[4:]}))
    with pytest.raises(
        InputError, match=r"no folder in the paths of .*list\.json is the patient in all of its entries"
    ):
        find_leaks(["p1/s1/x.png"], root, tmp_path / "list.json", "folder")


@pytest.mark.parametrize("place", ["below", "above", "elsewhere"])
def test_leak_by_the_table_of_the_labels(tmp_path, place, monkeypatch):
    images, root = tmp_path / "data/images", tmp_path / "data"
    for index in range(12):
        write_image(images / f"{index}.png", np.arange(6).reshape(2, 3) + index)
    rows = [f"images/{index}.png,{('ill', 'well')[index % 2]},p{index // 2}" for index in range(12)]
    table = write_table(root / "labels.csv", "file,label,patient", *rows)
    if place == "elsewhere":
        table = table.rename(tmp_path / "elsewhere.csv")
        table.write_text(table.read_text().replace("images/", "data/images/"))
    directory = root if place == "below" else images
    made = listed(directory, tmp_path / "list.json", labels=str(table) if place == "elsewhere" else None)
    assert made["patient_rule"] == ("labels.csv" if place == "below" else str(table))
    entry, left = made["training"].pop(), made["training"][0]["patient"]
    assert entry["patient"] == made["training"][-1]["patient"] != left  # the other image of that patient stays
    (tmp_path / "list.json").write_text(json.dumps(made))
    (tmp_path / "work").mkdir()
    write_table(tmp_path / "work/labels.csv", "file,patient")  # not that of the list
    monkeypatch.chdir(tmp_path / "work")
    assert find_leaks([entry["image"]], directory, tmp_path / "list.json") == (
        [{"image": entry["image"], "patient": entry["patient"], "list": "training", "by": "patient"}],
        str(table),
    )


def test_a_table_may_have_the_word_dicom_in_its_path(tmp_path):
    leak_files(tmp_path)
    (tmp_path / "dicom").mkdir()
    table = write_table(tmp_path / "dicom/p.csv", "file,patient", "a,x", "b,x", "c,y")
    datalist = raw_datalist(tmp_path, [("b", "1")], [("c", "2")])
    with pytest.raises(InputError, match=r"rule .*dicom/p\.csv gives b\.png the patient 'x' where .* has '1'"):
        find_leaks(["a.png"], tmp_path, datalist, str(table))


def test_dicom_and_other_files(tmp_path):
    for name, patient in (("one", "p1"), ("two", "p1"), ("six", "p6")):
        write_slice(tmp_path / name / "1.dcm", np.arange(12, dtype="<u2").reshape(3, 4), patient=patient)
    for name in "abc":
        write_image(tmp_path / f"{name}.png", np.arange(6).reshape(2, 3))
    entries = [{"image": "two", "patient": "p1"}, {"image": "b.png", "patient": "b"}]  # a folder is a series
    lists = {"training": entries, "validation": [{"image": "c.png", "patient": "c"}], "patient_rule": "dicom and file"}
    (tmp_path / "list.json").write_text(json.dumps(lists))
    boxed = ["a.png", "b.png", ["one/1.dcm"], ["six/1.dcm"], ["two/1.dcm"]]
    leaks, rule = find_leaks(boxed, tmp_path, tmp_path / "list.json")
    assert [(leak["image"], leak["patient"], leak["by"]) for leak in leaks] == [
        ("b.png", "b", "image"),
        ("one/1.dcm", "p1", "patient"),
        ("two/1.dcm", "p1", "image"),
    ]
    assert rule == "dicom and file"
    lists["training"][1]["patient"] = "other"
    (tmp_path / "list.json").write_text(json.dumps(lists))
    with pytest.raises(InputError, match=r"rule file gives b\.png the patient 'b' where .* has 'other'"):
        find_leaks(boxed, tmp_path, tmp_path / "list.json")


def test_leak_by_patient(tmp_path):
    table = str(leak_files(tmp_path))
    datalist = raw_datalist(tmp_path, [("b", "1")], [("c", "2")])
    leaks, rule = find_leaks(["a.png", "d.png"], tmp_path, datalist, table)
    assert leaks == [{"image": "a.png", "patient": "1", "list": "training", "by": "patient"}]
    assert rule == table
    datalist = raw_datalist(tmp_path, [("b", "1")], [("c", "2")], patient_rule=table)
    assert find_leaks(["a.png", "d.png"], tmp_path, datalist) == (leaks, table)  # auto: that of the datalist


def test_leak_through_a_link(tmp_path):
    leak_files(tmp_path / "scans")
    (tmp_path / "linked").symlink_to(tmp_path / "scans")
    datalist = raw_datalist(tmp_path / "scans", [("b", "b")], [("c", "c")])
    leaks, _ = find_leaks(["c.png"], tmp_path / "linked", datalist)
    assert leaks == [{"image": "c.png", "patient": "c", "list": "validation", "by": "image"}]


def test_rule_that_differs_from_the_datalist(tmp_path):
    leak_files(tmp_path)
    datalist = raw_datalist(tmp_path, [("b", "1")], [("c", "2")])
    with pytest.raises(InputError, match=r"rule file gives b\.png the patient 'b' where .*list\.json has '1'"):
        find_leaks(["a.png"], tmp_path, datalist, "file")


def test_leak_needs_patients(tmp_path):
    leak_files(tmp_path)
    table = write_table(tmp_path / "few.csv", "file,patient", "b,1", "c,2")
    datalist = raw_datalist(tmp_path, [("b", "1")], [("c", "2")])
    with pytest.raises(InputError, match=r"a\.png has no patient in the patient table .*few\.csv"):
        find_leaks(["a.png"], tmp_path, datalist, str(table))
    content = json.loads(datalist.read_text())
    del content["validation"][0]["patient"]
    datalist.write_text(json.dumps(content))
    with pytest.raises(InputError, match="has no 'patient' in entry 0 of 'validation'"):
        find_leaks(["a.png"], tmp_path, datalist, "file")
    datalist.write_text("[")
    with pytest.raises(InputError, match=r"list\.json cannot be read as JSON"):
        find_leaks(["a.png"], tmp_path, datalist)


def test_series_names_its_patient(tmp_path):
    write_slice(tmp_path / "one" / "1.dcm", np.arange(12, dtype="<u2").reshape(3, 4), patient="p1", series="1.1")
    write_slice(tmp_path / "two" / "1.dcm", np.arange(12, dtype="<u2").reshape(3, 4), patient="p1", series="1.2")
    entries = [{"image": ["two/1.dcm"], "patient": "p1"}, {"image": ["six/1.dcm"], "patient": "p3"}]
    content = {
        "dataset_dir": str(tmp_path),
        "training": entries[:1],
        "validation": entries[1:],
        "patient_rule": "dicom",
    }
    (tmp_path / "list.json").write_text(json.dumps(content))
    leaks, _ = find_leaks([["one/1.dcm"]], tmp_path, tmp_path / "list.json")
    assert leaks == [{"image": "one/1.dcm", "patient": "p1", "list": "training", "by": "patient"}]


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
    table = write_table(tmp_path / "boxes.csv", *rows)
    (truth,), missing = read_boxes(table, tmp_path, CLASSES, {"shiny": "bright"})
    assert not missing
    assert (truth.image, truth.finding, truth.shape) == ("sub/a.png", "bright", (24, 16))
    np.testing.assert_array_equal(truth.boxes, [[1, 2, 4, 6.5]])


def test_boxes_of_one_finding_come_together(tmp_path):
    write_scan(tmp_path, "a", 2)
    rows = ("a,bright,0,0,1,1", "a,dark,0,0,1,1", "a,nothing,9,9,99,99", "a,bright,22,14,2,2.0005")
    table = write_table(tmp_path / "boxes.csv", "file,finding,x,y,w,h", *rows)
    (bright, dark), _ = read_boxes(table, tmp_path, CLASSES, {"nothing": None})
    np.testing.assert_array_equal(bright.boxes, [[0, 0, 1, 1], [22, 14, 24, 16.0005]])
    assert (bright.finding, dark.finding) == ("bright", "dark")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("z,bright,1,1,2,2", r"row 2: the image 'z' does not exist in"),
        ("a,shiny,1,1,2,2", r"row 2: the finding 'shiny' is none of the classes bright, dark; .*--label_map"),
        ("a,bright,20,1,5,2", r"row 2: the box of a\.png lies outside of the image of 24 x 16: .*\[25\.0, 3\.0\]"),
        ("a,bright,-1,1,5,2", r"row 2: the box of a\.png lies outside of the image"),
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
    with pytest.raises(InputError, match=r"the table of boxes .*boxes\.csv does not exist"):
        read_boxes(tmp_path / "boxes.csv", tmp_path, CLASSES, {})
    for folder in ("one", "two"):
        write_scan(tmp_path / folder, "a", 2)
    table = write_table(tmp_path / "boxes.csv", "file,finding,x,y,w,h", "a,bright,1,1,2,2")
    with pytest.raises(InputError, match=r"row 2 names a, which may be one/a\.png and two/a\.png; write the path"):
        read_boxes(table, tmp_path, CLASSES, {})
    table = write_table(tmp_path / "boxes.csv", "name,finding,x,y,w,h", "a,bright,1,1,2,2")
    with pytest.raises(InputError, match=r"no column file, image, path, image index; its columns are name, finding"):
        read_boxes(table, tmp_path, CLASSES, {})
    table = write_table(tmp_path / "boxes.csv", "file,finding,x,y,w", "one/a,bright,1,1,2")
    with pytest.raises(
        InputError, match="there is no column h or height or h] or bottom; the columns are file, finding"
    ):
        read_boxes(table, tmp_path, CLASSES, {})
    write_scan(tmp_path, "v", 3)
    table = write_table(tmp_path / "boxes.csv", "file,finding,x,y,w,h", "v,bright,1,1,2,2")
    with pytest.raises(InputError, match=r"box of v\.nii\.gz has 2 axes, 1, 1, 3, 3, where the image has 3"):
        read_boxes(table, tmp_path, CLASSES, {})
    table = write_table(tmp_path / "boxes.csv", "file,finding,x,y,w,h", "v,bright,1,1,2,2", "one/a,bright,1,1,2,2")
    with pytest.raises(
        InputError, match=r"all have 2 or all 3 spatial axes, but there are one/a\.png \(2\) and v\.nii\.gz \(3\)"
    ):
        read_boxes(table, tmp_path, CLASSES, {})


def test_the_exact_path_is_preferred(tmp_path):
    for folder in (tmp_path, tmp_path / "sub"):
        write_scan(folder, "a", 2)
    table = write_table(tmp_path / "boxes.csv", "file,finding,x,y,w,h", "a,bright,1,1,2,2", "sub/a.png,dark,1,1,2,2")
    assert [truth.image for truth in read_boxes(table, tmp_path, CLASSES, {})[0]] == ["a.png", "sub/a.png"]


def test_series_by_its_folder(tmp_path):
    write_slice(tmp_path / "p1" / "1.dcm", np.arange(12, dtype="<u2").reshape(3, 4))
    table = write_table(tmp_path / "boxes.csv", "file,finding,x,y,w,h", "p1,bright,1,1,2,2")
    assert [truth.image for truth in read_boxes(table, tmp_path, CLASSES, {})[0]] == [["p1/1.dcm"]]


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (np.zeros((4, 5, 7), dtype=np.int16), r"a\.nii has the shape 4 x 5 x 7 where its image has 4 x 5 x 6"),
        (np.full((4, 5, 6), 0.5, dtype=np.float32), r"a\.nii must hold whole numbers, got 0\.5"),
    ],
)
def test_masks_refused(tmp_path, mask, message):
    write_nifti(tmp_path / "images/a.nii", np.arange(120, dtype=np.int16).reshape(4, 5, 6))
    write_nifti(tmp_path / "masks/a.nii", mask)
    with pytest.raises(InputError, match=message):
        read_masks(tmp_path / "masks", tmp_path / "images", CLASSES, {}, "dark")


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
        write_image(
            tmp_path / "drawn" / folder / name / "a.png", fill(np.zeros(SHAPE[:2]), flat(DARK)).T.astype(np.uint8)
        )
    truths, missing = read_masks(tmp_path / "drawn", tmp_path, CLASSES, {}, "dark")
    assert [(truth.image, truth.boxes.tolist()) for truth in truths] == [
        (f"{folder}/{name}/a.png", [flat(DARK)]) for name in ("one", "two")
    ]
    assert not missing


def test_boxes_of_images_that_are_not_there(study):
    rows = study["boxes"].read_text().splitlines()
    ends = rows[1].split(",", 2)[2]
    write_table(study["boxes"], rows[0], f"gone.png,nobody knows,{ends}", *rows[1:], f"away,dark,{ends}")
    report = localize(**study)
    first = f"{study['boxes']}, row 2: the image 'gone.png' does not exist in {study['dataset_dir']}."
    assert report["missing"] == {"count": 2, "first": first}
    assert report["findings"]["all"]["boxes"] == 3
    assert f"left out: 2, the first: {first}" in describe_report(report)
    with pytest.raises(InputError, match=r"row 2: the image 'gone\.png' does not exist in"):
        localize(**study, strict=True)
    write_table(study["boxes"], rows[0], f"gone.png,dark,{ends}")
    with pytest.raises(InputError, match=r"boxes\.csv has no box of a class; .*row 2: the image 'gone\.png' does not"):
        localize(**study)


def test_a_point_in_a_name_begins_no_suffix(tmp_path):
    write_scan(tmp_path, "1.2", 2)
    table = write_table(tmp_path / "boxes.csv", "file,finding,x,y,w,h", "1.2.840,dark,1,1,2,2", "1.2.dcm,dark,1,1,2,2")
    (truth,), missing = read_boxes(table, tmp_path, CLASSES, {})
    assert (truth.image, len(truth.boxes), len(missing)) == ("1.2.png", 1, 1)


@pytest.mark.parametrize(
    "name", ["images/x.png", "x.png", "x", "./images/x.png", "images\\x.png", "{root}/images/x.png"]
)
def test_boxes_and_labels_name_images_alike(tmp_path, name):
    write_scan(tmp_path / "images", "x", 2)
    write_scan(tmp_path / "masks", "x", 2)  # images lie in images
    row = f"{name.format(root=tmp_path)},dark"
    boxes = write_table(tmp_path / "boxes.csv", "file,finding,x,y,w,h", f"{row},1,1,2,2")
    labels = write_table(tmp_path / "labels.csv", "file,label", row)
    (found,), _ = read_label_table(labels, tmp_path, ["images/x.png"], Vocabulary(CLASSES))
    (truth,), _ = read_boxes(boxes, tmp_path, CLASSES, {})
    assert truth.image == found.image == "images/x.png"


def test_class_of():
    assert class_of("dark", CLASSES, {}, "here") == "dark"
    assert class_of("x", CLASSES, {"x": "dark"}, "here") == "dark"
    assert class_of("x", CLASSES, {"x": None}, "here") is None
    with pytest.raises(InputError, match="here: the finding 'shadow' is none of the classes"):
        class_of("x", CLASSES, {"x": "shadow"}, "here")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"threshold": 0}, "threshold must be over 0 and at most 1, got 0"),
        ({"threshold": "high"}, "threshold must be .*, got 'high'"),
        ({"component": "all"}, "component must be largest or each, got 'all'"),
        ({"allow_leak": "false"}, "allow_leak must be True or False, got 'false'"),
        ({"pictures": -1}, "pictures must be a whole number from 0, got -1"),
        ({"masks": "folder"}, r"give either boxes or masks, got boxes .*boxes\.csv and masks folder"),
        ({"boxes": None}, "give either boxes or masks, got boxes None and masks None"),
        ({"label_map": ["a"]}, r"label_map must be an object such as \{'name': 'value'\}, got \['a'\]"),
        ({"overrides": "image_size"}, "overrides must be an object .* got 'image_size'"),
        ({"overrides": {"size": 3}}, r"inference\.json has no value 'size' to replace by 3"),
        ({"label_map": dict.fromkeys(CLASSES)}, r"boxes\.csv has no box of a class"),
        ({"weights": "missing.pt"}, r"missing\.pt: no such checkpoint"),
        ({"bundle": "missing"}, "missing does not exist; name the folder of a bundle"),
        ({"device": "abacus"}, "device abacus cannot be used"),
        ({"target_layer": "layer4"}, "target_layer layer4 is no layer of Sequential"),
        ({"overrides": {"class_names": ["bright", "dark", "gray"]}}, r"outputs of shape \(2,\) for 3 class_names"),
        ({"overrides": {"network_def": "$1 / 0"}}, r"inference\.json: network_def cannot be built \(division by zero"),
        ({"overrides": {"network_def": "$(_ for _ in ()).throw(NotImplementedError())"}}, r"\(NotImplementedError\)"),
        ({"strict": "yes"}, "strict must be True or False, got 'yes'"),
    ],
)
def test_refused(tmp_path, options, message):
    images, bundle = tmp_path / "images", write_bundle(tmp_path / "bundle", 2)
    write_scan(images, "a", 2)
    table = write_table(tmp_path / "boxes.csv", "file,finding,x,y,w,h", "a,dark,1,1,2,2")
    given = {
        "bundle": bundle,
        "dataset_dir": images,
        "boxes": table,
        "output_dir": tmp_path / "out",
        "allow_leak": True,
    }
    with pytest.raises(InputError, match=message):
        localize(**given | options)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("content", [[[1]], {"epoch": 3}])
def test_weights_that_are_no_state_dict(study, content):
    torch.save(content, study["bundle"] / "models/model.pt")
    with pytest.raises(InputError, match=r"model\.pt holds a (list|dict) that is no plain state dict"):
        localize(**study)


@pytest.mark.parametrize("name", ["color", "series"])
def test_an_image_that_the_classifier_cannot_take(tmp_path, name):
    images, bundle = tmp_path / "images", write_bundle(tmp_path / "bundle", 2)
    write_image(images / "color.png", np.random.default_rng(0).integers(0, 255, (16, 24, 3)).astype(np.uint8))
    for number in range(3):
        slices = np.arange(12, dtype="<u2").reshape(3, 4)
        write_slice(images / "series" / f"{number}.dcm", slices, position=(0, 0, number), number=number)
    row = "series,dark,0,0,0,2,2,2" if name == "series" else "color,dark,0,0,2,2"
    header = "file,finding,x,y,z,w,h,d" if name == "series" else "file,finding,x,y,w,h"
    table = write_table(tmp_path / "boxes.csv", header, row)
    with pytest.raises(InputError, match=r"^(color\.png|series/0\.dcm) cannot be taken by the classifier: \w"):
        localize(bundle, dataset_dir=images, boxes=table, output_dir=tmp_path / "out", allow_leak=True)


def write_oblique(path, array):
    path.parent.mkdir(exist_ok=True)
    affine = np.array([[0, 0.2, 1.9, -10], [-0.9, 0, 0, 5], [0, 1.1, -0.1, 3], [0, 0, 0, 1.0]])
    nib.save(nib.Nifti1Image(array, affine), path)
    return path


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_the_bundles(tmp_path, spatial_dims):
    bundle, images = BUNDLES / f"dira_finetune_classification_{spatial_dims}d", tmp_path / "images"
    small = {"features": [4, 4, 8, 8, 16, 4]} if spatial_dims == 3 else {"network_def::_target_": "resnet10"}
    sizes = {"image_size": [32] * 3, "spacing": [2.0, 2.0, 2.5]} if spatial_dims == 3 else {"image_size": [64, 64]}
    parser = ConfigParser()
    parser.read_config(bundle / "configs/inference.json")
    parser.update(small | sizes)
    weights, random = tmp_path / "run/models/model.pt", np.random.default_rng(0)
    weights.parent.mkdir(parents=True)
    torch.save(parser.get_parsed_content("network_def").state_dict(), weights)
    for name in "abc":
        if spatial_dims == 2:
            write_image(images / f"{name}.png", random.integers(0, 255, (50, 70)).astype(np.uint8))
        else:
            write_oblique(images / f"{name}.nii.gz", (random.normal(size=(50, 47, 33)) * 300).astype(np.int16))
    suffix = "png" if spatial_dims == 2 else "nii.gz"
    write_datalist(tmp_path / "run/output/datalist.json", images, training=[f"b.{suffix}"], validation=[f"c.{suffix}"])
    columns, row = ("x,y,z,w,h,d", "5,6,7,8,9,10") if spatial_dims == 3 else ("x,y,w,h", "5,6,7,8")
    table = write_table(tmp_path / "boxes.csv", f"file,finding,{columns}", f"a,nodule,{row}")
    report = localize(
        bundle,
        dataset_dir=images,
        boxes=table,
        output_dir=tmp_path / "out",
        overrides=small | sizes,
        weights=weights,
        device="cpu",
    )
    assert {name: report["settings"][name] for name in sizes} == sizes
    assert (report["target_layer"], report["leak"]) == ("4" if spatial_dims == 3 else "layer4", [])
    (case,) = report["cases"]
    shape = [50, 47, 33] if spatial_dims == 3 else [70, 50]
    ends = np.array(case["predicted_boxes"]).reshape(-1, 2, spatial_dims)
    assert (ends >= 0).all()
    assert (ends <= shape).all()


def test_the_map_of_an_oblique_volume_comes_back_to_its_place(tmp_path):
    # a blob stands for a map: what the 3D bundle makes of it, led back, has its center where it was
    parser = ConfigParser()
    parser.read_config(BUNDLES / "dira_finetune_classification_3d/configs/inference.json")
    parser.update({"image_size": [32] * 3, "spacing": [2.0, 2.0, 2.5]})
    preprocessing, center = parser.get_parsed_content("preprocessing"), (30, 18, 17)
    grid = np.indices((50, 47, 33))
    blob = np.exp(-sum((axis - middle) ** 2 for axis, middle in zip(grid, center, strict=True)) / 50)
    sample = preprocessing({"image": str(write_oblique(tmp_path / "a.nii.gz", blob * 1000))})
    cam = lambda batch, class_idx: sample["image"].as_tensor()[None]  # noqa: E731
    cam.nn_module = SimpleNamespace(get_wrapped_net=lambda: torch.nn.Linear(1, 1))
    heat = np.clip(heat_map(cam, preprocessing, sample, 0)[0].numpy() - 0.6, 0, None)
    assert heat.shape == (50, 47, 33)
    np.testing.assert_allclose([(axis * heat).sum() / heat.sum() for axis in grid], center, atol=0.5)


def test_preprocessing_that_cannot_be_inverted(study):
    config = study["bundle"] / "configs/inference.json"
    content = json.loads(config.read_text())
    cut = {"_target_": "Lambdad", "keys": "image", "func": "$lambda x: x[:, 2:]"}
    content["preprocessing"]["transforms"][-1] = cut  # instead of the resizing
    config.write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"a\.\S+: the preprocessing leads back to \(.*\), not to the file's \(24, 16"):
        localize(**study)


def test_read_classifier(tmp_path):
    bundle = write_bundle(tmp_path / "bundle", 2)
    classifier = read_classifier(bundle / "configs/inference.json", {"image_size": [6, 4]}, device="cpu")
    assert (classifier.class_names, classifier.weights) == (CLASSES, bundle / "models/model.pt")
    assert classifier.settings == {"class_names": CLASSES, "multi_label": False, "image_size": [6, 4]}
    file = write_scan(tmp_path, "a", 2)
    assert classifier.preprocessing({"image": str(file)})["image"].shape == (1, 6, 4)
    (bundle / "configs/inference.json").write_text("{")
    with pytest.raises(InputError, match=r"inference\.json cannot be read as JSON"):
        read_classifier(bundle)
    (bundle / "configs/inference.json").write_text("{}")
    with pytest.raises(InputError, match=r"inference\.json has no value 'network_def', which localization needs"):
        read_classifier(bundle)


def test_command(study, monkeypatch, capsys):
    options = study | {
        "component": "each",
        "overrides": {"multi_label": True},
        "datalist": "none.json",
        "allow_leak": True,
    }
    words = [f"--{name}={value}" for name, value in options.items() if name != "bundle"]
    monkeypatch.setattr(sys, "argv", ["dira_monai", "localize", str(study["bundle"]), *words])
    main()
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:4] == ["finding", "boxes", "pointing", "random"]
    assert lines[1].split()[:3] == ["bright", "1", "1.00"]
    assert lines[1].split()[4:] == ["1.00"] * len(OVERLAPS)
    assert lines[-3].startswith("2 images; component each of the map of 0 at threshold 0.6; 0 constant maps")
    assert lines[-2].startswith("leak not checked: the datalist none.json does not exist")
    assert lines[-1] == f"{study['output_dir']}: localization.json, localization.csv, localization.png"
