"""The bundles as a user runs them: configs, properties, training, resuming, several processes, bad input."""

import csv
import json
import re
import sys
import time
import warnings
from functools import partial
from itertools import product
from pathlib import Path

import jsonschema
import monai.bundle
import nibabel as nib
import numpy as np
import pytest
import torch
from html_pages import read_page
from meta_schema import check_metadata
from monai.bundle import ConfigParser, ConfigWorkflow
from PIL import Image
from pretrain_bundle import BUNDLES, ROOT, SHIPPED, command, overrides, parsed, run, write_scans
from programs import failure_of, run_python, start
from running import FLOAT64, HELPERS, TORCHRUN, assert_equal_states, execute, load

import dira_monai
from dira_monai.bundle.command_line import bundle_root, check_command_line
from dira_monai.phantoms import chest
from dira_monai.utils.errors import InputError, find_input_error, install_error_hook, silence_needless


@pytest.fixture(scope="module", params=[2, 3])
def trained(request, pretrain_scans, tmp_path_factory):
    """A finished small run: number of axes, its folder and its options."""
    folder = tmp_path_factory.mktemp(f"trained{request.param}")
    options = overrides(request.param, pretrain_scans, folder, SHIPPED, stage_epochs=[0, 1, 1])
    run(request.param, ["train"], options)
    return request.param, folder, options


def test_2d_and_3d_share_their_body():
    configs = [json.loads((bundle / "configs/train.json").read_text()) for bundle in BUNDLES.values()]
    bodies = []
    for config in configs:
        names = list(config)
        bodies.append({name: config[name] for name in names[names.index("imports") :]})
    assert bodies[0] == bodies[1]
    assert list(configs[0]) == list(configs[1])  # the same header keys in the same order
    for name in ("evaluate.json", "multi_gpu_train.json", "logging.conf"):
        assert len({(bundle / "configs" / name).read_text() for bundle in BUNDLES.values()}) == 1


def test_train_is_values_and_no_program(spatial_dims):
    text = (BUNDLES[spatial_dims] / "configs/train.json").read_text()
    assert len(text.splitlines()) <= 300
    expressions = re.findall(r'"(\$[^"]*)"', text)
    assert [word for word in expressions if len(word) > 100 or re.search(r"\b(sys|re)\.", word)] == []


def test_header_has_the_documented_keys():
    wanted = """
        bundle_root dataset_dir output_dir ckpt_dir spatial_dims in_channels patch_size batch_size num_workers cache
        max_epochs epoch_length stage_epochs learning_rate discriminator_learning_rate warmup_epochs val_interval
        precision seed resume contrastive_weight restoration_weight adversarial_weight momentum temperature queue_size
        network_def
    """
    for bundle in BUNDLES.values():
        names = list(json.loads((bundle / "configs/train.json").read_text()))
        assert set(wanted.split()) <= set(names[: names.index("imports")])


def test_paper_values_are_the_defaults_or_those_of_reference(spatial_dims):
    plain, published = (
        json.loads((BUNDLES[spatial_dims] / f"configs/{name}.json").read_text()) for name in ("train", "reference")
    )
    assert (plain["momentum"], plain["queue_size"]) == (None, None)  # they follow from the run
    config = plain | published
    weights = tuple(config[f"{name}_weight"] for name in ("contrastive", "restoration", "adversarial"))
    assert weights == {2: (1, 10, 0.001), 3: (1, 100, 1)}[spatial_dims]
    assert config["patch_size"] == {2: [224, 224], 3: [64, 64, 32]}[spatial_dims]
    assert (config["momentum"], config["temperature"], config["discriminator_learning_rate"]) == (0.999, 0.2, 0.0002)
    views = parsed(spatial_dims, ["train", "reference"]).get_parsed_content("views")
    assert (views.target_steps, views.photometric[1].sigma) == (0, {2: [0.1, 2.0], 3: [0.1, 1.0]}[spatial_dims])
    parser = ConfigParser(config | {"batch_size": 256})  # the batch that the paper's rate and queue belong to
    assert parser.get_parsed_content("queue_size") == 65536
    assert parser.get_parsed_content("learning_rate") == pytest.approx({2: 0.03, 3: 0.001}[spatial_dims])


