"""The command that asks a classifier where it looks: its report, its pictures, and what it refuses."""

import csv
import json
import math
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest
import torch
from PIL import Image
from planted_maps import fill, planted
from planted_scans import CLASSES, SHAPE, box_of, masks_file, write_scan, write_table
from scan_files import write_image, write_slice

from dira_monai import InputError
from dira_monai.apps.localization.boxes import read_masks
from dira_monai.apps.localization.classifier import heat_map, read_classifier
from dira_monai.apps.localization.localize import localize
from dira_monai.apps.localization.metrics import OVERLAPS, THRESHOLDS
from dira_monai.apps.localization.report import describe_report
from dira_monai.bundle.config import read_config

BUNDLES = Path(__file__).parents[2] / "bundles"


def write_bundle(root, spatial_dims):
    """A classifier that looks at what is bright or dark, as a bundle."""
    network, dims = planted(spatial_dims), f"{spatial_dims}d"
    parts = [f"Conv{dims}(1, 2, 1)", f"AdaptiveAvgPool{dims}(1)", "Flatten()", "Linear(2, 2)"]
    turn = {"axcodes": "RAS", "labels": None, "_disabled_": spatial_dims == 2}
    steps = {
        "LoadImaged": {},
        "EnsureChannelFirstd": {},
        "Orientationd": turn,
        "ScaleIntensityRanged": {"a_min": 0, "a_max": 200, "b_min": 0, "b_max": 1},
        "Resized": {"spatial_size": "@image_size"},
    }
    transforms = [{"_target_": name, "keys": "image", **more} for name, more in steps.items()]
    config = {
        "bundle_root": "$undefined.name",
        "ckpt_dir": "$@bundle_root + '/models'",
        "class_names": CLASSES,
        "multi_label": False,
        "image_size": [12, 8] if spatial_dims == 2 else [10, 12, 8],  # the volume turned to RAS, halved
        "device": "$torch.device('cpu')",
        "network_def": f"$torch.nn.Sequential({', '.join(f'torch.nn.{part}' for part in parts)})",
        "preprocessing": {"_target_": "Compose", "transforms": transforms},
    }
    for folder in ("configs", "models"):
        (root / folder).mkdir(parents=True)
    (root / "configs" / "inference.json").write_text(json.dumps(config))
    torch.save(network.state_dict(), root / "models" / "model.pt")
    return root


def write_datalist(path, directory, **lists):
    """A datalist whose images are their own patients."""
    path.parent.mkdir(parents=True, exist_ok=True)
    entries = {key: [{"image": name, "patient": name.split(".")[0]} for name in names] for key, names in lists.items()}
    path.write_text(json.dumps({"dataset_dir": str(directory), **entries}))
    os.utime(path, (0, 0))  # a training writes it before the weights
    return path


@pytest.fixture
def study(spatial_dims, tmp_path):
    """Options of a run on two images; the classifier was trained on others."""
    images = tmp_path / "images"
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


def test_planted_squares_are_found_exactly(study, spatial_dims):
    report = localize(**study)
    for name, boxes in (("bright", 1), ("dark", 2), ("all", 3)):
        found = report["findings"][name]
        assert (found["boxes"], found["pointing_game"], found["constant_maps"]) == (boxes, 1, 0)
        assert found["accuracy"] == dict.fromkeys(map(str, OVERLAPS), 1.0)
    share = 4**spatial_dims / math.prod(SHAPE[:spatial_dims])
    assert report["findings"]["bright"]["pointing_at_random"] == pytest.approx(share)
    expected = [[box_of(name, spatial_dims)] for name in ("bright", "dark", "dark")]
    assert [case["predicted_boxes"] for case in report["cases"]] == expected
    assert (report["leak"], report["patient_rule"], report["target_layer"]) == ([], "file", "0")


def test_the_threshold_decides(study):
    # the background of the map is 0.5: below it, one component is the image without what the class is not
    found = localize(**study | {"threshold": 0.5})["findings"]["bright"]
    assert found["accuracy"]["0.1"] == 0
    sweep = localize(**study)["sweep"]["bright"]
    rules = [(component, threshold) for component in ("largest", "each") for threshold in THRESHOLDS]
    assert [(row["component"], row["threshold"]) for row in sweep] == rules
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


def test_masks_give_the_same_boxes(study, spatial_dims):
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
    with pytest.raises(InputError, match=r"other\.json does not exist; --allow_leak True"):
        localize(**study, datalist=other)
    report = localize(**study, datalist=other, allow_leak=True)
    assert report["leak"] is None
    assert "does not exist" in report["leak_unchecked"]


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
    with pytest.raises(InputError, match=r"best\.pt lies in no folder of a run .* by --datalist; --allow_leak"):
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
    ("change", "message"),
    [
        ({"class_names": CLASSES[::-1]}, r"class_names is \['bright', 'dark'\] in .* has \['dark', 'bright'\]; rep"),
        ({"multi_label": True}, "multi_label is False in the configuration of the classifier where .* has True"),
        ({"in_channels": 3}, "in_channels is 1 in the configuration"),
        ({"spatial_dims": 1}, "spatial_dims is [23] in the configuration"),
    ],
)
def test_a_list_of_another_classifier(study, spatial_dims, change, message):
    config, datalist = study["bundle"] / "configs/inference.json", study["bundle"] / "output/datalist.json"
    own = {"in_channels": 1, "spatial_dims": spatial_dims, "patch_size": [4] * spatial_dims, "axcodes": None}
    config.write_text(json.dumps(json.loads(config.read_text()) | own))
    content = json.loads(datalist.read_text()) | {"class_names": CLASSES, "multi_label": False}
    datalist.write_text(json.dumps(content))
    os.utime(datalist, (0, 0))
    size = [12, 8] if spatial_dims == 2 else [10, 12, 8]
    used = own | {"class_names": CLASSES, "multi_label": False, "image_size": size}
    assert localize(**study)["settings"] == used
    datalist.write_text(json.dumps(content | change))
    for allow in (False, True):
        with pytest.raises(InputError, match=message):
            localize(**study, datalist=datalist, allow_leak=allow)


