"""The fine-tuning bundles as a user runs them: training, transfer, evaluation and inference without the package."""

import csv
import json
import multiprocessing
import re
import sys
from pathlib import Path

import jsonschema
import monai.bundle
import nibabel as nib
import numpy as np
import pytest
import torch
from finetune_bundle import (
    KINDS,
    ROOT,
    TASKS,
    bundle,
    config,
    later,
    overrides,
    train,
)
from monai.bundle import ConfigParser, ConfigWorkflow
from PIL import Image
from running import FLOAT64, HELPERS, TORCHRUN, assert_equal_states, command_of, execute, load
from scipy.ndimage import binary_erosion
from scipy.spatial.distance import cdist

from dira_monai.utils.errors import InputError, find_input_error


@pytest.fixture(scope="module", params=KINDS, ids=lambda kind: f"{kind[0]}_{kind[1]}d")
def trained(request, finetune_scans, tmp_path_factory):
    """A finished small run: its kind, folder and options."""
    folder = tmp_path_factory.mktemp("tuned")
    options = overrides(request.param, finetune_scans, folder)
    train(request.param, options)
    return request.param, folder, options


@pytest.fixture(scope="module")
def blocked(tmp_path_factory):
    """A folder that, first on the path, makes Python find no such package."""
    folder = tmp_path_factory.mktemp("blocked")
    (folder / "sitecustomize.py").write_text("import sys\n\nsys.modules['dira_monai'] = None\n")
    return str(folder)


@pytest.mark.parametrize("task", TASKS)
def test_2d_and_3d_share_their_body(task):
    bodies = []
    for dims in (2, 3):
        names = list(content := config((task, dims), "train"))
        bodies.append({name: content[name] for name in names[names.index("imports") :]})
    assert bodies[0] == bodies[1]
    for name in ("evaluate.json", "multi_gpu_train.json", "logging.conf"):
        assert len({(bundle(task, dims) / "configs" / name).read_text() for dims in (2, 3)}) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_every_header_value_is_documented(kind):
    names = list(config(kind, "train"))
    text = (ROOT / "docs/finetuning.md").read_text()
    assert [name for name in names[: names.index("imports")] if f"`{name}" not in text] == []


def targets(content):
    if isinstance(content, dict):
        yield from [content["_target_"]] if "_target_" in content else []
        for value in content.values():
            yield from targets(value)
    elif isinstance(content, list):
        for value in content:
            yield from targets(value)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["inference", "evaluate"])
def test_inference_and_evaluation_name_nothing_but_stock_parts(kind, name):
    content = config(kind, name)
    if name == "evaluate":  # all but what is done where the package is there: the record and errors in a sentence
        assert content["initialize"].pop(0).startswith("$importlib.util.find_spec('dira_monai') and ")
        assert content["imports"].pop() == "$import dira_monai"
        assert content["validate#handlers"].pop(0)["_target_"] == "dira_monai.RunRecord"
    assert not [target for target in targets(content) if "." in target and not target.startswith(("torch.", "monai."))]
    content.pop("_desc_", None)
    assert "dira_monai" not in json.dumps(content)


@pytest.mark.parametrize("kind", KINDS)
def test_train_and_inference_agree(kind):
    train, inference = config(kind, "train"), config(kind, "inference")
    shared = set(list(train)[: list(train).index("imports")]) & set(inference)
    assert shared >= {"class_names", "image_size", "intensity_range", "spacing", "axcodes", "network_def"}
    for key in shared - {"output_dir", "dataset_dir"}:
        assert train[key] == inference[key], key
    pred = config(kind, "metadata")["network_data_format"]["outputs"]["pred"]
    assert list(pred["channel_def"].values()) == train["class_names"]
    assert pred["num_channels"] == len(train["class_names"])


@pytest.mark.parametrize("kind", KINDS)
def test_metadata_satisfies_the_schema(kind):
    text = (bundle(*kind) / "configs/metadata.json").read_text()
    schema = json.loads((ROOT / "tests/golden/meta_schema_20220324.json").read_text())
    # the newest schema, which renamed this one key, cannot be had offline
    jsonschema.validate(json.loads(text.replace("required_packages_version", "optional_packages_version")), schema)
    metadata = json.loads(text)
    assert metadata["version"] in metadata["changelog"]
    constraints = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line)
    pins = metadata["required_packages_version"] | {"torch": metadata["pytorch_version"]}
    assert {name: constraints.get(name, version) for name, version in pins.items()} == pins


