"""Evaluation and inference of the fine-tuning bundles: with stock MONAI alone, in agreement, and what they refuse."""

import csv
import json
import re
from pathlib import Path

import monai.bundle
import nibabel as nib
import numpy as np
import pytest
import torch
from finetune_bundle import KINDS, TASKS, bundle, config, configs, later, values_in
from monai.bundle import ConfigParser, ConfigWorkflow
from PIL import Image
from programs import run_python, without_the_package
from running import causes, command_of, load
from scipy.ndimage import binary_erosion
from scipy.spatial.distance import cdist

from dira_monai.utils.errors import InputError, find_input_error

EVALUATION, INFERENCE = ["train", "evaluate"], ["inference"]


def run_files(kind, files, **options):
    """Run configs of a bundle in this process."""
    monai.bundle.run(config_file=configs(kind, files), **options)


def targets(content):
    return [value["_target_"] for value in values_in(content) if isinstance(value, dict) and "_target_" in value]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["inference", "evaluate"])
def test_inference_and_evaluation_name_nothing_but_stock_parts(kind, name):
    content = config(kind, name)
    if name == "evaluate":  # all but what is done where the package is there: record, page and errors in a sentence
        for part in ("initialize", "run"):
            own = [word for word in content[part] if "dira_monai" in word]
            assert all(word.startswith("$@package and dira_monai.") for word in own)
            content[part] = []
        assert content.pop("package") == "$importlib.util.find_spec('dira_monai')"
        dataset = content.pop("validate#dataset#_target_")
        assert dataset == "$dira_monai.CheckedCacheDataset if @package else monai.data.CacheDataset"
        assert content.pop("bundle_root") == "$dira_monai.bundle_root() if @package else '.'"
        for name in ("RunRecord", "BundleScores", "HtmlReport"):
            own = content["validate#handlers"].pop(0)
            assert (own["_target_"], own["_disabled_"]) == (f"dira_monai.{name}", "$@package is None")
    assert not [target for target in targets(content) if "." in target and not target.startswith(("torch.", "monai."))]
    content.pop("_desc_", None)
    assert "dira_monai" not in json.dumps(content)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("name", "lines"), [("train", 300), ("inference", 130), ("evaluate", 130)])
def test_configs_are_values_and_no_programs(kind, name, lines):
    text = (bundle(*kind) / f"configs/{name}.json").read_text()
    assert len(text.splitlines()) <= lines
    assert name != "train" or max(map(len, text.splitlines())) <= 120
    content = json.loads(text)
    places = [key for value in values_in(content) if isinstance(value, dict) for key in value]
    expressions = [value for value in values_in(content) if isinstance(value, str) and value[:1] == "$"]
    assert [word for word in expressions if re.search(r"\bsys\.|\bre\.|import (sys|re|itk)\b", word)] == []
    assert [word for word in expressions + places if re.search(r"(#|::)-?\d+(#|::|\b)", word)] == []
    assert [word for word in expressions if len(word) > 100] == []
    assert sum("glob." in word for word in expressions) == (name == "inference")
    if name == "inference":
        assert content["bundle_root"] == "."


@pytest.mark.parametrize("task", TASKS)
def test_2d_and_3d_infer_by_the_same_body(task):
    bodies = []
    for dims in (2, 3):
        names = list(content := config((task, dims), "inference"))
        bodies.append({name: content[name] for name in names[names.index("imports") :]})
    assert bodies[0] == bodies[1]


@pytest.mark.parametrize("kind", KINDS)
def test_train_and_inference_agree(kind):
    train, inference = config(kind, "train"), config(kind, "inference")
    shared = set(list(train)[: list(train).index("imports")]) & set(inference)
    assert shared >= {"class_names", "image_size", "intensity_range", "spacing", "axcodes", "network_def"}
    for key in shared - {"bundle_root", "output_dir", "dataset_dir"}:
        assert train[key] == inference[key], key
    pred = config(kind, "metadata")["network_data_format"]["outputs"]["pred"]
    assert list(pred["channel_def"].values()) == train["class_names"]
    assert pred["num_channels"] == len(train["class_names"])


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


