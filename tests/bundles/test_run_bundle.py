"""The bundle that every training leaves: it infers and evaluates by the values of the training, with stock MONAI."""

import csv
import json
import re
import shutil
from contextlib import nullcontext
from pathlib import Path

import monai.bundle
import numpy as np
import pytest
import torch
from finetune_bundle import KINDS, TASKS, bundle, config, overrides, train, values_in
from meta_schema import SCHEMA, check_metadata
from monai.bundle import ConfigParser
from running import causes, load
from test_deploy import check_deployed
from test_zoo import SECTIONS, call, documented, missing_files
from zip_files import names_in, refusal

from dira_monai.sharing.evaluation_config import make_evaluation_config
from dira_monai.sharing.inference_config import make_inference_config
from dira_monai.utils import locking
from dira_monai.utils.errors import InputError

NAMES = (
    "LICENSE configs/evaluate.json configs/inference.json configs/logging.conf configs/metadata.json docs/README.md "
    "docs/panel.png models/model.pt"
)


def texts_of(folder):
    return {
        p.relative_to(folder).as_posix(): p.read_text() for p in folder.rglob("*.*") if p.suffix in (".json", ".md")
    }


def test_a_training_leaves_a_whole_bundle_that_names_no_person_and_no_place(finetuned):
    _, folder, _ = finetuned
    made = folder / "out/bundle"
    assert sorted(p.relative_to(made).as_posix() for p in made.rglob("*") if p.is_file()) == NAMES.split()
    assert (made / "models/model.pt").samefile(folder / "models/model.pt")
    assert (folder / "models/run.json").samefile(folder / "out/run.json")
    for name, text in texts_of(made).items():
        assert not re.search(r"case\d|/tmp/|" + re.escape(str(folder.parent)), text), name
    for name in ("inference", "evaluate"):
        content = json.loads((made / f"configs/{name}.json").read_text())
        targets = [v["_target_"] for v in values_in(content) if isinstance(v, dict) and "_target_" in v]
        assert not [t for t in targets if "." in t and not t.startswith(("torch.", "monai."))]
        assert "dira_monai" not in json.dumps(content)
        assert "train" not in content
    assert [path.name for path in made.parent.glob(".*")] == [locking.NAME]  # and no half bundle


def test_metadata_and_card_are_true(finetuned):
    (task, dims), folder, options = finetuned
    made = folder / "out/bundle"
    metadata = json.loads((made / "configs/metadata.json").read_text())
    check_metadata(metadata)
    names, data = options["class_names"], metadata["network_data_format"]
    assert list(data["outputs"]["pred"]["channel_def"].values()) == names
    assert data["outputs"]["pred"]["num_channels"] == len(names)
    assert data["inputs"]["image"]["spatial_shape"] == options.get("patch_size", options.get("image_size"))
    assert data["inputs"]["image"]["modality"] == ("CT" if dims == 3 else "not known")
    assert "dira-monai" not in metadata["required_packages_version"]
    rows = list(csv.DictReader((folder / "out/metrics.csv").open()))
    key = {"segmentation": "val_mean_dice", "classification": "val_mean_auc"}[task]
    best = max(rows, key=lambda row: float(row[key]))
    reached = {name: float(value) for name, value in best.items() if name.startswith("val_") and value != "nan"}
    assert metadata["eval_metrics"] == pytest.approx(reached)
    card = (made / "docs/README.md").read_text()
    headings = re.findall(r"^##+ (.*)$", card, re.MULTILINE)
    assert headings == [section.strip() for section in SECTIONS.split(",")]
    assert f"| {key} | {float(best[key]):.4g} |" in card
    listed = json.loads((folder / "out/datalist.json").read_text())
    for name in ("training", "validation", "test"):
        assert f"| {name} | {len(listed[name])} images of {len(listed[name])} patients |" in card
    assert f"epoch {best['epoch']}" in card


def validation_of(kind, options, state):
    """What the training's own validation computes of its images: network output of an entry of the list."""
    parser = ConfigParser(config(kind, "train"))
    parser.update(options)
    return outputs_of(parser.get(), state)


def outputs_of(content, state):
    """What the validation of a configuration computes of an entry of the list."""
    parser = ConfigParser(json.loads(json.dumps(content)) | {"device": "cpu"})
    network = parser.get_parsed_content("network_def").eval()
    network.load_state_dict(state)
    transform, inferer = (parser.get_parsed_content(f"validate::{name}") for name in ("preprocessing", "inferer"))
    return torch.no_grad()(lambda entry: inferer(transform(entry)["image"][None], network)[0])


