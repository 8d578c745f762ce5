"""The fine-tuning bundles as a user runs them: configs, training and transfer."""

import csv
import json
import multiprocessing
import re
import sys
from pathlib import Path

import monai.bundle
import numpy as np
import pytest
import torch
from finetune_bundle import (
    KINDS,
    ROOT,
    SHIPPED,
    TASKS,
    bundle,
    config,
    later,
    overrides,
    train,
)
from html_pages import read_page
from ignite.engine import Engine
from meta_schema import check_metadata
from monai.bundle import ConfigParser, ConfigWorkflow
from monai.handlers import MeanDice, from_engine
from PIL import Image
from programs import failure_of, run_python, without_the_package
from running import FLOAT64, assert_equal_states, command_of, load

from dira_monai.utils.errors import InputError, find_input_error


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
def test_metadata_satisfies_the_schema(kind):
    metadata = config(kind, "metadata")
    check_metadata(metadata)
    constraints = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line)
    pins = metadata["required_packages_version"] | {"torch": metadata["pytorch_version"]}
    assert {name: constraints.get(name, version) for name, version in pins.items()} == pins


def test_a_run_leaves_weights_pictures_and_figures(finetuned):
    (task, _), folder, options = finetuned
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


def test_a_run_leaves_a_page(finetuned):
    (task, _), folder, options = finetuned
    content = (folder / "out/report.html").read_text()
    shown = read_page(content)
    assert {"Curves", "Classes and cases", "Panels through time", "Chosen values"} <= set(shown.text("h2"))
    assert len([img for img in shown.all("img") if " case " in img["alt"]]) == 3  # worst, median, best
    (epoch,) = re.findall(r"validation of epoch (\d+), ", content)
    with open(folder / "out/metrics.csv") as file:
        row = next(row for row in csv.DictReader(file) if row["epoch"] == epoch)
    told = shown.text("td")
    metric, names = ("dice", options["class_names"][1:]) if task == "segmentation" else ("auc", options["class_names"])
    for name in names:
        assert told[told.index(name) + 1] == f"{float(row[f'val_{metric}_{name}']):.3f}"
    assert ("truth, predicted as:" in shown.text("th")) == (task == "classification")


@pytest.mark.parametrize("name", ["train", "inference"])
def test_no_property_is_missing(finetuned, name):
    kind, _, options = finetuned
    own = options if name == "train" else later(options) | {"dataset_dir": options["dataset_dir"] + "/images"}
    workflow = ConfigWorkflow(
        config_file=str(bundle(*kind) / f"configs/{name}.json"),
        workflow_type={"train": "train", "inference": "infer"}[name],
        **own,
    )
    workflow.initialize()
    assert workflow.check_properties() == []


def test_network_passes_monais_checks(finetuned, tmp_path):
    kind, folder, options = finetuned
    configs = bundle(*kind) / "configs"
    own = {key: value for key, value in later(options).items() if key != "ckpt_dir"}
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


@pytest.mark.skipif(sys.platform == "win32", reason="which has no fork")
@pytest.mark.parametrize("kind", KINDS)
def test_workers_load_where_new_processes_would_be_spawned(kind, finetune_scans, tmp_path, monkeypatch):
    spawn = multiprocessing.get_context("spawn")
    monkeypatch.setattr(multiprocessing.context._default_context, "_actual_context", spawn)
    options = overrides(kind, finetune_scans, tmp_path, num_workers=1)
    workflow = ConfigWorkflow(str(bundle(*kind) / "configs/train.json"), workflow_type="train", **options)
    batch = next(iter(workflow.parser.get_parsed_content("validate#dataloader")))
    assert len(batch["image"]) == len(batch["label"]) > 0


def check_run_bundles(folder, runs):
    """Two runs left the same bundle, each with its own weights."""
    for name in ("inference", "evaluate"):
        contents = [json.loads((folder / run / f"out/bundle/configs/{name}.json").read_text()) for run in runs]
        first, second = ({k: v for k, v in c.items() if k not in ("inferer", "batch_size")} for c in contents)
        assert first == second  # the batch is that of one process
    for run in runs:
        assert (folder / run / "out/bundle/models/model.pt").samefile(folder / run / "models/model.pt")


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
    check_run_bundles(tmp_path, ("broken", "whole"))
    rows = [list(csv.DictReader((tmp_path / run / "out/metrics.csv").open())) for run in ("broken", "whole")]
    for first, second in zip(*rows, strict=True):
        assert first | {"images_per_second": ""} == second | {"images_per_second": ""}