def test_evaluation_and_inference_run_without_the_package_and_agree(finetuned, tmp_path):
    kind, folder, options = finetuned
    task, dims = kind
    dataset = Path(options["dataset_dir"])
    own, bundle_of_run, results = later(options), str(folder / "out/bundle"), tmp_path / "evaluation"
    runs = [
        (configs(kind, EVALUATION), own | {"output_dir": options["output_dir"], "evaluation_dir": str(results)}),
        (configs(kind, INFERENCE), own | {"dataset_dir": str(dataset / "images"), "output_dir": str(tmp_path)}),
        (f"{bundle_of_run}/configs/evaluate.json", {"bundle_root": bundle_of_run, "output_dir": f"{tmp_path}/own"}),
    ]
    result = without_the_package(runs)
    assert result.returncode == 0, result.stderr
    assert not (results / "run.json").exists()
    told = (results / "metrics.csv").read_text()
    assert (tmp_path / "own/metrics.csv").read_text() == told  # which has the values of the training in itself
    metrics = dict(line.split(",") for line in told.split())
    listed = json.loads((folder / "out/datalist.json").read_text())["test"]
    if task == "classification":
        rows = list(csv.DictReader((tmp_path / "probabilities.csv").open()))
        assert list(rows[0]) == ["file", "dark", "bright"]
        told = {Path(row["file"]).name: [float(row["dark"]), float(row["bright"])] for row in rows}
        assert len(told) == 16
        assert all(sum(p) == pytest.approx(1, abs=1e-4) for p in told.values())
        check_figures(metrics, told, listed, options["class_names"])
        again = (results / "predictions.csv").read_text().split()
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