def test_a_run_leaves_weights_pictures_and_figures(trained):
    (task, _), folder, options = trained
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert {"models/model.pt", "models/checkpoint.pt", "models/model_last.pt"} <= files
    assert {"out/panel.png", "out/panels/epoch_0002.png", "out/metrics.csv", "out/datalist.json"} <= files
    rows = list(csv.DictReader((folder / "out/metrics.csv").open()))
    names = options["class_names"]
    key = {"segmentation": "val_mean_dice", "classification": "val_mean_auc"}[task]
    metrics = [f"val_dice_{n}" for n in names[1:]] if task == "segmentation" else [f"val_auc_{n}" for n in names]
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert all(0 <= float(row[name]) <= 1 for row in rows for name in [key, *metrics] if row[name] != "nan")
    best = max(range(2), key=lambda i: float(rows[i][key]))
    if best == 1:
        assert_equal_states(load(folder / "models/model.pt"), load(folder / "models/model_last.pt"))


@pytest.mark.parametrize("name", ["train", "inference"])
def test_no_property_is_missing(trained, name):
    kind, _, options = trained
    own = options if name == "train" else later(kind, options) | {"dataset_dir": options["dataset_dir"] + "/images"}
    workflow = ConfigWorkflow(
        config_file=str(bundle(*kind) / f"configs/{name}.json"),
        workflow_type={"train": "train", "inference": "infer"}[name],
        **own,
    )
    workflow.initialize()
    assert workflow.check_properties() == []


def test_network_passes_monais_checks(trained, tmp_path):
    kind, folder, options = trained
    configs = bundle(*kind) / "configs"
    own = {key: value for key, value in later(kind, options).items() if key != "ckpt_dir"}
    arguments = {"meta_file": str(configs / "metadata.json"), "config_file": str(configs / "inference.json")}
    if kind != ("segmentation", 3):  # the metadata count the default classes
        monai.bundle.verify_net_in_out(net_id="network_def", device="cpu", **arguments, **own)
    script = tmp_path / "model.ts"
    weights = str(folder / "models/model.pt")
    monai.bundle.ckpt_export(net_id="network_def", filepath=str(script), ckpt_file=weights, **arguments, **own)
    parser = ConfigParser(json.loads((configs / "inference.json").read_text()))
    parser.update(own)
    plain = parser.get_parsed_content("network_def").eval()
    plain.load_state_dict(load(weights))
    image = torch.rand(1, 1, *options.get("patch_size", options.get("image_size")))
    torch.testing.assert_close(torch.jit.load(str(script)).eval()(image), plain(image))


def read(path):
    """Array with the first axis to the right, as MONAI has it."""
    return np.asarray(Image.open(path)).T if path.suffix == ".png" else np.asarray(nib.load(path).dataobj)


def dice(truth, pred):
    return 2 * (truth & pred).sum() / (truth.sum() + pred.sum())


def edge(mask):
    return mask & ~binary_erosion(mask)


def hd95(truth, pred, spacing):
    """The larger of the 95th percentiles of the distances from either surface to the other, by all pairs of voxels."""
    if not pred.any():
        return float(np.linalg.norm(np.multiply(truth.shape, spacing)))
    first, second = (np.argwhere(edge(mask)) * spacing for mask in (truth, pred))
    distances = cdist(first, second)
    return max(np.percentile(distances.min(axis=axis), 95) for axis in (0, 1))