@pytest.mark.parametrize("kind", [("segmentation", 3), ("classification", 2)])
def test_two_processes_train_like_one(kind, finetune_scans, tmp_path):
    two = overrides(kind, finetune_scans, tmp_path / "two", max_epochs=1)
    files = ["train", FLOAT64]  # in float32 norms of few values amplify the rounding of each order of sums
    result = run_python(command_of(bundle(*kind), [*files, "multi_gpu_train"], two), processes=2)
    assert result.returncode == 0, result.stderr
    train(kind, overrides(kind, finetune_scans, tmp_path / "one", max_epochs=1, batch_size=4), files)
    rows = [next(csv.DictReader((tmp_path / run / "out/metrics.csv").open())) for run in ("two", "one")]
    names = [name for name in rows[0] if name == "loss" or name.startswith("val_mean")]
    assert len(names) >= 2
    first, second = ([float(row[name]) for name in names] for row in rows)
    assert first == pytest.approx(second, rel=1e-5, abs=1e-5)
    check_run_bundles(tmp_path, ("two", "one"))
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
    options = overrides(kind, finetune_scans, tmp_path, SHIPPED)
    network = pretrained_weights(kind, options, tmp_path)
    parser = ConfigParser(config(kind, "train"))
    parser.update(options | {"pretrained": str(tmp_path / "model.pt"), "learning_rate": 0.2, "pretrained_rate": 0.5})
    tuned = parser.get_parsed_content("network")
    assert re.search(r"coverage: 100.0% of the encoder", capsys.readouterr().out)
    own = list(tuned.state_dict().values())
    source = network.encoder if kind[1] == 2 else network
    stem = next(value for value in source.state_dict().values() if value.ndim > 2)
    assert any(value.shape == stem.shape and torch.equal(value, stem) for value in own)
    rates = [(g["lr"], value) for g in parser.get_parsed_content("parameters") for value in g["params"]]
    assert [rate for rate, value in rates if value.shape == stem.shape and torch.equal(value, stem)] == [0.1]


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("pretrains", [True, False])
def test_the_layer_that_restores_is_no_head_of_classes(dims, pretrains, finetune_scans, tmp_path, capsys):
    """Two classes and the two channels of a restoration have the same shapes."""
    kind = ("segmentation", dims)
    options = overrides(kind, finetune_scans, tmp_path) | {"class_names": ["background", "lung"]}
    options["pretrained"] = str(tmp_path / "models/model.pt")
    source, tuned = (ConfigParser(config(kind, "train")) for _ in range(2))
    source.update(options)
    tuned.update(options)
    source = source.get_parsed_content("network_def")
    (tmp_path / "models").mkdir()
    torch.save(source.state_dict(), tmp_path / "models/model.pt")
    values = {"restoration_weight": 10} if pretrains else {"class_names": ["background", "lung"]}
    (tmp_path / "models/run.json").write_text(json.dumps({"starts": [{"config": values}]}))
    tuned = tuned.get_parsed_content("initialized")
    head = "final_conv.weight"
    assert torch.equal(tuned.state_dict()[head], source.state_dict()[head]) != pretrains
    assert (f"{head}, " in capsys.readouterr().out) == pretrains
    first = next(iter(source.state_dict()))
    assert torch.equal(tuned.state_dict()[first], source.state_dict()[first])