def test_network_is_the_same_in_train_and_inference(spatial_dims):
    train, inference = (
        json.loads((BUNDLES[spatial_dims] / "configs" / name).read_text()) for name in ("train.json", "inference.json")
    )
    for key in ("network_def", "spatial_dims", "in_channels", "patch_size", "intensity_range", "axcodes", "spacing"):
        assert train[key] == inference[key]


def test_metadata_satisfies_the_schema(spatial_dims):
    metadata = json.loads((BUNDLES[spatial_dims] / "configs/metadata.json").read_text())
    check_metadata(metadata)
    with pytest.raises(jsonschema.ValidationError, match="'outputs' is a required property"):
        check_metadata(metadata | {"discriminator_data_format": {"inputs": {}}})
    constraints = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line)
    pins = metadata["required_packages_version"] | {
        "torch": metadata["pytorch_version"],
        "monai": metadata["monai_version"],
        "numpy": metadata["numpy_version"],
    }
    assert {name: constraints.get(name, version) for name, version in pins.items()} == pins


@pytest.mark.parametrize("kind", ["train", "inference"])
def test_no_property_is_missing(trained, kind):
    spatial_dims, _, options = trained
    configs = BUNDLES[spatial_dims] / "configs"
    options = dict(options) if kind == "train" else {"dataset_dir": options["dataset_dir"], **SHIPPED[spatial_dims]}
    workflow = ConfigWorkflow(
        config_file=str(configs / f"{kind}.json"),
        workflow_type={"train": "train", "inference": "infer"}[kind],
        **options,
    )
    workflow.initialize()
    assert workflow.check_properties() == []


def test_network_passes_monais_checks(trained, tmp_path):
    spatial_dims, folder, _ = trained
    configs = BUNDLES[spatial_dims] / "configs"
    network = {key: value for key, value in SHIPPED[spatial_dims].items() if key.startswith("network_def")}
    monai.bundle.verify_net_in_out(
        net_id="network_def",
        meta_file=str(configs / "metadata.json"),
        config_file=str(configs / "inference.json"),
        device="cpu",
        **network,
    )
    script = tmp_path / "model.ts"
    monai.bundle.ckpt_export(
        net_id="network_def",
        filepath=str(script),
        ckpt_file=str(folder / "models/model.pt"),
        meta_file=str(configs / "metadata.json"),
        config_file=str(configs / "inference.json"),
        **network,
    )
    parser = ConfigParser(json.loads((configs / "inference.json").read_text()))
    parser.update(network)
    plain = parser.get_parsed_content("network_def")
    plain.load_state_dict(load(folder / "models/model.pt"))
    image = torch.rand(1, 1, *SHIPPED[spatial_dims]["patch_size"])
    torch.testing.assert_close(torch.jit.load(str(script)).eval()(image), plain.eval()(image))


def test_a_run_leaves_weights_pictures_and_figures(trained):
    _, folder, _ = trained
    model, encoder = load(folder / "models/model.pt"), load(folder / "models/encoder.pt")
    assert set(encoder) < set(model)
    assert all(torch.equal(encoder[name], model[name]) for name in encoder)
    assert {"model_last.pt", "objective.pt", "checkpoint.pt"} <= {p.name for p in (folder / "models").iterdir()}
    assert not list(folder.rglob("*.tmp"))
    with Image.open(folder / "out/panel.png") as panel:
        assert panel.width > 4 * 200
    assert len(list((folder / "out/panels").iterdir())) == 2
    assert list((folder / "out/tensorboard").iterdir())
    with open(folder / "out/metrics.csv") as file:
        rows = list(csv.DictReader(file))
    assert [row["stage"] for row in rows] == ["dir", "dira"]
    for name in (
        "contrastive",
        "restoration",
        "adversarial",
        "discriminator",
        "val_psnr",
        "val_collapse",
        "val_ssim",
        "momentum",
    ):
        assert np.isfinite(float(rows[-1][name]))
    assert rows[0]["adversarial"] == ""  # no adversary before its stage