def inference_of(content, state):
    """What an inference configuration computes of an image."""
    parser = ConfigParser(json.loads(json.dumps(content)) | {"device": "cpu"})
    network = parser.get_parsed_content("network_def").eval()
    network.load_state_dict(state)
    transform, inferer = (parser.get_parsed_content(name) for name in ("preprocessing", "inferer"))
    return torch.no_grad()(lambda image: inferer(transform({"image": image})["image"][None], network)[0])


CHANGES = {
    "image_size": {2: [24, 40], 3: [32, 32, 48]},
    "spacing": {3: [2.0, 2.0, 2.0]},
    "axcodes": {3: "LPS"},
    "intensity_range": {2: [20, 200], 3: [-700, 900]},
    "in_channels": {2: 3, 3: 2},
    "reader": {2: {"_target_": "PILReader", "converter": "$lambda i: i.convert('L').rotate(90)"}, 3: "NibabelReader"},
    "patch_size": {2: [32, 32], 3: [32, 16, 16]},
    "overlap": {2: 0.75, 3: 0.75},
    "class_names": {2: ["zero", "one", "two"], 3: ["zero", "one"]},
}


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: f"{kind[0]}_{kind[1]}d")
@pytest.mark.parametrize("name", [*CHANGES, "network_def"])
def test_inference_has_every_value_of_the_training(kind, name, finetune_scans):
    options = overrides(kind, finetune_scans, Path("/nowhere"))
    if name == "network_def":
        network = {"segmentation": "BasicUNet", "classification": "resnet10"}[kind[0]]
        channels = {"BasicUNet": ("in_channels", "out_channels"), "resnet10": ("n_input_channels", "num_classes")}[
            network
        ]
        values = {
            "_target_": network,
            "spatial_dims": "@spatial_dims",
            channels[0]: 1,
            channels[1]: "$len(@class_names)",
        }
        change = {
            "network_def": values | ({"features": "$[@batch_size] * 6", "act": "relu"} if "UNet" in network else {})
        }
        options = {key: value for key, value in options.items() if not key.startswith("network_def#")}
    elif kind[1] in CHANGES[name] and name in config(kind, "train"):
        change = {name: CHANGES[name][kind[1]]}
    else:
        return  # these images or networks have no such value
    trained = ConfigParser(config(kind, "train"))
    trained.update(options | change)
    made = make_inference_config(trained.get(), config(kind, "inference"))
    assert "batch_size" not in json.dumps(made["network_def"])
    torch.manual_seed(5)
    state = ConfigParser(made).get_parsed_content("network_def").state_dict()
    images = sorted(Path(options["dataset_dir"], "images").iterdir())
    label = str(images[0]).replace("images", "labels") if kind[0] == "segmentation" else 0
    entry = {"image": str(images[0]), "label": label}
    expected = validation_of(kind, options | change, state)(entry)
    torch.testing.assert_close(inference_of(made, state)(str(images[0])), expected, rtol=1e-4, atol=1e-5)
    if name in ("image_size", "spacing", "axcodes", "intensity_range") or (name, kind[1]) == ("reader", 2):
        shipped = make_inference_config(ConfigParser(config(kind, "train") | {}).get(), config(kind, "inference"))
        other = make_inference_config({**trained.get(), name: config(kind, "train")[name]}, shipped)
        assert not torch.equal(inference_of(other, state)(str(images[0])), expected)  # the value matters
    evaluation = make_evaluation_config(trained.get(), config(kind, "evaluate"), made)
    assert evaluation.get(name, made[name]) == made[name]
    torch.testing.assert_close(outputs_of(evaluation, state)(entry), expected, rtol=1e-4, atol=1e-5)


def test_inference_runs_without_the_package_and_agrees_with_the_validation(finetuned, alone, tmp_path):
    kind, folder, options = finetuned
    made, state = folder / "out/bundle", load(folder / "models/model.pt")
    images = Path(options["dataset_dir"]) / "images"
    (few := tmp_path / "few").mkdir()
    for path in sorted(images.iterdir())[:2]:
        (few / path.name).symlink_to(path)
    own = {"bundle_root": str(made), "dataset_dir": str(few), "output_dir": str(tmp_path / "results")}
    alone(config_file=str(made / "configs/inference.json"), **own)
    compute = validation_of(kind, options | {"label_transforms": []}, state)  # what of it needs no package
    for path in few.iterdir():
        label = str(images / path.name).replace("images", "labels") if kind[0] == "segmentation" else 0
        check_result(kind, tmp_path / "results", path, compute({"image": str(path), "label": label}))


