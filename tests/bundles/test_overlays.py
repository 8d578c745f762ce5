"""Every method beside the bundles' train.json: it parses, trains and leaves a plain network; so do stacks of them."""

import csv
import json
import math
import re

import monai.bundle
import pytest
import torch
from monai.bundle import ConfigParser
from pretrain_bundle import BUNDLES, ROOT, UNET, parsed, run, write_scans
from running import assert_equal_states, load
from small_networks import needs_nnunet

from dira_monai.networks.size_checks import check_patch_size
from dira_monai.transforms.color import Solarize
from dira_monai.transforms.intensity import GaussianBlur, GaussianNoise, IntensityJitter
from dira_monai.transforms.painting import InPainting
from dira_monai.transforms.shuffling import BlockShuffling
from dira_monai.utils.seeded_random import sample_seeds

STANDARD = {"train", "evaluate", "inference", "multi_gpu_train", "metadata"}
NEEDS_WORDS = "transvw"  # runs on what a command found before; its own tests run it
PARTS = {"skin", "masked_dira", "stepwise"}  # leave the objective to the overlay before them
RESTORING = {"masked", "genesis", "autoencoder"}
STAGED = ["barlow_twins", "simsiam", "byol", "simclr"]  # with the stages of DiRA; a test of their own goes through them


def methods(spatial_dims):
    """Names of a bundle's overlays."""
    return sorted(path.stem for path in (BUNDLES[spatial_dims] / "configs").glob("*.json") if path.stem not in STANDARD)


EVERY = [(d, name) for d in BUNDLES for name in methods(d)]
ALONE = [(d, (name,)) for d, name in EVERY if name not in {NEEDS_WORDS, *STAGED}]
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
    found = {d: write_scans(tmp_path_factory.mktemp(f"scans{d}"), d, count=4, size=40) for d in BUNDLES}
    teachers = {d: tmp_path_factory.mktemp("teacher") / f"{d}.pt" for d in BUNDLES}
    for d, path in teachers.items():
        parser = ConfigParser({"spatial_dims": d, "in_channels": 1, "network_def": UNET})
        torch.save(parser.get_parsed_content("network_def").state_dict(), path)
    return found | {"teacher": teachers}