def check_figures(metrics, told, listed, names):
    """AUC by all pairs, average precision by ranks and the calibration error by bins, from the told probabilities."""
    for c, name in enumerate(names):
        p = np.array([told[Path(entry["image"]).name][c] for entry in listed])
        y = np.array([entry["label"] == c for entry in listed])
        pairs = p[y][:, None] - p[~y]
        auc = np.mean((pairs > 0) + 0.5 * (pairs == 0))
        assert float(metrics[f"val_auc_{name}"]) == pytest.approx(auc, abs=1e-4)
        order = y[np.argsort(-p)]
        ap = np.mean([order[: i + 1].mean() for i in np.flatnonzero(order)])
        assert float(metrics[f"val_ap_{name}"]) == pytest.approx(ap, abs=1e-4)
        bins = np.minimum((p * 15).astype(int), 14)
        ece = sum(abs(p[bins == b].mean() - y[bins == b].mean()) * np.mean(bins == b) for b in set(bins))
        assert float(metrics[f"val_ece_{name}"]) == pytest.approx(ece, abs=1e-3)
    aucs = [float(metrics[f"val_auc_{name}"]) for name in names]
    assert float(metrics["val_mean_auc"]) == pytest.approx(np.mean(aucs), abs=1e-5)


def test_evaluation_and_inference_run_without_the_package_and_agree(trained, blocked, tmp_path):
    kind, folder, options = trained
    task, dims = kind
    own = later(kind, options)
    result = execute(
        command_of(bundle(*kind), ["train", "evaluate"], own | {"output_dir": options["output_dir"]}),
        PYTHONPATH=blocked,
    )
    assert result.returncode == 0, result.stderr
    assert not (folder / "out/evaluation/run.json").exists()
    metrics = dict(line.split(",") for line in (folder / "out/evaluation/metrics.csv").read_text().split())
    dataset = Path(options["dataset_dir"])
    predicted = execute(
        command_of(
            bundle(*kind), ["inference"], own | {"dataset_dir": str(dataset / "images"), "output_dir": str(tmp_path)}
        ),
        PYTHONPATH=blocked,
    )
    assert predicted.returncode == 0, predicted.stderr
    listed = json.loads((folder / "out/datalist.json").read_text())["test"]
    if task == "classification":
        rows = list(csv.DictReader((tmp_path / "probabilities.csv").open()))
        assert list(rows[0]) == ["file", "dark", "bright"]
        told = {Path(row["file"]).name: [float(row["dark"]), float(row["bright"])] for row in rows}
        assert len(told) == 16
        assert all(sum(p) == pytest.approx(1, abs=1e-4) for p in told.values())
        check_figures(metrics, told, listed, options["class_names"])
        again = (folder / "out/evaluation/predictions.csv").read_text().split()
        for name, *values in (line.split(",") for line in again):
            assert told[Path(name).name] == pytest.approx([float(v) for v in values], abs=1e-4)
        assert len(again) == len(listed)
        return
    scores, distances = [], []
    for entry in listed:
        source, label = dataset / entry["image"], read(dataset / entry["label"])
        saved = tmp_path / (source.name.split(".")[0] + "_seg" + "".join(source.suffixes))
        pred = read(saved)
        assert pred.shape == label.shape
        if dims == 3:
            np.testing.assert_allclose(nib.load(saved).affine, nib.load(source).affine)
        label = label > 127 if dims == 2 else label
        classes = range(1, len(options["class_names"]))
        scores.append([dice(label == c, pred == c) for c in classes])
        distances += [hd95(label == c, pred == c, (2, 1, 1.5) if dims == 3 else (1, 1)) for c in classes]
    scores = np.array(scores)
    assert float(metrics["val_mean_dice"]) == pytest.approx(scores.mean(), abs=1e-5)
    for column, name in enumerate(options["class_names"][1:]):
        assert float(metrics[f"val_dice_{name}"]) == pytest.approx(scores[:, column].mean(), abs=1e-5)
    assert float(metrics["val_hd95_mm"]) == pytest.approx(np.mean(distances), rel=1e-4)
    assert 0 <= float(metrics["val_surface_dice"]) <= 1