def test_a_run_leaves_a_page(trained):
    _, folder, options = trained
    shown = read_page((folder / "out/report.html").read_text())
    assert {"Curves", "Embedding map", "Panels through time", "Chosen values"} <= set(shown.text("h2"))
    assert {"psnr", "collapse", "adversarial"} <= set(shown.text("figcaption"))
    told = shown.text("td")
    rows = {told[i]: told[i + 1 : i + 3] for i, text in enumerate(told) if text in options}
    assert rows["batch_size"] == ["2", "16"]
    assert rows["stage_epochs"][0] == "[0, 1, 1]"
    assert set(options) <= set(rows)
    assert "network_def#norm" not in told  # as shipped


def test_evaluation_repeats_the_best_validation(trained):
    spatial_dims, folder, options = trained
    run(spatial_dims, ["train", "evaluate"], options)
    found = json.loads((folder / "out/evaluation/evaluation.json").read_text())
    with open(folder / "out/metrics.csv") as file:
        rows = list(csv.DictReader(file))
    best = min((row for row in rows if row["stage"] == rows[-1]["stage"]), key=lambda row: float(row["val_loss"]))
    for name, value in found.items():
        assert value == pytest.approx(float(best[name]), rel=1e-4, abs=1e-6)


def pixels_of(path):
    return np.asarray(Image.open(path), float) if path.suffix == ".png" else nib.load(path).get_fdata()


def test_the_bundle_of_a_run_needs_none_of_its_values(trained, tmp_path):
    spatial_dims, folder, options = trained
    made = folder / "out/bundle"
    for name in ("model.pt", "objective.pt"):
        assert (made / "models" / name).samefile(folder / "models" / name)
    metadata = json.loads((made / "configs/metadata.json").read_text())
    check_metadata(metadata)
    assert metadata["network_data_format"]["inputs"]["image"]["spatial_shape"] == options["patch_size"]
    card = (made / "docs/README.md").read_text()
    assert "| training | 4 images of 4 patients |" in card
    assert "inference needs MONAI alone, evaluation dira-monai" in card
    assert not re.search(rf"case\d|{folder.parent}", card + json.dumps(metadata))
    own = {"bundle_root": str(made)}
    monai.bundle.run(config_file=str(made / "configs/evaluate.json"), **own)
    found = json.loads((made / "evaluation/evaluation.json").read_text())
    assert found == pytest.approx(metadata["eval_metrics"], rel=1e-4, abs=1e-6)
    paths = {"dataset_dir": options["dataset_dir"], "output_dir": str(tmp_path / "own")}
    monai.bundle.run(config_file=str(made / "configs/inference.json"), **own, **paths)
    paths = {"dataset_dir": options["dataset_dir"], "output_dir": str(tmp_path / "shipped")}
    run(spatial_dims, ["inference"], SHIPPED[spatial_dims] | paths | {"ckpt_dir": str(folder / "models")})
    files = [path.relative_to(tmp_path / "own") for path in (tmp_path / "own").rglob("*.*")]
    assert len(files) == 10
    for file in files:
        own, shipped = (pixels_of(tmp_path / place / file) for place in ("own", "shipped"))
        # float32 is bound to no order of sums: a gray level of 255 may be rounded the other way
        np.testing.assert_allclose(own, shipped, rtol=0, atol={2: 1, 3: 0.01}[spatial_dims], err_msg=str(file))