def tiny(spatial_dims, scans, folder, **more):
    """Options of two steps of a tiny network and of a validation; all stages at once."""
    patch_size = [32, 32, 16][:spatial_dims]
    paths = {
        "dataset_dir": str(scans[spatial_dims]),
        "output_dir": str(folder / "out"),
        "ckpt_dir": str(folder / "models"),
    }
    options = {
        "network_def": UNET,
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
    return options | paths | more, own | {"teacher": str(scans["teacher"][spatial_dims])}


def train(spatial_dims, names, scans, folder, **more):
    """Stage and figures of each epoch that train.json with these overlays ran."""
    options, own = tiny(spatial_dims, scans, folder, **more)
    known = set().union(*(raw(spatial_dims, name) for name in ("train", *names)))
    options |= {key: value for key, value in own.items() if key in known}
    if "voco" in names:
        del options["region_size"]  # follows from its grid
    run(spatial_dims, ["train", *names], options)
    with open(folder / "out/metrics.csv") as file:
        rows = list(csv.DictReader(file))
    parser = ConfigParser(raw(spatial_dims, "train"))
    parser.update({"network_def": options["network_def"], "in_channels": 3 if "skin" in names else 1})
    plain = parser.get_parsed_content("network_def")
    plain.load_state_dict(load(folder / "models/model.pt"))
    assert all(tensor.isfinite().all() for tensor in plain.state_dict().values())
    assert (folder / "out/bundle/models/model.pt").samefile(folder / "models/model.pt")
    stages = [row.pop("stage") for row in rows]
    epochs = [{name: float(value) for name, value in row.items() if value} for row in rows]
    assert all(math.isfinite(row[name]) for row in epochs for name in row if not name.startswith("collapse"))
    return list(zip(stages, epochs, strict=True))


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
    [(stage, figures)] = train(spatial_dims, names, scans, tmp_path)
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


@pytest.mark.parametrize("name", STAGED)
def test_a_method_trains_alone_then_with_restoration_then_with_the_adversary(spatial_dims, name, scans, tmp_path):
    options = {"max_epochs": 3, "epoch_length": 1, "stage_epochs": [1, 1, 1]}
    epochs = train(spatial_dims, (name,), scans, tmp_path, **options)
    assert [stage for stage, _ in epochs] == ["di", "dir", "dira"]
    always = {"contrastive", "val_contrastive", "val_mse", "val_loss"}
    restored = {"restoration", "restored_deviation"}
    judged = {"adversarial", "discriminator", "discriminator_accuracy"}
    for (_, figures), added in zip(epochs, (set(), restored, restored | judged), strict=True):
        assert set(figures) & (always | restored | judged) == always | added


@pytest.mark.parametrize("name", [*sorted(RESTORING), "masked_dira", "volume_fusion", "distillation"])
def test_a_resumed_run_equals_an_unbroken_one(name, scans, tmp_path):
    options = {"max_epochs": 2, "stage_epochs": [0, 1, 1]}
    whole = train(2, (name,), scans, tmp_path / "whole", **options)
    [_] = train(2, (name,), scans, tmp_path / "broken", **options, **{"train#trainer#max_epochs": 1})
    broken = train(2, (name,), scans, tmp_path / "broken", **options, resume=True)
    for _, figures in (*whole, *broken):
        del figures["images_per_second"]
    assert broken == whole
    for file in ("checkpoint.pt", "model.pt", "encoder.pt"):
        assert_equal_states(*(load(tmp_path / kind / "models" / file) for kind in ("broken", "whole")))


@pytest.mark.parametrize(("spatial_dims", "names"), STACKED, ids=str)
def test_a_stack_of_methods_trains_all_parts(spatial_dims, names, scans, tmp_path):
    [(stage, figures)] = train(spatial_dims, names, scans, tmp_path)
    assert stage == "dira"
    assert {"contrastive", "restoration", "adversarial", "discriminator", "val_contrastive"} <= set(figures)
    assert ("gradient_penalty" in figures) == ("stepwise" in names)


def test_a_masked_run_is_evaluated_by_the_same_overlay(scans, tmp_path):
    [(_, figures)] = train(2, ("masked",), scans, tmp_path)
    options, _ = tiny(2, scans, tmp_path)
    run(2, ["train", "masked", "evaluate"], options)
    found = json.loads((tmp_path / "out/evaluation/evaluation.json").read_text())
    assert set(found) == {name for name in figures if name.startswith("val_")}
    assert all(found[name] == pytest.approx(figures[name], rel=1e-4, abs=1e-6) for name in found)
    made = tmp_path / "out/bundle"  # which has the overlay written in
    monai.bundle.run(config_file=str(made / "configs/evaluate.json"), bundle_root=str(made))
    assert json.loads((made / "evaluation/evaluation.json").read_text()) == pytest.approx(found, rel=1e-5)


def test_published_values_of_stepwise_and_masked(spatial_dims):
    stepwise, masked = raw(spatial_dims, "stepwise"), raw(spatial_dims, "masked")
    weights = tuple(stepwise[f"{name}_weight"] for name in ("contrastive", "restoration", "adversarial"))
    assert (weights, stepwise["gan"], stepwise["gradient_penalty"]) == ((1, 100, 1), "wgan", 100)
    assert stepwise["conditional"]
    parser = ConfigParser(raw(spatial_dims, "train") | {"max_epochs": 10, "stage_epochs": stepwise["stage_epochs"]})
    assert parser.get_parsed_content("stage_epochs") == [3, 3, 4]
    masking = ConfigParser(raw(spatial_dims, "train") | {"masking": masked["masking"]}).get_parsed_content("masking")
    assert (masking.ratio, masking.block_size) == (0.6, {2: (16, 16), 3: (8, 8, 8)}[spatial_dims])
    assert raw(spatial_dims, "masked_dira")["masking"] == masked["masking"]


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


def shipped(spatial_dims, names):
    """Parser of train.json with overlays, and the values at their top; the network is one of shapes alone."""
    base = list(raw(spatial_dims, "train"))
    wiring = {*base[base.index("imports") :], "_desc_"}
    parser = parsed(spatial_dims, ["train", *names])
    keys = [key for key in parser.get() if key not in wiring]
    with torch.device("meta"):
        return parser, {key: parser.get_parsed_content(key) for key in keys}


@pytest.mark.parametrize(("spatial_dims", "names"), [*((d, (n,)) for d, n in EVERY), *STACKED], ids=str)
def test_shipped_values_fit_together(spatial_dims, names):
    parser, values = shipped(spatial_dims, names)
    stages, patch_size, region_size = (values[key] for key in ("stage_epochs", "patch_size", "region_size"))
    assert stages is None or (len(stages) == 3 and min(stages) >= 0 and sum(stages) == values["max_epochs"])
    assert values["warmup_epochs"] < values["max_epochs"]
    assert values["learning_rate"] > 0
    check_patch_size(values["network_def"], patch_size)
    assert all(region >= patch for region, patch in zip(region_size, patch_size, strict=True))
    image = torch.rand(1, values["in_channels"], *region_size)
    views = parser.get_parsed_content("views")(image, sample_seeds(0, 0, 1))
    assert list(views["query"].shape[2:]) == list(views["target"].shape[2:]) == patch_size
    if values["local_count"] > 0:
        check_patch_size(values["network_def"], values["local_size"])
        assert list(views["local"].shape[1:]) == [values["local_count"], values["in_channels"], *values["local_size"]]


def test_the_documented_table_has_every_method_and_its_weights(spatial_dims):
    text = (ROOT / "docs/objectives.md").read_text()
    table = re.findall(r"^\| \[.+\]\(\S*#.+\) \| `(\w+)` \| (2D.*?) \| (.+?) \|", text, re.MULTILINE)
    told = {name: weights for name, bundles, weights in table if f"{spatial_dims}D" in bundles}
    assert sorted(told) == methods(spatial_dims)
    for name, weights in told.items():
        base, config = raw(spatial_dims, "train"), raw(spatial_dims, "train") | raw(spatial_dims, name)
        of_base, found = (
            [values[f"{loss}_weight"] for loss in ("contrastive", "restoration", "adversarial")]
            for values in (base, config)
        )
        own = next((part for part in weights.split("; ") if f"in {spatial_dims}D" in part), weights).split(" in ")[0]
        assert found == ([float(n) for n in own.split(", ")] if own[0].isdigit() else of_base), name


PRESETS = [  # what reaches the parts of a run, by method and bundles
    ((2, 3), "barlow_twins", {"objective_def#redundancy_weight": 0.0051}),
    ((2,), "barlow_twins", {"objective_def#scale": 0.024, "objective_def#embedding_size": 256}),
    ((3,), "barlow_twins", {"objective_def#scale": 0.1, "objective_def#embedding_size": 64}),
    ((2, 3), "byol", {"objective_def#momentum": 0.996, "objective_def#final_momentum": 1.0}),
    ((2, 3), "byol", {"objective_def#embedding_size": 256}),
    ((3,), "byol", {"optimizer_name": "Adam", "learning_rate": 0.0001}),
    ((2, 3), "simclr", {"objective_def#temperature": 0.1}),
    ((2,), "simclr", {"objective_def#embedding_size": 128}),
    ((3,), "simclr", {"objective_def#embedding_size": 256}),
    ((2, 3), "gravis", {"views#count": 4, "views#crop#steps#1#degrees": 10, "objective_def#attention": "smooth_ap"}),
    ((2, 3), "gravis", {"objective_def#temperature": 0.2, "objective_def#normalized": False}),
    ((2, 3), "gravis", {"objective_def#embedding_size": 128}),
    ((2,), "gravis", {"train#trainer#max_epochs": 240, "train#dataloader#batch_size": 16}),
    ((2, 3), "pcrlv2", {"train#trainer#max_epochs": 240, "views#local_count": 6, "objective_def#levels": None}),
    ((2, 3), "pcrlv2", {"views#crop#steps#0#scale": [0.3, 1.0], "views#crop#steps#1#degrees": 10}),
    ((2,), "pcrlv2", {"restoration_weight": 20, "objective_def#middle_weight": 20}),
    ((3,), "pcrlv2", {"restoration_weight": 1, "objective_def#middle_weight": 1}),
    ((2,), "pcrlv2", {"local_crop#steps#0#patch_size": [96, 96], "local_crop#steps#0#scale": [0.05, 0.3]}),
    ((3,), "pcrlv2", {"local_crop#steps#0#patch_size": [32, 32, 32], "local_crop#steps#0#scale": [0.005, 0.05]}),
    ((2,), "voco", {"views#grid": [3, 3], "views#patch_size": [128, 128], "train#dataset#region_size": [384, 384]}),
    ((3,), "voco", {"views#grid": [4, 4, 1], "views#patch_size": [64, 64, 32]}),
    ((3,), "voco", {"train#dataset#region_size": [256, 256, 32]}),
    ((2, 3), "voco", {"objective_def#regularization_weight": 1, "objective_def#embedding_size": 128}),
]


@pytest.mark.parametrize(
    ("spatial_dims", "name", "values"), [(d, name, values) for dims, name, values in PRESETS for d in dims]
)
def test_published_values_reach_their_parts(spatial_dims, name, values):
    parser = parsed(spatial_dims, ["train", name])
    assert {key: parser.get_parsed_content(key) for key in values} == values


def blur(share, widest=2.0):
    return GaussianBlur([0.1, widest], share)


CUTOUT = InPainting(3, [0.1429, 0.1429], margin=0, stop=0)
NOISE = GaussianNoise(0.05, 0.5)
STRONG, WEAK = IntensityJitter(0.4, 0.4, probability=0.8), IntensityJitter(0.2, 0.2, probability=0.8)
CHANGES = [  # photometric ones of the first view, of the others
    (2, "barlow_twins", [STRONG, blur(1.0)], [STRONG, blur(0.1), Solarize(0.5, 0.2)]),
    (2, "byol", [STRONG, blur(1.0)], [STRONG, blur(0.1), Solarize(0.5, 0.2)]),
    (3, "barlow_twins", [WEAK, blur(1.0, 1.0), NOISE], [WEAK, blur(0.1, 1.0), NOISE]),
    (3, "byol", [WEAK, blur(1.0, 1.0), NOISE], [WEAK, blur(0.1, 1.0), NOISE]),
    (2, "simclr", *2 * [[IntensityJitter(0.8, 0.8, probability=0.8), blur(0.5)]]),
    (2, "simsiam", *2 * [[STRONG, blur(0.5)]]),
    (2, "gravis", *2 * [[IntensityJitter(0.4, 0.4, probability=1.0), blur(0.5), CUTOUT]]),
    (3, "gravis", *2 * [[WEAK, blur(0.5, 1.0), NOISE, CUTOUT]]),
    (2, "pcrlv2", *2 * [[blur(0.5), IntensityJitter(0.4, 0.4, probability=1.0)]]),
    (3, "pcrlv2", *2 * [[blur(0.5, 1.0), NOISE, IntensityJitter(0, 0, gamma=0.35, probability=1.0)]]),
]


def described(steps):
    return [(type(step).__name__, vars(step)) for step in steps]


@pytest.mark.parametrize(("spatial_dims", "name", "first", "others"), CHANGES)
def test_published_changes_of_the_views(spatial_dims, name, first, others):
    views = parsed(spatial_dims, ["train", name]).get_parsed_content("views")
    assert described(views.photometric) == described(first)
    assert described(views.other_photometric) == described(others)


@pytest.mark.parametrize(("spatial_dims", "distortion"), [(2, CUTOUT), (3, BlockShuffling(100, [0.0625, 0.125]))])
def test_pcrlv2_restores_its_published_distortion(spatial_dims, distortion):
    views = parsed(spatial_dims, ["train", "pcrlv2"]).get_parsed_content("views")
    assert described(views.distortions) == described([distortion])


@pytest.mark.parametrize(("spatial_dims", "name"), [(2, "train"), (3, "train"), (3, "byol")])
def test_pretrained_weights_are_where_both_branches_start(spatial_dims, name, scans, tmp_path, capsys):
    options, _ = tiny(spatial_dims, scans, tmp_path)
    torch.manual_seed(1)
    torch.save(parsed(spatial_dims, ["train"], **options).get_parsed_content("network").state_dict(), tmp_path / "1.pt")
    given = {"pretrained": str(tmp_path / "1.pt"), "start_from": "none.pt"}
    torch.manual_seed(2)
    parser = parsed(spatial_dims, ["train", name], **options, **given)
    assert_equal_states(parser.get_parsed_content("network").state_dict(), load(tmp_path / "1.pt"))
    slow = parser.get_parsed_content("objective").key_encoder.state_dict()
    assert all(torch.equal(tensor, load(tmp_path / "1.pt")[key]) for key, tensor in slow.items())
    assert "100.0% of the network" in capsys.readouterr().out
    evaluation = parsed(spatial_dims, ["train", name, "evaluate"], **options, **given)
    evaluation.get_parsed_content("network")
    assert capsys.readouterr().out == ""


@needs_nnunet
def test_network_of_nnunet_is_pretrained(scans, tmp_path):
    network = {
        "_target_": "dynamic_network_architectures.architectures.unet.ResidualEncoderUNet",
        **{"input_channels": "@in_channels", "num_classes": "@in_channels", "n_stages": 3, "strides": [1, 2, 2]},
        **{"features_per_stage": [4, 8, 8], "n_blocks_per_stage": [1, 1, 1], "n_conv_per_stage_decoder": [1, 1]},
        **{"conv_op": "$torch.nn.Conv3d", "kernel_sizes": [[3, 3, 1], [3, 3, 3], [3, 3, 3]], "conv_bias": True},
        **{"norm_op": "$torch.nn.InstanceNorm3d", "norm_op_kwargs": {"affine": True}},
        **{"nonlin": "$torch.nn.LeakyReLU", "nonlin_kwargs": {"inplace": True}},
    }
    options, _ = tiny(3, scans, tmp_path, network_def=network)
    run(3, ["train"], options)
    model, encoder = load(tmp_path / "models/model.pt"), load(tmp_path / "models/encoder.pt")
    fresh = parsed(3, ["train"], **options, pretrained=str(tmp_path / "models/encoder.pt"))
    state = fresh.get_parsed_content("network").state_dict()
    assert_equal_states(dict(encoder), {key: state[key] for key in encoder})
    fresh.get_parsed_content("network").load_state_dict(model)  # strict, as stock MONAI loads it


def test_resumed_run_does_not_read_pretrained_weights(scans, tmp_path, capsys):
    options = tiny(2, scans, tmp_path)[0] | {"epoch_length": 1}
    torch.save(parsed(2, ["train"], **options).get_parsed_content("network").state_dict(), tmp_path / "1.pt")
    run(2, ["train"], options | {"pretrained": str(tmp_path / "1.pt"), "resume": True})  # nothing to resume
    assert "100.0% of the network" in capsys.readouterr().out
    (tmp_path / "1.pt").unlink()
    before = load(next(tmp_path.rglob("checkpoint.pt")))
    run(2, ["train"], options | {"pretrained": str(tmp_path / "1.pt"), "resume": True})  # goes on after its last epoch
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("pretrained:")]
    assert said == [f"pretrained: {tmp_path / '1.pt'}, all weights come from {tmp_path / 'models/checkpoint.pt'}"]
    assert_equal_states(load(next(tmp_path.rglob("checkpoint.pt")))["network"], before["network"])


def test_views_of_distillation_stay_where_the_teacher_saw_them(spatial_dims):
    """Whatever crops and flips are given: the teacher's map belongs to the region."""
    parser = parsed(spatial_dims, ["train", "distillation"])
    parser.update({"patch_size": [8] * spatial_dims, "flip_axes": [0], "crop_scale": [0.2, 0.5], "photometric": []})
    images = torch.rand(4, 1, *[8] * spatial_dims)
    views = parser.get_parsed_content("views")(images, sample_seeds(0, 0, 4), distort=False)
    assert torch.equal(views["query"], images)
    assert torch.equal(views["target"], images)