@pytest.mark.skipif(sys.platform == "win32", reason="which has no fork")
@pytest.mark.parametrize("kind", KINDS)
def test_workers_load_where_new_processes_would_be_spawned(kind, finetune_scans, tmp_path, monkeypatch):
    spawn = multiprocessing.get_context("spawn")
    monkeypatch.setattr(multiprocessing.context._default_context, "_actual_context", spawn)
    options = overrides(kind, finetune_scans, tmp_path, num_workers=1)
    workflow = ConfigWorkflow(str(bundle(*kind) / "configs/train.json"), workflow_type="train", **options)
    batch = next(iter(workflow.parser.get_parsed_content("validate#dataloader")))
    assert len(batch["image"]) == len(batch["label"]) > 0


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("dataset_dir", "output_dir", "found"),
    [
        ("data", "data/out", ["data/a", "data/outliers/b"]),
        ("./data/", "data/out", ["./data/a", "./data/outliers/b"]),
        ("scans_new", "scans", ["scans_new/d"]),
        ("br[1]", "out", ["br[1]/c"]),
        ("scans_new", ".", ["scans_new/d"]),
    ],
)
def test_inference_finds_all_but_label_maps_and_its_results(
    tmp_path, monkeypatch, kind, dataset_dir, output_dir, found
):
    suffix = {2: ".png", 3: ".nii.gz"}[kind[1]]
    for name in ("data/a", "data/outliers/b", "data/out/a_seg", "data/Labels/a", "br[1]/c", "scans_new/d"):
        file = tmp_path / f"{name}{suffix}"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    monkeypatch.chdir(tmp_path)
    parser = ConfigParser(config(kind, "inference") | {"dataset_dir": dataset_dir, "output_dir": output_dir})
    assert parser.get_parsed_content("files") == [f"{name}{suffix}" for name in found]
    parser = ConfigParser(config(kind, "inference") | {"dataset_dir": dataset_dir, "image": f"data/a{suffix}"})
    assert parser.get_parsed_content("files") == [f"data/a{suffix}"]
    assert parser.get_parsed_content("everything") == []  # a whole home directory perhaps


@pytest.mark.parametrize("kind", [("segmentation", 3), ("classification", 2)])
def test_resumed_run_equals_unbroken_run(kind, finetune_scans, tmp_path):
    fixed = {"lr_scheduler#t_total": 4, "layer_decay": 0.7, "freeze_epochs": 1, "gradient_clip": 1.0}
    whole = overrides(kind, finetune_scans, tmp_path / "whole", **fixed)
    train(kind, whole)
    broken = overrides(kind, finetune_scans, tmp_path / "broken", **fixed)
    train(kind, broken | {"max_epochs": 1})
    train(kind, broken | {"resume": True})
    for name in ("checkpoint.pt", "model.pt"):
        assert_equal_states(*(load(tmp_path / run / "models" / name) for run in ("broken", "whole")))
    rows = [list(csv.DictReader((tmp_path / run / "out/metrics.csv").open())) for run in ("broken", "whole")]
    for first, second in zip(*rows, strict=True):
        assert first | {"images_per_second": ""} == second | {"images_per_second": ""}


@pytest.mark.parametrize("kind", [("segmentation", 3), ("classification", 2)])
def test_two_processes_train_like_one(kind, finetune_scans, tmp_path):
    two = overrides(kind, finetune_scans, tmp_path / "two", max_epochs=1)
    files = ["train", FLOAT64]  # in float32 norms of few values amplify the rounding of each order of sums
    result = execute(command_of(bundle(*kind), [*files, "multi_gpu_train"], two, TORCHRUN), PYTHONPATH=HELPERS)
    assert result.returncode == 0, result.stderr
    train(kind, overrides(kind, finetune_scans, tmp_path / "one", max_epochs=1, batch_size=4), files)
    rows = [next(csv.DictReader((tmp_path / run / "out/metrics.csv").open())) for run in ("two", "one")]
    names = [name for name in rows[0] if name == "loss" or name.startswith("val_mean")]
    assert len(names) >= 2
    first, second = ([float(row[name]) for name in names] for row in rows)
    assert first == pytest.approx(second, rel=1e-5, abs=1e-5)
    for a, b in zip(*(load(tmp_path / run / "models/model.pt").values() for run in ("two", "one")), strict=True):
        torch.testing.assert_close(a, b, atol=1e-8, rtol=0)