def test_inference_of_a_run_needs_no_package(trained, alone, tmp_path):
    spatial_dims, folder, options = trained
    made = folder / "out/bundle"
    assert "dira_monai" not in (made / "configs/inference.json").read_text()
    (new := tmp_path / "new/site").mkdir(parents=True)
    for path in sorted(Path(options["dataset_dir"]).iterdir())[:2]:
        (new / path.name).symlink_to(path)
    paths = {"dataset_dir": str(new.parent), "output_dir": str(tmp_path / "results")}
    alone(config_file=str(made / "configs/inference.json"), bundle_root=str(made), **paths)
    suffix = {2: "png", 3: "nii.gz"}[spatial_dims]
    wanted = [f"case{n}/case{n}_{name}.{suffix}" for n in (0, 1) for name in ("input", "restored")]
    found = sorted(p.relative_to(tmp_path / "results").as_posix() for p in (tmp_path / "results").rglob("*.*"))
    assert found == wanted


VALUES = [{}, {"image_size": 40}, {"intensity_range": None}, {"in_channels": 3}]
GEOMETRY = {"spacing": [3.0, 2.0, 2.5], "axcodes": "LPS"}


@pytest.mark.parametrize(("spatial_dims", "change"), [*product([2, 3], VALUES), (3, GEOMETRY)])
def test_inference_prepares_images_as_the_training_does(spatial_dims, change, pretrain_scans):
    parser = parsed(spatial_dims, ["inference"], **change)
    names = ("in_channels", "image_size", "spacing", "axcodes", "intensity_range")
    own = dira_monai.pretrain_preprocessing(**{name: parser.get_parsed_content(name) for name in names})
    image = {"image": str(min(pretrain_scans[spatial_dims].iterdir()))}
    expected, found = own(image)["image"], parser.get_parsed_content("preprocessing")(image)["image"]
    torch.testing.assert_close(found.as_tensor(), expected.as_tensor(), rtol=1e-5, atol=1e-5)


def test_images_that_stock_monai_reads_otherwise_keep_the_package(pretrain_scans, stranger, tmp_path):
    (data := tmp_path / "data").mkdir()
    for file in pretrain_scans[2].iterdir():  # axial slices with an axis of length 1, which stock readers keep
        array = np.asarray(Image.open(file), np.int16)[..., None]
        nib.save(nib.Nifti1Image(array, np.diag([2.0, 2.0, 4.0, 1.0])), data / f"{file.stem}.nii")
    options = overrides(2, {2: data}, tmp_path / "run", max_epochs=1, stage_epochs=[1, 0, 0])
    run(2, ["train"], options)
    made = tmp_path / "run/out/bundle"
    own = {"bundle_root": str(made), "dataset_dir": str(data), "output_dir": str(tmp_path / "results")}
    monai.bundle.run(config_file=str(made / "configs/inference.json"), **own)
    assert len(list((tmp_path / "results").rglob("*_restored.png"))) == 5
    words = [f"--{name}={value}" for name, value in own.items()]
    result = stranger("-m", "monai.bundle", "run", "--config_file", str(made / "configs/inference.json"), *words)
    sentence = (
        "this bundle needs the package dira-monai, for dira_monai.ScanReader, dira_monai.inference_items; install it"
    )
    assert sentence in result.stderr
    assert "evaluation and inference need dira-monai" in (made / "docs/README.md").read_text()


def test_inference_writes_restoration_and_input_in_the_files_geometry(trained, tmp_path):
    spatial_dims, folder, options = trained
    suffix = {2: "png", 3: "nii.gz"}[spatial_dims]
    image = Path(options["dataset_dir"]) / f"case0.{suffix}"
    paths = {"image": str(image), "output_dir": str(tmp_path), "ckpt_dir": str(folder / "models")}
    run(spatial_dims, ["inference"], SHIPPED[spatial_dims] | paths)
    restored, shown = (tmp_path / "case0" / f"case0_{name}.{suffix}" for name in ("restored", "input"))
    assert restored.exists()
    if spatial_dims == 3:
        original, copy = nib.load(image), nib.load(shown)
        np.testing.assert_allclose(nib.load(restored).affine, original.affine)
        assert nib.load(restored).shape == original.shape
        np.testing.assert_allclose(copy.get_fdata(), original.get_fdata(), atol=0.01)
    else:
        assert Image.open(restored).size == Image.open(image).size
        before, after = (np.asarray(Image.open(file), float) for file in (image, shown))
        assert np.abs(before - after).mean() < 2  # enlarged to the size of the training and back


