"""Evaluation and features of finished runs."""

import csv
import hashlib
import json
import shutil

import finetune_bundle
import numpy as np
import pretrain_bundle
import pytest
import torch
from monai.bundle import ConfigParser
from monai.inferers import SlidingWindowInferer
from running import load

from dira_monai import InputError, embed, evaluate, finetune, infer
from dira_monai.networks.encoder_decoder import encode

FEW = {"max_epochs": 1, "epoch_length": 2}


@pytest.fixture(scope="module")
def pretrained(pretrain_scans, tmp_path_factory):
    """A run in 3D by MONAI's own command, with the weights elsewhere."""
    folder = tmp_path_factory.mktemp("pretrained")
    pretrain_bundle.run(3, ["train"], pretrain_bundle.overrides(3, pretrain_scans, folder, **FEW))
    return folder / "out"


@pytest.fixture(scope="module")
def classified(finetune_scans, tmp_path_factory):
    """A run in 2D by ``finetune``."""
    options = finetune_bundle.SMALL | finetune_bundle.OWN["classification", 2] | FEW
    folder = tmp_path_factory.mktemp("classified")
    return finetune(finetune_scans[2], task="classification", run=folder, hours=None, **options)


def test_evaluate_gives_the_numbers_of_the_bundle(pretrained, pretrain_scans, tmp_path):
    found = evaluate(pretrained) / "evaluation.json"
    options = pretrain_bundle.overrides(3, pretrain_scans, tmp_path, **FEW, ckpt_dir=str(pretrained.parent / "models"))
    pretrain_bundle.run(3, ["train", "evaluate"], options)
    expected = tmp_path / "out/evaluation/evaluation.json"
    assert json.loads(found.read_text()) == json.loads(expected.read_text())


def test_evaluate_measures_the_test_images(classified, finetune_scans, tmp_path):
    shutil.copytree(classified, tmp_path / "out")
    found = evaluate(classified, tensorboard=False)
    assert found == classified / "evaluation"
    assert not (found / "tensorboard").exists()
    kind = ("classification", 2)
    options = finetune_bundle.overrides(kind, finetune_scans, tmp_path, **FEW, ckpt_dir=str(classified / "models"))
    finetune_bundle.train(kind, options, ("train", "evaluate"))
    assert (found / "metrics.csv").read_text() == (tmp_path / "out/evaluation/metrics.csv").read_text()
    for name in ("configs/metadata.json", "docs/README.md"):
        assert (classified / "bundle" / name).read_text() == (tmp_path / "out/bundle" / name).read_text()


def scores_of(run):
    """The scores in the metadata of a run's bundle, after a look at its card."""
    scores = json.loads((run / "bundle/configs/metadata.json").read_text()).get("test_metrics")
    card = (run / "bundle/docs/README.md").read_text()
    assert card.count("| metric of the test images (4 of 4 patients) | value |") == (scores is not None)
    for name, value in (scores or {"metrics": {}})["metrics"].items():
        assert f"| {name} | {value:.4g} |" in card
    return scores


def test_the_card_has_the_test_scores_of_its_weights_alone(classified, finetune_scans, tmp_path, capsys):
    run = shutil.copytree(classified, tmp_path / "run")
    evaluate(run)
    told = dict(line.split(",") for line in (run / "evaluation/metrics.csv").read_text().split())
    reached = {name.replace("val_", "test_"): float(value) for name, value in told.items() if value != "nan"}
    scores = scores_of(run)
    assert scores["metrics"] == pytest.approx(reached, rel=1e-5)
    assert scores["weights_sha256"] == hashlib.sha256((run / "bundle/models/model.pt").read_bytes()).hexdigest()
    evaluate(run, split="validation")
    assert scores_of(run) == scores  # those of test, once
    options = finetune_bundle.SMALL | finetune_bundle.OWN["classification", 2] | FEW
    again = {**options, "run": run, "resume": True, "hours": None, "val_interval": 5}
    finetune(finetune_scans[2], task="classification", **again | {"max_epochs": 2})
    assert scores_of(run) == scores  # nothing was validated: the weights are those of before
    state = load(run / "models/model.pt")
    torch.save({name: value + 1 for name, value in state.items()}, run / "models/model.pt")
    evaluate(run, model_path=str(run / "models/model.pt"))
    assert "bundle: its model card does not get these scores, which are of other weights" in capsys.readouterr().out
    assert scores_of(run) == scores
    finetune(finetune_scans[2], task="classification", **again | {"max_epochs": 3})
    assert scores_of(run) is None


@pytest.mark.parametrize("verb", [evaluate, lambda run: embed(run, ".")])
def test_no_run(verb, tmp_path):
    with pytest.raises(InputError, match="holds no run; give the folder that a training named, its --run or --output"):
        verb(tmp_path)
    (tmp_path / "run.json").write_text(json.dumps({"starts": [{"config": {"bundle_root": "b"}}]}))
    with pytest.raises(InputError, match="its training has left no bundle; the log of the training says why"):
        verb(tmp_path)


def test_evaluate_refuses(pretrained):
    with pytest.raises(InputError, match=r"--bath_size is no value .* did you mean --batch_size\?"):
        evaluate(pretrained, bath_size=3)
    with pytest.raises(InputError, match="--output_dir cannot be given: it is that of the run"):
        evaluate(pretrained, output_dir="x")


def read_table(path):
    rows = list(csv.reader(path.open()))
    return [row[0] for row in rows[1:]], np.array([row[1:] for row in rows[1:]], dtype=np.float32)