def pretrained_weights(kind, options, folder):
    """Weights as the pre-training bundle for as many axes leaves them: of the network with one output."""
    own = {key: value for key, value in options.items() if key.startswith("network_def")}
    if kind == ("classification", 3):
        own = {"network_def#features": options["features"]}
    elif kind == ("classification", 2):
        own = {"network_def#backbone": options["network_def#_target_"]}
    parser = ConfigParser(json.loads((ROOT / f"bundles/dira_pretrain_{kind[1]}d/configs/inference.json").read_text()))
    parser.update(own)
    torch.manual_seed(7)
    network = parser.get_parsed_content("network_def")
    torch.save(network.state_dict(), folder / "model.pt")
    return network


@pytest.mark.parametrize("kind", KINDS)
def test_pretrained_weights_are_where_the_training_starts(kind, finetune_scans, tmp_path, capsys):
    options = overrides(kind, finetune_scans, tmp_path)
    network = pretrained_weights(kind, options, tmp_path)
    parser = ConfigParser(config(kind, "train"))
    parser.update(options | {"pretrained": str(tmp_path / "model.pt")})
    tuned = parser.get_parsed_content("network")
    assert re.search(r"coverage: 100.0% of the encoder", capsys.readouterr().out)
    own = list(tuned.state_dict().values())
    source = network.encoder if kind[1] == 2 else network
    stem = next(value for value in source.state_dict().values() if value.ndim > 2)
    assert any(value.shape == stem.shape and torch.equal(value, stem) for value in own)


def test_several_labels_with_unknown_ones_train_and_are_judged(finetune_scans, tmp_path):
    kind = ("classification", 2)
    rows = ["file,bright,odd"] + [f"case{i}.png,{i % 2},{'' if i % 4 == 0 else i % 3 % 2}" for i in range(16)]
    (tmp_path / "table.csv").write_text("\n".join(rows) + "\n")
    table = {"labels": str(tmp_path / "table.csv"), "multi_label": True, "class_names": ["bright", "odd"]}
    own = {"class_weights": "balanced", "label_smoothing": 0.1, "val_interval": 2, "patience": 1}
    options = overrides(kind, finetune_scans, tmp_path, **table, **own)
    train(kind, options)
    rows = list(csv.DictReader((tmp_path / "out/metrics.csv").open()))
    assert [bool(row["val_mean_auc"]) for row in rows] == [False, True]
    listed = json.loads((tmp_path / "out/datalist.json").read_text())
    assert any(None in entry["label"] for entry in listed["training"])
    assert {"val_auc_bright", "val_auc_odd", "val_ap_odd", "val_ece_odd"} <= rows[0].keys()


@pytest.mark.parametrize("dims", [2, 3])
def test_one_validation_image_is_enough_for_segmentation(dims, finetune_scans, tmp_path):
    kind = ("segmentation", dims)
    options = overrides(kind, finetune_scans, tmp_path, validation_fraction=0.05, max_epochs=1, batch_size=4 - dims)
    train(kind, options)
    assert len(json.loads((tmp_path / "out/datalist.json").read_text())["validation"]) == 1
    row = next(csv.DictReader((tmp_path / "out/metrics.csv").open()))
    assert 0 <= float(row["val_dice_blob"]) <= 1


def transformed(kind, options, entry):
    """A sample as the fixed transforms of train.json make it."""
    parser = ConfigParser(config(kind, "train"))
    parser.update(options)
    sample = entry
    for transform in parser.get_parsed_content("fixed_transforms"):
        sample = transform(sample)
    return sample


def test_labels_above_the_threshold_are_class_1_and_keep_16_bits(tmp_path):
    values = np.array([[0, 126, 127], [128, 300, 65535]], dtype=np.uint16)
    Image.fromarray(values).save(tmp_path / "deep.png")
    Image.fromarray(np.zeros((2, 3), np.uint8)).save(tmp_path / "image.png")
    entry = {"image": str(tmp_path / "image.png"), "label": str(tmp_path / "deep.png")}
    for threshold, expected in ((127, values > 127), (300, values > 300), (0, values > 0)):
        label = transformed(("segmentation", 2), {"label_threshold": threshold, "image_size": None}, entry)["label"]
        np.testing.assert_array_equal(label[0].T, expected)
    options = {"label_threshold": None, "label_values": [0, 126, 127, 128, 300, 65535], "image_size": None}
    label = transformed(("segmentation", 2), options | {"class_names": list("abcdef")}, entry)["label"]
    np.testing.assert_array_equal(label[0].T, np.arange(6).reshape(2, 3))