def test_killed_and_resumed_run_equals_unbroken_run(spatial_dims, pretrain_scans, tmp_path):
    length = {"max_epochs": 4, "epoch_length": 4, "stage_epochs": [1, 1, 2]}
    whole = overrides(spatial_dims, pretrain_scans, tmp_path / "whole", **length)
    unbroken = (execute if spatial_dims == 2 else run_python)(command(spatial_dims, ["train"], whole))
    assert unbroken.returncode == 0, unbroken.stderr
    assert re.findall(r"^epoch (\d)/4 \w+: .*val_loss", unbroken.stdout, re.MULTILINE) == list("1234")
    noted = [] if monai.__version__ == "1.6.0" else ["parsing config_file"]
    assert [line[:19] for line in unbroken.stderr.splitlines()] == noted
    broken = overrides(spatial_dims, pretrain_scans, tmp_path / "broken", **length)
    checkpoint = tmp_path / "broken/models/checkpoint.pt"
    process = start(command(spatial_dims, ["train"], broken))
    deadline = time.monotonic() + 120
    while not (checkpoint.exists() and load(checkpoint)["epoch"] >= 2):
        assert process.is_alive(), "ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.kill()
    process.join()
    assert load(checkpoint)["epoch"] < 4
    left, right = (tmp_path / kind / "out/bundle" for kind in ("broken", "whole"))
    assert {p.relative_to(right) for p in right.rglob("*")} <= {p.relative_to(left) for p in left.rglob("*")}
    resumed = run_python(command(spatial_dims, ["train"], broken | {"resume": True}))
    assert resumed.returncode == 0, resumed.stderr
    assert "resumed from" in resumed.stdout
    assert_equal_states(load(checkpoint), load(tmp_path / "whole/models/checkpoint.pt"))
    for name in ("model.pt", "encoder.pt", "objective.pt"):
        assert_equal_states(load(checkpoint.with_name(name)), load(tmp_path / "whole/models" / name))
    for name in ("configs/inference.json", "configs/evaluate.json", "configs/metadata.json", "docs/README.md"):
        assert (left / name).read_text() == (right / name).read_text()
    assert (left / "models/model.pt").samefile(checkpoint.with_name("model.pt"))
    rows = [list(csv.DictReader((tmp_path / kind / "out/metrics.csv").open())) for kind in ("broken", "whole")]
    for first, second in zip(*rows, strict=True):
        first.pop("images_per_second"), second.pop("images_per_second")
        assert first == second


def figures_of(folder):
    """Numbers of the one epoch of a run, without the clock and what every process takes of its own images alone."""
    (row,) = csv.DictReader((folder / "out/metrics.csv").open())
    own = ("stage", "images_per_second", "collapse", "restored_deviation")
    return {name: float(value) for name, value in row.items() if name not in own}