def test_patients_of_the_report(study):
    lines = describe_report(localize(**study))
    datalist = study["bundle"] / "output/datalist.json"
    line = f"training: {datalist}, patients by file (patients unknown: only the same images are found)"
    assert line in lines
    table = write_table(study["boxes"].with_name("p.csv"), "file,patient", "a,a", "b,b", "c,c", "d,d")
    assert f"training: {datalist}, patients by {table}" in describe_report(localize(**study, patient=str(table)))
    assert localize(**study, patient=None)["patient_rule"] == "file"
    with pytest.raises(InputError, match=r"patient must be auto, dicom, .* or a CSV file, got '5'"):
        localize(**study, patient=5)


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
    bundle, image = write_bundle(tmp_path / "bundle", 2), write_scan(tmp_path / "images", "a", 2)
    table = write_table(tmp_path / "boxes.csv", "file,finding,x,y,w,h", "a,dark,1,1,2,2")
    given = {"bundle": bundle, "dataset_dir": image.parent, "boxes": table, "output_dir": tmp_path / "out"}
    with pytest.raises(InputError, match=message):
        localize(**{"allow_leak": True} | given | options)
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


def test_the_bundles(tmp_path, spatial_dims):
    bundle, images = BUNDLES / f"dira_finetune_classification_{spatial_dims}d", tmp_path / "images"
    small = {"features": [4, 4, 8, 8, 16, 4]} if spatial_dims == 3 else {"network_def::_target_": "resnet10"}
    sizes = {"image_size": [32] * 3, "spacing": [2.0, 2.0, 2.5]} if spatial_dims == 3 else {"image_size": [64, 64]}
    network = read_config(bundle, small | sizes, ("inference.json",)).build_network()
    weights, random = tmp_path / "run/models/model.pt", np.random.default_rng(0)
    weights.parent.mkdir(parents=True)
    torch.save(network.state_dict(), weights)
    for name in "abc":
        if spatial_dims == 2:
            write_image(images / f"{name}.png", random.integers(0, 255, (50, 70)).astype(np.uint8))
        else:
            write_oblique(images / f"{name}.nii.gz", (random.normal(size=(50, 47, 33)) * 300).astype(np.int16))
    suffix = "png" if spatial_dims == 2 else "nii.gz"
    write_datalist(tmp_path / "run/output/datalist.json", images, training=[f"b.{suffix}"], validation=[f"c.{suffix}"])
    columns, row = ("x,y,z,w,h,d", "5,6,7,8,9,10") if spatial_dims == 3 else ("x,y,w,h", "5,6,7,8")
    table = write_table(tmp_path / "boxes.csv", f"file,finding,{columns}", f"a,nodule,{row}")
    given = {"dataset_dir": images, "boxes": table, "output_dir": tmp_path / "out", "weights": weights}
    report = localize(bundle, overrides=small | sizes, device="cpu", **given)
    assert {name: report["settings"][name] for name in sizes} == sizes
    assert (report["target_layer"], report["leak"]) == ("4" if spatial_dims == 3 else "layer4", [])
    (case,) = report["cases"]
    shape = [50, 47, 33] if spatial_dims == 3 else [70, 50]
    ends = np.array(case["predicted_boxes"]).reshape(-1, 2, spatial_dims)
    assert (ends >= 0).all()
    assert (ends <= shape).all()


def test_the_map_of_an_oblique_volume_comes_back_to_its_place(tmp_path):
    # a blob stands for a map: what the 3D bundle makes of it, led back, has its center where it was
    sizes = {"image_size": [32] * 3, "spacing": [2.0, 2.0, 2.5]}
    config = read_config(BUNDLES / "dira_finetune_classification_3d", sizes, ("inference.json",))
    preprocessing, center = config.build("preprocessing"), (30, 18, 17)
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
    with pytest.raises(InputError, match=r"inference\.json cannot be read as configuration"):
        read_classifier(bundle)
    (bundle / "configs/inference.json").write_text("{}")
    with pytest.raises(InputError, match=r"\.json has no value 'network_def', which is needed for localization"):
        read_classifier(bundle)


def test_command(study, command):
    options = {"component": "each", "overrides": {"multi_label": True}, "datalist": "none.json", "allow_leak": True}
    words = [f"--{name}={value}" for name, value in (study | options).items() if name != "bundle"]
    lines = command("localize", str(study["bundle"]), *words)[1].splitlines()
    assert lines[0].split()[:4] == ["finding", "boxes", "pointing", "random"]
    assert lines[1].split()[:3] == ["bright", "1", "1.00"]
    assert lines[1].split()[4:] == ["1.00"] * len(OVERLAPS)
    assert lines[-3].startswith("2 images; component each of the map of 0 at threshold 0.6; 0 constant maps")
    assert lines[-2].startswith("leak not checked: the datalist none.json does not exist")
    assert lines[-1] == f"{study['output_dir']}: localization.json, localization.csv, localization.png"