def runs_of(made, images, output):
    """Inference and evaluation of a run's bundle."""
    own = {"bundle_root": str(made), "output_dir": str(output)}
    return [
        (str(made / "configs/inference.json"), own | {"dataset_dir": str(images)}),
        (str(made / "configs/evaluate.json"), own),
    ]


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
    done = without_the_package(
        runs_of(tmp_path / "out/bundle", Path(options["dataset_dir"], "images"), tmp_path / "own")
    )
    assert done.returncode == 0, done.stderr
    told = {row["file"]: row for row in csv.DictReader((tmp_path / "own/probabilities.csv").open())}
    assert len(told) == 16
    measured = dict(line.split(",") for line in (tmp_path / "own/metrics.csv").read_text().split())
    for number, name in enumerate(table["class_names"]):
        known = [
            (entry["label"][number], told[f"{options['dataset_dir']}/{entry['image']}"][name])
            for entry in listed["test"]
        ]
        positive, negative = ([float(p) for label, p in known if label == value] for value in (1, 0))
        pairs = [(p > n) + 0.5 * (p == n) for p in positive for n in negative]
        assert float(measured[f"val_auc_{name}"]) == pytest.approx(np.mean(pairs) if pairs else np.nan, nan_ok=True)


def test_a_network_of_this_package_is_told_where_it_is_not_there(finetune_scans, tmp_path):
    options = overrides(("segmentation", 2), finetune_scans, tmp_path, max_epochs=1)
    network = {"_target_": "dira_monai.GenesisUNet", "spatial_dims": 2, "out_channels": 2, "features": [2, 4, 6, 8]}
    train(("segmentation", 2), options | {"network_def": network})
    made, images = tmp_path / "out/bundle", Path(options["dataset_dir"], "images")
    sentence = "this bundle needs the package dira-monai, for dira_monai.GenesisUNet; install it"
    for run in runs_of(made, images, tmp_path / "own"):
        done = without_the_package([run])
        assert (done.returncode, done.stderr.splitlines()[-1]) == (1, sentence)
        monai.bundle.run(config_file=run[0], **run[1])
    assert len([*(tmp_path / "own").glob("*_seg.png")]) == 16
    measured = dict(line.split(",") for line in (tmp_path / "own/metrics.csv").read_text().split())
    dices = []
    for entry in json.loads((tmp_path / "out/datalist.json").read_text())["test"]:
        truth = np.asarray(Image.open(images.parent / entry["label"])) > 127
        found = np.asarray(Image.open(tmp_path / "own" / f"{Path(entry['image']).stem}_seg.png")) > 0
        dices.append(2 * (truth & found).sum() / (truth.sum() + found.sum()))
    assert float(measured["val_mean_dice"]) == pytest.approx(np.mean(dices), abs=1e-5)


@pytest.mark.parametrize("dims", [2, 3])
def test_one_validation_image_is_enough_for_segmentation(dims, finetune_scans, tmp_path):
    kind = ("segmentation", dims)
    options = overrides(kind, finetune_scans, tmp_path, validation_fraction=0.05, max_epochs=1, batch_size=4 - dims)
    train(kind, options)
    assert len(json.loads((tmp_path / "out/datalist.json").read_text())["validation"]) == 1
    row = next(csv.DictReader((tmp_path / "out/metrics.csv").open()))
    assert 0 <= float(row["val_dice_blob"]) <= 1


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind[0] == "classification"])
def test_logits_in_half_precision_are_judged_in_float32(kind):
    parser = ConfigParser(config(kind, "train"))
    parser["class_names"] = ["a", "b"]
    logits = torch.tensor([[4.0, 1.0], [3.0, 3.25], [8.0, 0.5]])
    made = parser.get_parsed_content("validate#postprocessing")([{"pred": row} for row in logits.bfloat16()])
    pairs = [pair | {"label": torch.eye(2)[label]} for pair, label in zip(made, (0, 1, 0), strict=True)]
    for pair, row in zip(made, logits, strict=True):
        torch.testing.assert_close(pair["pred"], row.softmax(0), rtol=1e-6, atol=0)
    for metric in parser.get_parsed_content("validate#class_metrics").values():
        metric.update(metric._output_transform(pairs))
        assert 0 <= metric.compute() <= 1