@pytest.mark.parametrize(
    ("spatial_dims", "methods", "more"),
    [
        (2, [], {}),
        (2, ["barlow_twins"], {"embedding_size": 64, "hidden_size": 64, "optimizer_arguments#trust": 10}),
        (3, ["pcrlv2"], {"local_size": [32, 32, 16], "local_count": 2, "epoch_length": 2}),
    ],
    ids=["moco", "barlow_twins", "pcrlv2"],
)
def test_two_processes_train_like_one(spatial_dims, methods, more, pretrain_scans, tmp_path):
    # In float32 the instance norms of a few voxels and the batch norms of a few samples amplify the rounding of every
    # processor's own order of sums up to a thousandth of val_collapse; in float64 only the written digits are left.
    more = {"max_epochs": 1, "epoch_length": 1, "stage_epochs": "$None", "warmup_epochs": 0} | more
    files = ["train", *methods, FLOAT64]
    two = overrides(spatial_dims, pretrain_scans, tmp_path / "two", **more, batch_size=2)
    words = command(spatial_dims, [*files, "multi_gpu_train"], two)
    result = run_python(words, processes=2) if methods else execute([*TORCHRUN, *words], PYTHONPATH=HELPERS)
    assert result.returncode == 0, result.stderr
    run(spatial_dims, files, overrides(spatial_dims, pretrain_scans, tmp_path / "one", **more, batch_size=4))
    first, second = (figures_of(tmp_path / kind) for kind in ("two", "one"))
    assert {"contrastive", "restoration", "val_contrastive", "val_mse"} < set(first)
    assert first == pytest.approx(second, rel=1e-5, abs=1e-5)
    for part in ("model", "objective"):
        states = [load(tmp_path / kind / f"models/{part}.pt") for kind in ("two", "one")]
        torch.testing.assert_close(*states, atol=1e-8, rtol=0)
    texts = [(tmp_path / kind / "out/bundle/configs/evaluate.json").read_text() for kind in ("two", "one")]
    contents = [{k: v for k, v in json.loads(text).items() if k not in ("batch_size", "queue_size")} for text in texts]
    assert contents[0] == contents[1]  # nothing in it asks for the other process


def test_without_data_the_bundle_makes_phantoms_once(pretrain_scans, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(chest, "chest_ct", partial(chest.chest_ct, shape=(48, 44, 40), spacing=8.0))  # in less time
    options = overrides(3, pretrain_scans, tmp_path, max_epochs=1, epoch_length=1, stage_epochs="$None")
    del options["dataset_dir"]
    run(3, ["train"], options)
    said = [line for line in capsys.readouterr().out.splitlines() if "phantom" in line]
    assert len(said) == 1
    assert "synthetic" in said[0]
    images = sorted((tmp_path / "out/phantom").glob("ct_seed_*/images/*"))
    assert images
    times = [image.stat().st_mtime_ns for image in images]
    run(3, ["train"], options)
    assert [image.stat().st_mtime_ns for image in images] == times


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"dataset_dir": "/nowhere"}, "/nowhere"),
        ({"gradient_clip": -1}, "--gradient_clip must be a number above 0, or None, got -1."),
        ({"patch_size": [48, 50]}, r"patch_size [48, 50] does not fit FlexibleUNet"),
        ({"learning_rate": 1e30, "stage_epochs": "$None"}, "loss is not finite"),
    ],
    ids=["missing folder", "value", "patch size", "diverging"],
)
def test_bad_input_gives_one_sentence(pretrain_scans, tmp_path, change, sentence):
    said = failure_of(command(2, ["train"], overrides(2, pretrain_scans, tmp_path, SHIPPED, **change)))
    assert said.startswith("error: ")
    assert sentence in said