@pytest.mark.parametrize("kind", [("segmentation", 2), ("classification", 2)])
@pytest.mark.parametrize("in_channels", [1, 3])
def test_gray_and_color_pictures_fit_the_channels(tmp_path, kind, in_channels):
    color = np.random.default_rng(0).integers(0, 255, (4, 5, 3), dtype=np.uint8)
    Image.fromarray(color).save(tmp_path / "color.png")
    Image.fromarray(color[..., 0]).save(tmp_path / "gray.png")
    Image.fromarray(color).convert("RGB").save(tmp_path / "mask.png")
    options = {"in_channels": in_channels, "image_size": None, "class_names": ["a", "b"]}
    for name in ("color", "gray"):
        label = str(tmp_path / "mask.png") if kind[0] == "segmentation" else 1
        sample = transformed(kind, options, {"image": str(tmp_path / f"{name}.png"), "label": label})
        assert sample["image"].shape == (in_channels, 5, 4)
        if name == "color" and in_channels == 3:
            np.testing.assert_allclose(sample["image"].numpy(), color.transpose(2, 1, 0) / 255, atol=1e-6)
        if kind[0] == "segmentation":
            assert sample["label"].shape == (1, 5, 4)


@pytest.mark.parametrize(
    ("files", "change", "sentence"),
    [
        (["train", "evaluate"], {"intensity_range": "None"}, "MONAI ignores --intensity_range=None: write '$None'"),
        (["train", "evaluate"], {}, "datalist.json: no such file; run train.json first"),
        (["inference"], {"image": "/nowhere.nii.gz"}, "model.pt: no such file"),
    ],
)
def test_evaluation_and_inference_say_what_is_missing(tmp_path, blocked, files, change, sentence):
    kind = ("segmentation", 3)
    options = {"ckpt_dir": str(tmp_path), "output_dir": str(tmp_path)} | change
    words = command_of(bundle(*kind), files, options)
    words = [f"{a}={b}" for a, b in zip(words[4::2], words[5::2], strict=True)]
    result = execute([*command_of(bundle(*kind), files, {})[:4], *words], PYTHONPATH=blocked)
    assert result.returncode == 1
    assert sentence in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("files", [["train"], ["train", "evaluate"], ["inference"]], ids=lambda files: files[-1])
def test_a_word_that_monai_ignores_is_named_with_its_option(tmp_path, files):
    words = command_of(bundle("classification", 2), files, {"output_dir": str(tmp_path), "intensity_range": "null"})
    result = execute(words)
    assert result.returncode == 1
    assert "--intensity_range null: write '$None'" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: f"{kind[0]}_{kind[1]}d")
def test_the_learning_rate_falls_over_the_epochs_of_the_trainer(kind):
    parser = ConfigParser(config(kind, "train"))
    parser.update({"train#trainer#max_epochs": 7, "run_name": "evening"})  # as MONAI Label sets them
    assert parser.get_parsed_content("schedule_epochs") == 7


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: f"{kind[0]}_{kind[1]}d")
@pytest.mark.parametrize("files", [["train"], ["train", "evaluate"], ["inference"]], ids=lambda files: files[-1])
def test_words_of_other_programs_are_not_judged(kind, files, monkeypatch):
    monkeypatch.setattr("sys.argv", ["launch", "--config_file", "cluster.yaml", "--gpus", "None", "--quiet=false"])
    workflow = ConfigWorkflow([str(bundle(*kind) / f"configs/{name}.json") for name in files], workflow_type="train")
    workflow.initialize()