@pytest.mark.parametrize("kind", KINDS)
def test_inference_takes_the_images_of_one_folder_or_those_that_are_listed(tmp_path, monkeypatch, kind):
    suffix = {2: ".png", 3: ".nii.gz"}[kind[1]]
    for name in (f"br[1]/c{suffix}", f"br[1]/B{suffix.upper()}", "br[1]/notes.txt", f"br[1]/labels/c{suffix}"):
        (file := tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    monkeypatch.chdir(tmp_path)
    for folder, prefix in (("br[1]", "br[1]"), (str(tmp_path / "br[1]"), str(tmp_path / "br[1]"))):
        parser = ConfigParser(config(kind, "inference") | {"dataset_dir": folder})
        found = [item["image"] for item in parser.get_parsed_content("dataset#data")]
        assert found == [f"{prefix}/B{suffix.upper()}", f"{prefix}/c{suffix}"]
    parser = ConfigParser(config(kind, "inference") | {"datalist": ["a.x", "b/c.x"]})
    assert [item["image"] for item in parser.get_parsed_content("dataset#data")] == ["a.x", "b/c.x"]
    parser = ConfigParser(config(kind, "inference") | {"dataset_dir": "br[1]", "image": "a.x"})
    assert parser.get_parsed_content("dataset#data") == [{"image": "a.x"}]


@pytest.mark.parametrize(
    ("files", "shared"),
    [
        ([], "."),
        (["a.x"], "."),
        (["a.x", "b/c.x"], "."),
        (["b/c.x"], "b"),
        (["../a.x", "b/c.x"], ".."),
        (["s/1/"], "s"),
    ],
)
def test_results_lie_below_the_output_as_images_below_their_folder(tmp_path, monkeypatch, files, shared):
    monkeypatch.chdir(tmp_path)
    parser = ConfigParser(config(("segmentation", 3), "inference") | {"datalist": files})
    found = Path(parser.get_parsed_content("shared_folder")).resolve()
    assert found == (tmp_path / shared).resolve()


def test_weights_and_results_lie_in_the_bundle_root(finetuned, tmp_path):
    kind, folder, options = finetuned
    (tmp_path / "models").symlink_to(folder / "models")
    (tmp_path / "images").mkdir()
    image = min(Path(options["dataset_dir"], "images").iterdir())
    (tmp_path / "images" / image.name).symlink_to(image)
    own = later(options)
    del own["ckpt_dir"]
    run_files(kind, INFERENCE, bundle_root=str(tmp_path), **own)
    assert [path.is_file() for path in (tmp_path / "prediction").iterdir()] == [True]


def reasons(kind, files, options):
    """What the errors say with which a run stops, where the package is not there."""
    options = options | ({"package": None} if files == EVALUATION else {})
    with pytest.raises((RuntimeError, OSError, ValueError)) as caught:
        run_files(kind, files, **options)
    return causes(caught.value)


@pytest.mark.parametrize("kind", KINDS)
def test_evaluation_and_inference_say_what_is_missing(tmp_path, kind):
    options = {"ckpt_dir": str(tmp_path), "output_dir": str(tmp_path)}
    assert "datalist.json" in reasons(kind, EVALUATION, options)
    assert "`dataloader` is empty" in reasons(kind, INFERENCE, options | {"dataset_dir": str(tmp_path)})
    assert "model.pt" in reasons(kind, INFERENCE, options | {"datalist": ["/nowhere.png"]})


def test_inference_names_an_image_that_is_missing(finetuned, tmp_path):
    kind, _, options = finetuned
    own = later(options) | {"output_dir": str(tmp_path), "datalist": ["/nowhere.nii.gz"]}
    assert "/nowhere.nii.gz" in reasons(kind, INFERENCE, own)


def test_evaluation_refuses_an_empty_list_and_other_classes(finetuned):
    kind, _, options = finetuned
    own = later(options) | {"output_dir": options["output_dir"]}
    assert "left" in reasons(kind, EVALUATION, own | {"split": "left"})
    others = options["class_names"][::-1]
    assert f"{others} is not in list" in reasons(kind, EVALUATION, own | {"class_names": others})


def test_weights_of_another_network_are_refused(finetuned, finetune_scans, tmp_path):
    kind, _, options = finetuned
    state = load(Path(options["ckpt_dir"]) / "model.pt")
    torch.save({f"other.{key}": value for key, value in state.items()}, tmp_path / "model.pt")
    own = later(options) | {"output_dir": options["output_dir"], "ckpt_dir": str(tmp_path)}
    assert 'Missing key(s) in state_dict: "' in reasons(kind, EVALUATION, own)
    own["dataset_dir"] = f"{finetune_scans[kind[1]]}/images"
    assert 'Missing key(s) in state_dict: "' in reasons(kind, INFERENCE, own)


@pytest.mark.parametrize(
    "change",
    [{"intensity_range": [0, 77]}, {"spacing": [1.0, 1.0, 1.0]}, {"axcodes": "LPS"}],
    ids=lambda c: next(iter(c)),
)
def test_with_the_package_values_of_another_training_are_refused(finetuned, change):
    kind, folder, options = finetuned
    change = {name: value[: kind[1]] if name == "spacing" else value for name, value in change.items()}
    own = later(options) | {"output_dir": options["output_dir"]}
    with pytest.raises(RuntimeError) as caught:
        run_files(kind, EVALUATION, **own, **change)
    (name, value), record = next(iter(change.items())), re.escape(str(folder / "models/run.json"))
    sentence = rf"{name} is {re.escape(repr(value))} where it was .* in the training, by {record}; give the values"
    assert re.search(sentence, str(find_input_error(caught.value)))


def test_with_the_package_an_evaluation_ends_with_its_sentence(finetuned, tmp_path):
    kind, _, options = finetuned
    (tmp_path / "run.json").write_text("[]")
    own = later(options) | {"output_dir": options["output_dir"], "evaluation_dir": str(tmp_path)}
    with pytest.raises((RuntimeError, InputError)) as caught:
        run_files(kind, EVALUATION, **own)
    told = str(find_input_error(caught.value))
    assert re.search(r"\S+run\.json is no record of runs \(.*\); move it away\.$", told)


@pytest.mark.parametrize("files", [["train"], EVALUATION], ids=lambda files: files[-1])
def test_a_word_that_monai_ignores_is_named_with_its_option(tmp_path, files):
    words = command_of(bundle("classification", 2), files, {"output_dir": str(tmp_path), "intensity_range": "null"})
    result = run_python(words)
    assert result.returncode == 1
    assert "--intensity_range null: write '$None'" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: f"{kind[0]}_{kind[1]}d")
@pytest.mark.parametrize("files", [["train"], EVALUATION, INFERENCE], ids=lambda files: files[-1])
def test_words_of_other_programs_are_not_judged(kind, files, monkeypatch):
    monkeypatch.setattr("sys.argv", ["launch", "--config_file", "cluster.yaml", "--gpus", "None", "--quiet=false"])
    ConfigWorkflow(configs(kind, files), workflow_type="train").initialize()