@pytest.mark.parametrize(
    ("words", "instead"),
    [(["--resume", "false"], "False"), (["--intensity_range=null"], r"'\$None'"), (["--spacing", "None"], r"'\$None'")],
)
def test_values_that_would_not_arrive_are_refused(words, instead):
    with pytest.raises(InputError, match=f"write {instead}"):
        check_command_line(["python", "--max_epochs", "2", *words])
    check_command_line(["python", "--resume", "true", "--dataset_dir", "nullspace", "--spacing", "$None"])


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--bath_size", "4"], "--bath_size is no value .* did you mean --batch_size?"),
        (["--netwrk_def#features=[8]"], "--netwrk_def#features is no value .* did you mean --network_def?"),
        (["--zzz", "4"], "--zzz is no value .* at the top of train.json"),
        (["--dataset_dir", "--seed", "1"], "--dataset_dir needs a value"),
        (["--seed", "1", "--dataset_dir"], "--dataset_dir needs a value"),
        (["--validate#embeddings", "key"], "the options: validate#embeddings is no value of .*nothing reads it"),
    ],
)
def test_options_that_would_be_ignored_are_refused(words, sentence):
    files = [f"{BUNDLES[3]}/configs/{name}.json" for name in ("train", "voco")]
    command = ["python", "run", "--config_file", str(files)]
    with pytest.raises(InputError, match=sentence):
        check_command_line([*command, *words])
    known = ["--run_name", "a", "--tracking=mlflow", "--network_def#features", "[8]", "--train#dataset#seed", "1"]
    check_command_line([*command, "--resume", *known, "--bundle-root", ".", "--run_id=run", "--spacing", "[-1, 1, 1]"])
    check_command_line(["python", "--config_file", str(BUNDLES[3] / "configs/inference.json"), "--batch_size", "2"])


@pytest.mark.parametrize("option", ["+train#handlers", "+seed", "+network_def#features"])
@pytest.mark.parametrize("config", ["train", "inference"])
def test_a_plus_is_refused_where_monai_ignores_it(option, config, tmp_path):
    sentence = rf"--\{option} would be ignored: .* give the whole value by --{option[1:]}"
    for words in ([f"--{option}", "[1]"], [f"--{option}=[1]"]):
        with pytest.raises(InputError, match=sentence):
            check_command_line(["python", "run", "--config_file", f"{BUNDLES[3]}/configs/{config}.json", *words])
    if config == "train":
        with pytest.raises(InputError, match=sentence):
            dira_monai.pretrain(tmp_path, dims=3, run=tmp_path / "run", **{option: [1]})


def test_an_overlay_with_a_value_that_nothing_reads_is_refused(tmp_path):
    overlay = tmp_path / "mine.json"
    command = ["python", "run", "--config_file", f"['{BUNDLES[3]}/configs/train.json','{overlay}']"]
    known = {"seed": 1, "width": 8, "train#dataset#seed": "@width", "_desc_": "wider", "+imports": ["$import os"]}
    overlay.write_text(json.dumps(known))
    check_command_line(command)
    for name in ("sead", "train#datset", "validate#key_metric#deep"):
        overlay.write_text(json.dumps(known | {name: 1}))
        with pytest.raises(InputError, match=rf"mine\.json: {name} is no value of .*nothing reads it"):
            check_command_line(command)


@pytest.mark.parametrize(
    "words",
    [
        ["--config_file", "['{0}/train.json','{0}/simsiam.json']"],
        ["--config_file", "{0}/train.json,{0}/simsiam.json"],
        ["--config-file", "{0}/train.json"],
        ["--config-file=('{0}/train.json',)"],
    ],
)
def test_a_config_file_in_each_form_that_monai_takes(monkeypatch, words):
    words = ["python", "run", *(word.format(BUNDLES[3] / "configs") for word in words)]
    monkeypatch.setattr(sys, "argv", words)
    assert bundle_root() == str(BUNDLES[3])
    with pytest.raises(InputError, match=r"did you mean --batch_size\?"):
        check_command_line([*words, "--bath_size", "4"])


def test_a_config_file_with_a_comma_in_its_name(tmp_path, monkeypatch):
    file = tmp_path / "a,b/configs/train.json"
    file.parent.mkdir(parents=True)
    file.write_text("{}")
    monkeypatch.setattr(sys, "argv", ["python", "--config_file", str(file)])
    assert bundle_root() == str(tmp_path / "a,b")


def test_ctrl_c_gives_one_sentence(monkeypatch, capsys):
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    install_error_hook()
    sys.excepthook(KeyboardInterrupt, KeyboardInterrupt(), None)
    assert capsys.readouterr().err == "interrupted; a training goes on behind its last whole epoch with --resume True\n"