def check_result(kind, results, image, output):
    """A saved result is what the validation computes: probabilities, or the largest of logits, in 2D of equal size."""
    if kind[0] == "classification":
        rows = csv.DictReader((results / "probabilities.csv").open())
        (row,) = [row for row in rows if Path(row["file"]).name == image.name]
        told = [float(value) for name, value in row.items() if name != "file"]
        np.testing.assert_allclose(told, output.softmax(0), atol=1e-4)
    else:
        assert (results / (image.name.split(".")[0] + "_seg" + "".join(image.suffixes))).is_file()


@pytest.mark.parametrize("task", TASKS)
def test_evaluation_takes_the_runs_test_list_a_new_folder_or_a_list(task, finetuned_2d, alone, tmp_path):
    folder, options = finetuned_2d[task]
    made, dataset = folder / "out/bundle", Path(options["dataset_dir"])
    listed = json.loads((folder / "out/datalist.json").read_text())
    new = tmp_path / "new"
    for entry in listed["test"]:
        places = {"image": "images", "label": "labels"}
        if task == "classification":
            places = {"image": options["class_names"][entry["label"]]}
        for key, place in places.items():
            (new / place).mkdir(parents=True, exist_ok=True)
            (new / place / Path(entry[key]).name).symlink_to(dataset / entry[key])
    (tmp_path / "list.json").write_text(json.dumps({"test": listed["test"], "dataset_dir": str(dataset)}))
    root = {"bundle_root": str(made), "config_file": str(made / "configs/evaluate.json")}
    ways = {"own": {}, "folder": {"dataset_dir": str(new)}, "list": {"datalist_file": str(tmp_path / "list.json")}}
    for name, way in ways.items():
        alone(**root, **way, output_dir=str(tmp_path / name))
    own, *others = ((tmp_path / name / "metrics.csv").read_text().split() for name in ways)
    assert len(own) >= 4
    for other in others:
        for line, same in zip(own, other, strict=True):
            assert line.split(",")[0] == same.split(",")[0]
            assert float(line.split(",")[1]) == pytest.approx(
                float(same.split(",")[1]), rel=1e-4, nan_ok=True
            )  # sums in another order


@pytest.fixture(scope="module")
def finetuned_2d(finetune_scans, tmp_path_factory):
    """Folder and options of a small 2D training of each task."""
    done = {}
    for task in TASKS:
        folder = tmp_path_factory.mktemp(task)
        done[task] = folder, overrides((task, 2), finetune_scans, folder, max_epochs=1)
        train((task, 2), done[task][1])
    return done


def test_pack_takes_the_folder_of_a_run(finetuned, command, tmp_path):
    _, folder, _ = finetuned
    shutil.copytree(folder / "out", tmp_path / "liver", ignore=shutil.ignore_patterns("evaluation", "phantom"))
    status, output, errors = command("pack", "liver", "liver.zip")
    assert (status, errors) == (0, "")
    assert sorted(names_in("liver.zip")) == sorted(f"liver/{name}" for name in [*NAMES.split(), "SHA256SUMS"])
    status, output, errors = command("verify", "liver.zip")
    assert (status, errors) == (0, "")
    rows = [line for line in output.splitlines() if line.startswith("    ")]
    assert [row for row in rows if "resnet10" not in row] == []  # the one text that this training has changed
    shutil.rmtree(tmp_path / "liver/bundle")
    assert "liver: its training has left no bundle" in refusal(command, "pack", "liver", "other.zip")


def test_the_checks_of_the_model_zoo_pass_and_monai_deploy_serves_it(finetuned, tmp_path, monkeypatch):
    _, folder, options = finetuned
    copy = shutil.copytree(folder / "out/bundle", tmp_path / "liver_segmentation")
    (copy / "eval").mkdir()
    (copy / "eval/schema.json").write_text(json.dumps(SCHEMA))
    monkeypatch.chdir(copy)
    assert missing_files(copy) == []
    call(documented("verify_metadata"))
    call(documented("verify_net_in_out"), device="cpu")
    images = Path(options["dataset_dir"], "images")
    check_deployed(copy, min(images.iterdir()), tmp_path / "own", len(options["class_names"]))