@pytest.mark.parametrize("dims", [2, 3])
def test_the_mean_dice_is_monais_and_not_defined_where_no_image_has_a_class(dims):
    generator = torch.Generator().manual_seed(0)
    drawn = [torch.randint(0, 3, (2, *[6] * dims), generator=generator) for _ in range(5)]
    drawn[1][1] = 0  # an image without any class
    for classes in (drawn, [torch.stack([maps[0], torch.zeros_like(maps[1])]) for maps in drawn]):
        masks = [torch.nn.functional.one_hot(maps, 3).movedim(-1, 1).float() for maps in classes]
        parser = ConfigParser(config(("segmentation", dims), "train"))
        parser["class_names"] = ["background", "a", "b"]
        own = parser.get_parsed_content("validate#key_metric")["val_mean_dice"]
        engine = Engine(lambda _, batch: [{"pred": batch[0], "label": batch[1]}])
        own.attach(engine, "own")
        MeanDice(include_background=False, output_transform=from_engine(["pred", "label"])).attach(engine, "monai")
        metrics = engine.run(masks).metrics
        if classes is drawn:
            assert metrics["own"] == pytest.approx(metrics["monai"], rel=1e-6)
        else:
            assert np.isnan(metrics["own"])
        assert engine.state.metric_details["own"].shape == (5, 2)


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


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("count", [2, 3])
def test_pictures_of_several_modalities_are_gray_channels(tmp_path, task, count):
    arrays = np.random.default_rng(0).integers(0, 255, (count, 4, 5), dtype=np.uint8)
    files = [str(tmp_path / f"{number}.png") for number in range(count)]
    for file, array in zip(files, arrays, strict=True):
        Image.fromarray(array).save(file)
    options = {
        "in_channels": count,
        "modalities": ["a", "b", "c"][:count],
        "image_size": None,
        "class_names": ["a", "b"],
    }
    entry = {"image": files, "label": files[0] if task == "segmentation" else 1}
    sample = transformed((task, 2), options, entry)
    np.testing.assert_allclose(sample["image"].numpy(), arrays.transpose(0, 2, 1) / 255, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: f"{kind[0]}_{kind[1]}d")
def test_the_learning_rate_falls_over_the_epochs_of_the_trainer(kind):
    parser = ConfigParser(config(kind, "train"))
    parser.update({"train#trainer#max_epochs": 7, "run_name": "evening"})  # as MONAI Label sets them
    assert parser.get_parsed_content("schedule_epochs") == 7


@pytest.mark.parametrize(
    ("kind", "change", "sentence"),
    [
        (("segmentation", 3), {"patch_size": [8, 8, 8]}, r"patch_size \[8, 8, 8\] does not fit BasicUNet"),
        (("classification", 3), {"image_size": [16, 16, 16]}, r"images of \[16, 16, 16\] .* do not fit the Sequential"),
        (("segmentation", 2), {"dataset_dir": "/nowhere"}, "/nowhere"),
    ],
)
def test_bad_input_gives_one_sentence(kind, finetune_scans, tmp_path, change, sentence):
    options = overrides(kind, finetune_scans, tmp_path, **change)
    assert re.search(sentence, failure_of(command_of(bundle(*kind), ["train"], options)))


@pytest.mark.parametrize(
    ("kind", "change", "sentence"),
    [
        (("segmentation", 3), {"class_names": ["background", "blob"]}, "label values .* 2 classes"),
        (("segmentation", 2), {"label_threshold": "$None"}, "--label_threshold 127"),
        (("classification", 2), {"class_names": ["dark", "light"]}, "bright"),
        (("classification", 2), {"class_weights": [1, 2, 3]}, "class_weights must be 2 numbers"),
        (("segmentation", 3), {"pretrained": "/nowhere/model.pt"}, "/nowhere/model.pt: no such"),
        (("segmentation", 3), {"layer_decay": 2}, "--layer_decay must be a number above 0 and at most 1, got 2"),
        (("segmentation", 3), {"class_weights": [1, 2]}, "class_weights must be 3 numbers"),
        (("segmentation", 3), {"intensity_range": [0, 65535]}, "do not suit intensity_range"),
        (("classification", 2), {"validation_fraction": 0.05}, "the validation list has no class that some of its 1"),
    ],
)
def test_values_that_do_not_fit_the_data_are_refused(kind, finetune_scans, tmp_path, change, sentence):
    with pytest.raises((RuntimeError, InputError)) as caught:  # MONAI wraps what its expressions raise
        train(kind, overrides(kind, finetune_scans, tmp_path, **change))
    assert re.search(sentence, str(find_input_error(caught.value)))