def test_embed_averages_the_deepest_map(pretrained, pretrain_scans, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = embed(pretrained, pretrain_scans[3], device="cpu")
    assert path == pretrained / f"embeddings/{pretrain_scans[3].name}.csv"
    files, features = read_table(path)
    assert files == sorted(str(file) for file in pretrain_scans[3].iterdir())
    parser = ConfigParser(json.loads((pretrained / "run.json").read_text())["starts"][0]["config"])
    network = parser.get_parsed_content("network_def").eval()
    network.load_state_dict(load(pretrained.parent / "models/model.pt"))
    parser["cache_dtype"] = "float32"  # a training rounds to 16 bits what it stores
    image = parser.get_parsed_content("train#preprocessing")({"image": files[2]})["image"]
    assert image.shape[1:] == (48, 48, 48)  # two windows of 32, 32, 16 and one that ends with the image
    windows = [
        image[:, x : x + 32, y : y + 32, z : z + 16].float()[None]
        for x in (0, 16)
        for y in (0, 16)
        for z in (0, 16, 32)
    ]
    with torch.no_grad():
        means = [encode(network, window)[-1].mean((2, 3, 4)) for window in windows]
    np.testing.assert_allclose(features[2], torch.cat(means).mean(0), rtol=1e-5)
    maps = []  # as docs/sharing.md does it with MONAI alone
    network.down_4.register_forward_hook(lambda module, inputs, output: maps.append(output.flatten(2).mean(2)))
    with torch.no_grad():
        SlidingWindowInferer((32, 32, 16), overlap=0)(image[None].float(), network)
    np.testing.assert_allclose(torch.cat(maps).mean(0), torch.cat(means).mean(0), rtol=1e-5)
    assert [*tmp_path.iterdir()] == []


def test_embed_writes_an_array_of_the_same_numbers(pretrained, pretrain_scans, tmp_path):
    path = embed(pretrained, pretrained / "datalist.json", output=tmp_path / "found" / "x.npy")
    features = np.load(path)
    assert (features.shape, features.dtype) == ((5, 8), np.float32)
    listed = json.loads((pretrained / "datalist.json").read_text())
    names = [str(pretrain_scans[3] / entry["image"]) for name in ("training", "validation") for entry in listed[name]]
    files, _ = read_table(path.with_suffix(".csv"))
    assert files == names
    table = embed(pretrained, pretrained / "datalist.json", output=tmp_path / "x.csv")
    assert np.array_equal(read_table(table)[1], features)


ODD = (
    "a b",
    "a#1",
    "a::2",
    "a=1",
    "a,b",
    "a[1]",
    "[a]",
    "a*",
    "a?",
    "{x}",
    "$HOME",
    "%20",
    "@a",
    "a'b",
    'a"b',
    "a;b",
    "-a",
    "~",
    "é ü",
    "日本",
    "1e5",
)


@pytest.mark.parametrize("dims", [2, 3])
def test_embed_names_files_of_whatever_name(dims, classified, pretrained, finetune_scans, pretrain_scans, tmp_path):
    run, images = (classified, finetune_scans[2] / "images") if dims == 2 else (pretrained, pretrain_scans[3])
    sources = sorted(images.iterdir())[:3]
    suffix = ".png" if dims == 2 else ".nii.gz"
    plain, odd = tmp_path / "plain", tmp_path / "o d#d, [1]'s=2 é"
    for folder, names in ((plain, range(3)), (odd, ODD)):
        folder.mkdir()
        for index, name in enumerate(names):
            shutil.copy(sources[index % 3], folder / f"{name}{suffix}")
    _, wanted = read_table(embed(run, plain, device="cpu"))
    path = embed(run, odd, output=odd / "out#1, [x].csv", device="cpu")
    files, features = read_table(path)
    assert sorted(files) == sorted(str(odd / f"{name}{suffix}") for name in ODD)
    numbers = [ODD.index(file.rpartition("/")[2].removesuffix(suffix)) % 3 for file in files]
    assert len({*map(bytes, wanted)}) == 3
    np.testing.assert_array_equal(features, wanted[numbers])


def test_embed_refuses(pretrained, pretrain_scans, tmp_path):
    with pytest.raises(InputError, match=r"output must end with \.csv or \.npy"):
        embed(pretrained, pretrain_scans[3], output="x.txt")
    with pytest.raises(InputError, match="holds no image that can be read"):
        embed(pretrained, tmp_path)
    (tmp_path / "a.nii.gz").write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"a\.nii\.gz cannot be prepared: .*a\.nii\.gz"):
        embed(pretrained, tmp_path)


def test_infer_takes_words_as_the_others_do(pretrain_scans):
    with pytest.raises(InputError, match=r"has no value 'patchsize' to replace by 3; did you mean --patch_size\?"):
        infer(pretrain_bundle.BUNDLES[2], pretrain_scans[2], patchsize=3)


def test_a_fine_tuned_run_needs_no_value_again(classified, finetune_scans, tmp_path):
    images = finetune_scans[2] / "images"
    rows = infer(classified, images / "case0.png", output_dir=str(tmp_path / "results")).rows
    assert [(row.status, row.predicted in ("dark", "bright")) for row in rows] == [("done", True)]
    files, features = read_table(embed(classified, images, device="cpu"))
    assert (len(files), features.shape) == (16, (16, 64))
    parser = ConfigParser(json.loads((classified / "bundle/configs/inference.json").read_text()))
    network = parser.get_parsed_content("network_def").eval()
    network.load_state_dict(load(classified / "models/model.pt"))
    image = parser.get_parsed_content("preprocessing")({"image": files[3]})["image"]
    network.fc = torch.nn.Identity()  # the global average of the deepest map goes into it
    with torch.no_grad():
        expected = network(image.as_tensor().float()[None])[0]
    np.testing.assert_allclose(features[3], expected, rtol=1e-5, atol=1e-6)