def changed(kind, folder, **values):
    """A configuration file that changes values."""
    (folder / "more.json").write_text(json.dumps(values))
    return [str(bundle(*kind) / "configs/train.json"), str(folder / "more.json")]


def test_changed_transforms_of_the_training_are_those_of_the_inference(finetune_scans, tmp_path):
    kind = ("segmentation", 2)
    transforms = config(kind, "train")["fixed_transforms"]
    flip = {"_target_": "Flipd", "keys": "@keys", "spatial_axis": 0}
    files = changed(kind, tmp_path, fixed_transforms=[*transforms[:-1], flip, transforms[-1]])
    options = overrides(kind, finetune_scans, tmp_path, max_epochs=1)
    monai.bundle.run(config_file=files, **options)
    made = tmp_path / "out/bundle"
    content, state = json.loads((made / "configs/inference.json").read_text()), load(made / "models/model.pt")
    images = sorted(Path(options["dataset_dir"], "images").iterdir())
    entry = {"image": str(images[0]), "label": str(images[0]).replace("images", "labels")}
    expected = validation_of(kind, options | {"fixed_transforms": [*transforms[:-1], flip, transforms[-1]]}, state)(
        entry
    )
    torch.testing.assert_close(inference_of(content, state)(entry["image"]), expected)
    assert any(value.get("_target_") == "Flipd" for value in values_in(content) if isinstance(value, dict))


def test_where_the_inference_cannot_be_told_there_is_no_bundle_and_one_sentence(finetune_scans, tmp_path, capsys):
    kind = ("segmentation", 2)
    post = config(kind, "train")["validate"]["postprocessing"]
    post["transforms"].insert(1, {"_target_": "Lambdad", "keys": "pred", "func": "$lambda p: -p"})
    files = changed(kind, tmp_path, **{"validate#postprocessing": post})
    (tmp_path / "out/bundle/configs").mkdir(parents=True)  # of an earlier training, whose weights go now
    monai.bundle.run(config_file=files, **overrides(kind, finetune_scans, tmp_path))
    assert not (tmp_path / "out/bundle").exists()
    told = [line for line in capsys.readouterr().out.splitlines() if "no bundle" in line]
    assert len(told) == 2  # when it happens, and at the end
    assert re.fullmatch(
        r"\S+/bundle: no bundle of this run is made: postprocessing of inference.json makes .*", told[0]
    )


def test_a_value_that_refers_to_the_training_alone_is_refused_by_name():
    kind = ("segmentation", 3)
    trained = config(kind, "train") | {"spacing": "$@train#inferer"}
    with pytest.raises(InputError, match="spacing refers to train::inferer, which inference"):
        make_inference_config(trained, config(kind, "inference"))


def test_the_shipped_inference_refuses_weights_of_other_values(finetuned):
    kind, folder, options = finetuned
    trained = {name: options[name] for name in ("class_names", "image_size", "ckpt_dir") if name in options}
    others = {
        "class_names": options["class_names"][::-1],
        "intensity_range": [0, 7],
        "image_size": [8, 8, 8][: kind[1]],
    }
    for name, value in {"ckpt_dir": str(folder / "models"), **others}.items():
        parser = ConfigParser(config(kind, "inference") | trained | {name: value})
        refused = pytest.raises(SystemExit, match=f"value of {name} is not that of the training, by .*models/run.json;")
        with refused if name in others else nullcontext():
            parser.get_parsed_content("initialize")


@pytest.mark.parametrize("place", ["shipped", "elsewhere"])
def test_the_shipped_evaluation_refuses_weights_of_other_values(finetuned, place, tmp_path):
    kind, folder, options = finetuned
    own = {key: options[key] for key in options if key.split("#")[0] in ("network_def", "features", "patch_size")}
    own |= {name: options[name] for name in ("ckpt_dir", "class_names")}
    own["image_size"] = [16, 16, 16][: kind[1]]
    shutil.copy(folder / "out/datalist.json", tmp_path)
    own["output_dir"] = options["output_dir"] if place == "shipped" else str(tmp_path)  # without run.json
    files = [str(bundle(*kind) / f"configs/{name}.json") for name in ("train", "evaluate")]
    with pytest.raises(RuntimeError) as caught:
        monai.bundle.run(config_file=files, **own)
    sentence = (
        r"image_size is \[16, .*\] where it was .* in the training, by \S+/models/run\.json; give .*output_dir/bundle"
    )
    assert re.search(sentence, causes(caught.value))
