"""The fine-tuning bundles in a MONAI Label server, as a viewer uses them: ``make label-test``."""

import csv
import json
import shutil

import pytest
import torch

pytest.importorskip("monailabel", reason="MONAI Label is not installed here; make label-test has it")

import nibabel as nib
from label.app import (
    CLASSIFICATION_2D,
    ROOT,
    SEGMENTATION_2D,
    SEGMENTATION_3D,
    SMALL,
    check_picture,
    check_probabilities,
    check_volume,
    copy_bundle,
    edit,
    infer,
    network,
    write_picture,
    write_volume,
)
from label.run_label import serving

CASES = 4


@pytest.fixture(scope="module")
def studies(tmp_path_factory):
    """Images of both kinds, and the label maps that an annotator will hand in."""
    folder, labels = tmp_path_factory.mktemp("studies"), tmp_path_factory.mktemp("labels")
    for case in range(CASES):
        nib.save(write_volume(folder / f"ct{case}.nii.gz", case), labels / f"ct{case}.nii.gz")
        write_picture(folder / f"film{case}.png", case).save(labels / f"film{case}.png")
    return folder, labels


@pytest.fixture(scope="module")
def bundles(tmp_path_factory):
    folder = tmp_path_factory.mktemp("app") / "model"
    return {name: copy_bundle(name, folder) for name in (SEGMENTATION_3D, SEGMENTATION_2D, CLASSIFICATION_2D)}


@pytest.fixture(scope="module")
def server(bundles, studies):
    with serving(list(bundles.values()), studies[0]) as running:
        yield running


def ask(server, name, image, folder):
    """The file that ``/infer`` answers, under the suffix of the image."""
    answer = server.ask("POST", f"/infer/{name}?image={image.name.split('.')[0]}&output=image", data=on_cpu())
    file = folder / ("answer" + "".join(image.suffixes))
    file.write_bytes(answer.content)
    return file


def on_cpu():
    return {"params": json.dumps({"device": "cpu"})}


def test_info_names_models_labels_and_trainers(server):
    info = server.ask("GET", "/info/").json()
    assert set(info["models"]) == set(info["trainers"]) == {SEGMENTATION_3D, SEGMENTATION_2D, CLASSIFICATION_2D}
    for name, model in info["models"].items():
        assert model["type"] == name.split("_")[2]
        assert model["dimension"] == int(name[-2])
        metadata = json.loads((ROOT / "bundles" / name / "configs/metadata.json").read_text())
        assert model["version"] == metadata["version"]
    assert info["models"][SEGMENTATION_3D]["labels"] == {"blob": 1, "core": 2}
    assert info["models"][SEGMENTATION_2D]["labels"] == {"blob": 1}


def test_labels_of_a_volume_lie_where_the_volume_lies(server, bundles, studies, tmp_path):
    image = studies[0] / "ct0.nii.gz"
    expected = infer(bundles[SEGMENTATION_3D], image, tmp_path / "own")
    check_volume(ask(server, SEGMENTATION_3D, image, tmp_path), expected, image)


def test_labels_of_a_picture_have_its_pixels(server, bundles, studies, tmp_path):
    image = studies[0] / "film0.png"
    expected = infer(bundles[SEGMENTATION_2D], image, tmp_path / "own")
    check_picture(ask(server, SEGMENTATION_2D, image, tmp_path), expected, image)


def test_classes_of_a_picture_have_the_probabilities_of_the_bundle(server, bundles, studies, tmp_path):
    answer = server.ask("POST", f"/infer/{CLASSIFICATION_2D}?image=film0&output=json", data=on_cpu()).json()
    table = infer(bundles[CLASSIFICATION_2D], studies[0] / "film0.png", tmp_path / "own")
    check_probabilities(answer, table, SMALL[CLASSIFICATION_2D]["class_names"])


def hand_in(server, labels, suffix):
    """Save label maps as a viewer does; Label trains on every image that has one."""
    for label in sorted(labels.glob(f"*{suffix}")):
        with label.open("rb") as file:
            place = f"/datastore/label?image={label.name.removesuffix(suffix)}&tag=final"
            server.ask("PUT", place, files={"label": (label.name, file)})


def parameters_of_slicer(server, name):
    """What the Train button of 3D Slicer 5 sends: every option of ``/info/``, of a list the first."""
    options = server.ask("GET", "/info/").json()["trainers"][name]["config"]
    return {key: value[0] if isinstance(value, list) else value for key, value in options.items()}


def check_training(bundle, started_from):
    """One epoch that moved the weights that it started from, and moved them only a little."""
    (row,) = csv.DictReader((bundle / "output/metrics.csv").open())
    assert float(row["loss"]) > 0
    assert 0 <= float(row["val_mean_dice"]) <= 1
    after = torch.load(bundle / "models/model.pt", weights_only=True)
    kernels = [name for name, value in started_from.items() if value.ndim > 2]
    moves = [(after[name] - started_from[name]).abs().max().item() for name in kernels]
    assert 0 < max(moves) < 0.05  # two steps of Adam at 0.01; of other random weights, the distance is far larger


def test_handed_in_label_maps_retrain_the_served_weights(server, bundles, studies, tmp_path):
    bundle, image = bundles[SEGMENTATION_3D], studies[0] / "ct0.nii.gz"
    before = torch.load(bundle / "models/model.pt", weights_only=True)
    hand_in(server, studies[1], ".nii.gz")
    pressed = parameters_of_slicer(server, SEGMENTATION_3D)
    assert (pressed["run_id"], pressed["model_filename"]) == ("", "model.pt")
    server.train(SEGMENTATION_3D, **pressed | {"max_epochs": 1, "val_split": 0.25})
    assert not (bundle / "output/phantom").exists()
    check_training(bundle, before)
    expected = infer(bundle, image, tmp_path / "own")
    check_volume(ask(server, SEGMENTATION_3D, image, tmp_path), expected, image)  # with the new weights


def test_a_bundle_without_weights_trains_from_pretrained_ones(studies, tmp_path):
    bundle = copy_bundle(SEGMENTATION_2D, tmp_path / "app/model")
    (bundle / "models/model.pt").rename(tmp_path / "pretrained.pt")
    edit(bundle / "configs/train.json", {"pretrained": str(tmp_path / "pretrained.pt"), "seed": 5})
    pictures = tmp_path / "studies"
    pictures.mkdir()
    for case in range(CASES):
        shutil.copy(studies[0] / f"film{case}.png", pictures)
    with serving([bundle], pictures) as server:
        assert server.ask("GET", "/info/").json()["models"] == {}
        hand_in(server, studies[1], ".png")
        server.train(SEGMENTATION_2D, max_epochs=1, val_split=0.25, device="cpu")
        assert "coverage: 100.0% of the encoder" in server.log.read_text()
    check_training(bundle, network(bundle / "configs/inference.json").state_dict())


def test_the_server_stops_when_a_check_fails(bundles, studies):
    seen = []

    def fail():
        with serving([bundles[CLASSIFICATION_2D]], studies[0]) as server:
            seen.append(server)
            server.ask("GET", "/datastore/image?image=nowhere")

    with pytest.raises(AssertionError, match="nowhere"):
        fail()
    with pytest.raises(OSError, match="refused"):
        seen[0].ask("GET", "/info/")