def test_what_monai_says_needlessly_is_silenced(caplog):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        silence_needless()
        monai.transforms.LoadImage()  # which says twice that there is no GPU decoder
        warnings.warn("another", stacklevel=1)
    assert [str(warning.message) for warning in caught] == ["another"]
    assert caplog.text == ""


def test_none_arrives_as_an_expression(pretrain_scans, tmp_path):
    options = overrides(3, pretrain_scans, tmp_path, intensity_range="$None")
    workflow = ConfigWorkflow(str(BUNDLES[3] / "configs/train.json"), workflow_type="train", **options)
    assert workflow.parser.get_parsed_content("intensity_range") is None
    transforms = workflow.parser.get_parsed_content("train#preprocessing").transforms
    assert any(isinstance(t, monai.transforms.ScaleIntensityRangePercentilesd) for t in transforms)


def in_process_error(spatial_dims, options):
    """The ``InputError`` that ends a run in this process."""
    with pytest.raises(RuntimeError) as caught:
        run(spatial_dims, ["train"], options)
    error = find_input_error(caught.value)
    assert error is not None, caught.value
    return str(error)


def test_2d_images_in_a_3d_bundle_are_refused(pretrain_scans, tmp_path):
    said = in_process_error(3, overrides(3, pretrain_scans, tmp_path, dataset_dir=str(pretrain_scans[2])))
    assert "case0.png" in said
    assert "spatial_dims is 3" in said


def test_images_in_other_units_are_refused(pretrain_scans, tmp_path):
    said = in_process_error(3, overrides(3, pretrain_scans, tmp_path, intensity_range=[0, 65535]))
    assert "intensity_range [0, 65535]" in said


def test_checkpoint_of_another_network_is_refused_and_kept(trained, tmp_path):
    spatial_dims, folder, options = trained
    other = {2: {"network_def#backbone": "efficientnet-b0"}, 3: {"network_def#features": [4, 8, 8, 8, 8, 4]}}
    before = (folder / "models/checkpoint.pt").read_bytes()
    said = in_process_error(spatial_dims, options | other[spatial_dims] | {"resume": True, "max_epochs": 3})
    assert "is of another network" in said
    assert (folder / "models/checkpoint.pt").read_bytes() == before


def test_bad_files_are_left_out_and_named(tmp_path, capsys):
    folder = write_scans(tmp_path / "pretrain_scans", 3, count=4)
    (folder / "broken.nii.gz").write_bytes((folder / "case0.nii.gz").read_bytes()[:200])
    nib.save(nib.Nifti1Image(np.full((40, 40, 40), 7, np.int16), np.eye(4)), folder / "flat.nii.gz")
    holes = np.random.default_rng(1).normal(size=(40, 40, 40)).astype(np.float32)
    holes[0, 0, 0] = np.nan
    nib.save(nib.Nifti1Image(holes, np.eye(4)), folder / "holes.nii.gz")
    run(3, ["train"], overrides(3, {3: folder}, tmp_path, max_epochs=1, epoch_length=1, stage_epochs="$None"))
    assert "3 skipped" in capsys.readouterr().out
    skipped = json.loads((tmp_path / "out/datalist.json").read_text())["skipped"]
    assert sorted(Path(item["image"]).name for item in skipped) == ["broken.nii.gz", "flat.nii.gz", "holes.nii.gz"]


def test_a_diverging_run_keeps_the_last_good_checkpoint(pretrain_scans, tmp_path):
    options = overrides(3, pretrain_scans, tmp_path, max_epochs=1, stage_epochs="$None")
    run(3, ["train"], options)
    before = (tmp_path / "models/checkpoint.pt").read_bytes()
    more = {"resume": True, "max_epochs": 2, "restoration_weight": 1e39}
    said = in_process_error(3, options | more)
    assert "is not finite" in said
    assert "epoch 2" in said
    assert (tmp_path / "models/checkpoint.pt").read_bytes() == before
