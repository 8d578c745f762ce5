"""Every method beside the bundles' train.json: it parses, trains and leaves a plain network; so do stacks of them."""

import csv
import json
import math

import pytest
import torch
from monai.bundle import ConfigParser
from running import load
from test_bundles import BUNDLES, run, write_scans

STANDARD = {"train", "evaluate", "inference", "multi_gpu_train", "metadata"}
NEEDS_WORDS = "transvw"  # runs on what a command found before; its own tests run it
PARTS = {"skin", "masked_dira", "stepwise"}  # leave the objective to the overlay before them
RESTORING = {"masked", "genesis", "autoencoder"}


def methods(spatial_dims):
    """Names of a bundle's overlays."""
    return sorted(path.stem for path in (BUNDLES[spatial_dims] / "configs").glob("*.json") if path.stem not in STANDARD)


EVERY = [(d, name) for d in BUNDLES for name in methods(d)]
ALONE = [(d, (name,)) for d, name in EVERY if name != NEEDS_WORDS]
OBJECTIVES = [(d, name) for d, name in EVERY if name not in {*PARTS, *RESTORING, NEEDS_WORDS}]
STACKED = [
    *((2, (name, "masked_dira")) for d, name in OBJECTIVES if d == 2),
    (3, ("voco", "masked_dira")),
    (2, ("simsiam", "stepwise")),
    (3, ("barlow_twins", "stepwise")),
    (3, ("stepwise", "masked_dira")),
    (2, ("simsiam", "masked_dira", "skin")),
]
every_method = pytest.mark.parametrize(("spatial_dims", "name"), EVERY)


def raw(spatial_dims, name):
    return json.loads((BUNDLES[spatial_dims] / f"configs/{name}.json").read_text())


@pytest.fixture(scope="module")
def scans(tmp_path_factory):
    return {d: write_scans(tmp_path_factory.mktemp(f"scans{d}"), d, count=4, size=40) for d in BUNDLES}


def tiny(spatial_dims, scans, folder, **more):
    """Options of two steps of a tiny network and of a validation; all stages at once."""
    patch_size = [32, 32, 16][:spatial_dims]
    paths = {
        "dataset_dir": str(scans[spatial_dims]),
        "output_dir": str(folder / "out"),
        "ckpt_dir": str(folder / "models"),
    }
    network = {
        "_target_": "BasicUNet",
        "spatial_dims": "@spatial_dims",
        "in_channels": "@in_channels",
        "out_channels": "@in_channels",
        "features": [4, 4, 8, 8, 8, 4],
    }
    options = {
        "network_def": network,
        "patch_size": patch_size,
        "region_size": patch_size,
        "batch_size": 2,
        "epoch_length": 2,
        "max_epochs": 1,
        "stage_epochs": "$None",
        "warmup_epochs": 0,
        "val_samples": 2,
        "queue_size": 8,
        "discriminator_channels": 4,
    }
    own = {"local_size": patch_size, "grid": [2, 1, 1][:spatial_dims], "shuffled_blocks": 5}
    return options | paths | more, own


def train(spatial_dims, names, scans, folder, **more):
    """The row of the one epoch that train.json with these overlays ran."""
    options, own = tiny(spatial_dims, scans, folder, **more)
    known = set().union(*(raw(spatial_dims, name) for name in ("train", *names)))
    options |= {key: value for key, value in own.items() if key in known}
    if "voco" in names:
        del options["region_size"]  # follows from its grid
    run(spatial_dims, ["train", *names], options)
    with open(folder / "out/metrics.csv") as file:
        (row,) = csv.DictReader(file)
    figures = {name: float(value) for name, value in row.items() if name != "stage"}
    parser = ConfigParser(raw(spatial_dims, "train"))
    parser.update({"network_def": options["network_def"], "in_channels": 3 if "skin" in names else 1})
    plain = parser.get_parsed_content("network_def")
    plain.load_state_dict(load(folder / "models/model.pt"))
    assert all(tensor.isfinite().all() for tensor in plain.state_dict().values())
    assert all(math.isfinite(figures[name]) for name in figures if not name.startswith("collapse"))
    return row["stage"], figures