def test_evaluation_refuses_an_empty_list_and_other_classes(trained, blocked):
    kind, _, options = trained
    own = later(kind, options) | {"output_dir": options["output_dir"]}
    empty = execute(command_of(bundle(*kind), ["train", "evaluate"], own | {"split": "left"}), PYTHONPATH=blocked)
    assert empty.stderr.strip().splitlines()[-1].endswith("has no image in the list left")
    others = own | {"class_names": options["class_names"][::-1]}
    result = execute(command_of(bundle(*kind), ["train", "evaluate"], others), PYTHONPATH=blocked)
    assert f"class_names of the training: {options['class_names']}" in result.stderr


def test_with_the_package_an_evaluation_ends_with_its_sentence(trained, tmp_path):
    kind, _, options = trained
    (tmp_path / "run.json").write_text("[]")
    own = later(kind, options) | {"output_dir": options["output_dir"], "evaluation_dir": str(tmp_path)}
    result = execute(command_of(bundle(*kind), ["train", "evaluate"], own))
    assert result.returncode != 0
    assert re.search(r"error: \S+run\.json is no record of runs \(.*\); move it away\.$", result.stderr.strip())


@pytest.mark.parametrize("files", [["train", "evaluate"], ["inference"]], ids=lambda files: files[-1])
def test_weights_of_another_network_are_one_sentence(trained, finetune_scans, blocked, files):
    kind, _, options = trained
    folder = Path(options["output_dir"]).parent / "other"
    folder.mkdir(exist_ok=True)
    state = load(Path(options["ckpt_dir"]) / "model.pt")
    torch.save({f"other.{key}": value for key, value in state.items()}, folder / "model.pt")
    own = later(kind, options) | {"output_dir": options["output_dir"], "ckpt_dir": str(folder)}
    if files == ["inference"]:
        own["dataset_dir"] = f"{finetune_scans[kind[1]]}/images"
    result = execute(command_of(bundle(*kind), files, own), PYTHONPATH=blocked)
    assert result.returncode == 1
    assert f"error: {folder}/model.pt: is of another network, first " in result.stderr
    assert "Traceback" not in result.stderr


def fails(kind, options):
    """What a user reads when the run stops: one sentence, without a stack trace."""
    result = execute(command_of(bundle(*kind), ["train"], options))
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    return result.stderr.strip().splitlines()[-1]


@pytest.mark.parametrize(
    ("kind", "change", "sentence"),
    [
        (("segmentation", 3), {"patch_size": [8, 8, 8]}, r"patch_size \[8, 8, 8\] does not fit BasicUNet"),
        (("classification", 3), {"image_size": [16, 16, 16]}, r"images of \[16, 16, 16\] .* do not fit the Sequential"),
        (("segmentation", 2), {"dataset_dir": "/nowhere"}, "/nowhere"),
    ],
)
def test_bad_input_gives_one_sentence(kind, finetune_scans, tmp_path, change, sentence):
    assert re.search(sentence, fails(kind, overrides(kind, finetune_scans, tmp_path, **change)))


@pytest.mark.parametrize(
    ("kind", "change", "sentence"),
    [
        (("segmentation", 3), {"class_names": ["background", "blob"]}, "label values .* 2 classes"),
        (("segmentation", 2), {"label_threshold": "$None"}, "--label_threshold 127"),
        (("classification", 2), {"class_names": ["dark", "light"]}, "bright"),
        (("classification", 2), {"class_weights": [1, 2, 3]}, "class_weights must be 2 numbers"),
        (("segmentation", 3), {"pretrained": "/nowhere/model.pt"}, "/nowhere/model.pt: no such"),
        (("segmentation", 3), {"layer_decay": 2}, "layer_decay must lie in"),
        (("segmentation", 3), {"class_weights": [1, 2]}, "class_weights must be 3 numbers"),
        (("segmentation", 3), {"intensity_range": [0, 65535]}, "do not suit intensity_range"),
        (("classification", 2), {"validation_fraction": 0.05}, "the validation list has no class that some of its 1"),
    ],
)
def test_values_that_do_not_fit_the_data_are_refused(kind, finetune_scans, tmp_path, change, sentence):
    with pytest.raises((RuntimeError, InputError)) as caught:  # MONAI wraps what its expressions raise
        train(kind, overrides(kind, finetune_scans, tmp_path, **change))
    assert re.search(sentence, str(find_input_error(caught.value)))