@every_method
def test_an_overlay_says_what_it_is_and_sets_nothing_in_vain(spatial_dims, name):
    overlay, base = raw(spatial_dims, name), raw(spatial_dims, "train")
    assert overlay["_desc_"].startswith("with train.json")
    text = json.dumps(overlay)
    new = [key for key in overlay if "#" not in key and key not in base and key not in ("_desc_", "words")]
    assert [key for key in new if f"@{key}" not in text] == []
    plain = {key: value for key, value in overlay.items() if "#" not in key}
    parents = [key.rsplit("#", 1)[0] for key in overlay if "#" in key]
    assert [parent for parent in parents if parent not in ConfigParser(base | plain)] == []


@pytest.mark.parametrize(("spatial_dims", "names"), ALONE, ids=str)
def test_a_method_trains(spatial_dims, names, scans, tmp_path):
    stage, figures = train(spatial_dims, names, scans, tmp_path)
    config = raw(spatial_dims, "train") | raw(spatial_dims, names[0])
    expected = {
        "contrastive": config["contrastive_weight"] > 0,
        "restoration": config["restoration_weight"] > 0 or config["adversarial_weight"] > 0,
        "adversarial": config["adversarial_weight"] > 0,
    }
    assert {name: name in figures for name in expected} == expected
    assert stage == ["di", "dir", "dira"][expected["restoration"] + expected["adversarial"]]
    assert ("val_contrastive" in figures) == expected["contrastive"]
    assert figures["val_mse"] > 0


@pytest.mark.parametrize(("spatial_dims", "names"), STACKED, ids=str)
def test_a_stack_of_methods_trains_all_parts(spatial_dims, names, scans, tmp_path):
    stage, figures = train(spatial_dims, names, scans, tmp_path)
    assert stage == "dira"
    assert {"contrastive", "restoration", "adversarial", "discriminator", "val_contrastive"} <= set(figures)
    assert ("gradient_penalty" in figures) == ("stepwise" in names)


def test_a_masked_run_is_evaluated_by_the_same_overlay(scans, tmp_path):
    _, figures = train(2, ("masked",), scans, tmp_path)
    options, _ = tiny(2, scans, tmp_path)
    run(2, ["train", "masked", "evaluate"], options)
    found = json.loads((tmp_path / "out/evaluation/evaluation.json").read_text())
    assert set(found) == {name for name in figures if name.startswith("val_")}
    assert all(found[name] == pytest.approx(figures[name], rel=1e-4, abs=1e-6) for name in found)


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_published_values_of_stepwise_and_masked(spatial_dims):
    stepwise, masked = raw(spatial_dims, "stepwise"), raw(spatial_dims, "masked")
    weights = tuple(stepwise[f"{name}_weight"] for name in ("contrastive", "restoration", "adversarial"))
    assert (weights, stepwise["gan"], stepwise["gradient_penalty"]) == ((1, 100, 1), "wgan", 100)
    assert stepwise["conditional"]
    parser = ConfigParser(raw(spatial_dims, "train") | {"max_epochs": 10, "stage_epochs": stepwise["stage_epochs"]})
    assert parser.get_parsed_content("stage_epochs") == [3, 3, 4]
    masking = ConfigParser(raw(spatial_dims, "train") | {"masking": masked["masking"]}).get_parsed_content("masking")
    assert (masking.ratio, masking.block_size) == (0.75, (16,) * spatial_dims)


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_the_chain_of_models_genesis(spatial_dims):
    config = raw(spatial_dims, "train") | {"shuffled_blocks": 5}
    for key, value in raw(spatial_dims, "genesis").items():
        if "#" not in key:
            config[key] = value
    parser = ConfigParser(config)
    local, intensity, paint = parser.get_parsed_content("distortions")
    shares = [torch.diff(step.limits, prepend=torch.zeros(1)) for step in (local, intensity, paint)]
    torch.testing.assert_close(torch.cat(shares), torch.tensor([0.5, 0.9, 0.9 * 0.8, 0.9 * 0.2]))
    assert [type(step.distortions[0]).__name__ for step in (local, intensity, paint)] == [
        "LocalPixelShuffling",
        "NonlinearIntensity",
        "OutPainting",
    ]
    assert parser.get_parsed_content("flip_axes") == list(range(spatial_dims))
    still = (1 - parser.get_parsed_content("flip_probability")) ** spatial_dims
    assert still == pytest.approx(0.6)
