import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from labeled_files import classify
from monai.networks.nets import BasicUNet
from pretrain_bundle import BUNDLES
from scan_files import write_image, write_nifti
from scipy.optimize import minimize

from dira_monai.apps.probing.classifiers import (
    PENALTIES,
    choose_logistic,
    fit_logistic,
    linear_scores,
    logistic_loss,
)
from dira_monai.apps.probing.evaluate import describe_probe, evaluate_probes, evaluate_subsets
from dira_monai.apps.probing.probe import label_matrix, label_rows, probe
from dira_monai.bundle.config import read_config
from dira_monai.datalists.splits import take_fraction
from dira_monai.metrics import class_auc, knn_scores
from dira_monai.networks.encoder_decoder import encode
from dira_monai.networks.image_features import image_features, standardize
from dira_monai.utils.errors import InputError

pytestmark = pytest.mark.usefixtures("seeded")

CONFIGS = {d: str(bundle / "configs" / "train.json") for d, bundle in BUNDLES.items()}
SMALL = {  # overrides that make the network tiny
    2: {"patch_size": [64, 64], "network_def#backbone": "resnet10", "network_def#decoder_channels": [16, 8, 8, 4, 2]},
    3: {"patch_size": [32, 32, 16], "network_def#features": [4, 4, 8, 16, 32, 4]},
}


def some_labels(count, classes=3, unknown=0.2):
    """Labels of which some are not known, and at least one of each kind in each class is."""
    generator = torch.Generator().manual_seed(1)
    labels = (torch.rand(count, classes, generator=generator) < 0.4).double()
    labels[torch.rand(count, classes, generator=generator) < unknown] = math.nan
    labels[0], labels[1] = 0.0, 1.0
    return labels


def test_features_are_the_mean_over_windows_side_by_side(spatial_dims):
    # an instance norm of the deepest map, which has two voxels, would make much of rounding
    network = BasicUNet(spatial_dims, 1, 1, features=(2, 2, 4, 4, 6, 2), norm="batch").eval()
    shape = (40, 32, 16)[:spatial_dims]
    window = (32, 16, 16)[:spatial_dims]
    image = torch.rand(1, *shape)
    starts = [(0, 8), (0, 16), (0,)][:spatial_dims]  # the last window lies against the end
    expected = []
    for corner in itertools.product(*starts):
        crop = image[(slice(None), *(slice(c, c + w) for c, w in zip(corner, window, strict=True)))]
        with torch.no_grad():
            deepest = encode(network, crop[None])[-1][0]
        expected.append(deepest.reshape(len(deepest), -1).mean(1))
    found = image_features(network, image, window)
    assert found.shape == (6,)
    torch.testing.assert_close(found, torch.stack(expected).mean(0))
    torch.testing.assert_close(image_features(network, image, window, batch_size=1), found)


def test_standardized_features():
    reference = torch.tensor([[1.0, 5.0, 3.0], [3.0, 5.0, 3.0 + 1e-9]])
    features = torch.tensor([[4.0, 9.0, 7.0]])
    expected = torch.tensor([[(4 - 2) / 1, 0, 0]], dtype=torch.float64)  # mean 2, deviation 1; constant channels are 0
    torch.testing.assert_close(standardize(features, reference), expected)


@pytest.mark.parametrize("neighbors", [1, 4, 99])
def test_knn_scores_against_loops(neighbors):
    known, features, labels = torch.randn(12, 5), torch.randn(7, 5), some_labels(12)
    found = knn_scores(features, known, labels, neighbors, temperature=0.3)
    for i, row in enumerate(features.double().numpy()):
        for c in range(3):
            cosines = [row @ n / math.sqrt((row @ row) * (n @ n)) for n in known.double().numpy()]
            votes = zip(cosines, labels[:, c].tolist(), strict=True)
            votes = sorted((vote for vote in votes if not math.isnan(vote[1])), reverse=True)[:neighbors]
            weights = [math.exp(cosine / 0.3) for cosine, _ in votes]
            expected = sum(w * label for w, (_, label) in zip(weights, votes, strict=True)) / sum(weights)
            assert float(found[i, c]) == pytest.approx(expected, rel=1e-9)


def test_knn_is_exact_at_tiny_temperatures_and_refuses_others():
    known = torch.eye(3)
    labels = torch.tensor([[1.0], [0.0], [0.0]])
    assert knn_scores(known, known, labels, temperature=1e-4).flatten().tolist() == [1.0, 0.0, 0.0]
    for wrong in ((0, 0.07), (20, 0.0), (20, -1.0)):
        with pytest.raises(ValueError, match=r"must be positive, got {} and {}".format(*wrong)):
            knn_scores(known, known, labels, *wrong)


@pytest.mark.parametrize("penalty", PENALTIES)
def test_logistic_regression_against_a_general_minimizer(penalty):
    features, labels = torch.randn(30, 4, dtype=torch.float64), some_labels(30, classes=2)
    start = torch.randn(5, 2, dtype=torch.float64)
    kept, found = start.clone(), fit_logistic(features, labels, penalty)
    for c in range(2):
        has = ~labels[:, c].isnan().numpy()
        x, y = features.numpy()[has], labels[:, c].numpy()[has]

        def loss(w, x=x, y=y):
            logits = x @ w[:-1] + w[-1]
            return np.mean(np.logaddexp(0, logits) - y * logits) + penalty / 2 * np.sum(w[:-1] ** 2)

        expected = minimize(loss, np.zeros(5), method="BFGS", options={"gtol": 1e-9}).x
        np.testing.assert_allclose(found[:, c].numpy(), expected, rtol=1e-3, atol=1e-5)
    if penalty >= 0.1:  # begins anywhere and ends in one point
        torch.testing.assert_close(fit_logistic(features, labels, penalty, start), found, rtol=1e-5, atol=1e-6)
        assert torch.equal(start, kept)


def test_logistic_loss_of_logits_0_is_log_2_a_class():
    labels = torch.tensor([[0.0, math.nan, math.nan], [1.0, 1.0, math.nan]])
    assert float(logistic_loss(torch.zeros(2, 3), labels)) == pytest.approx(2 * math.log(2))
    with pytest.raises(ValueError, match=r"penalty must be positive, got 0\.0"):
        fit_logistic(torch.eye(2), torch.eye(2), 0.0)


def test_validation_chooses_the_penalty():
    signal = torch.randn(200, 3, dtype=torch.float64)
    labels = (signal[:, :1] > 0).double()
    fit, weak = choose_logistic(signal[:100], labels[:100], signal[100:], labels[100:])
    noise = torch.randn(200, 60, dtype=torch.float64)
    _, strong = choose_logistic(noise[:100], labels[:100], noise[100:], labels[100:])
    assert weak < 0.01 < strong  # what can be known exactly, and what cannot be known
    torch.testing.assert_close(fit, fit_logistic(signal[:100], labels[:100], weak), rtol=1e-3, atol=1e-3)
    fits = {p: fit_logistic(noise[:100], labels[:100], p) for p in PENALTIES}
    losses = {p: float(logistic_loss(linear_scores(noise[100:], w), labels[100:])) for p, w in fits.items()}
    assert min(losses, key=losses.get) == strong


def test_auc_against_all_pairs():
    labels = some_labels(40)
    labels[:, 2] = torch.where(labels[:, 2].isnan(), math.nan, 1.0)
    scores = torch.randint(0, 6, (40, 3)).double()  # with ties
    found = class_auc(scores, labels)
    for c in range(2):
        ill, healthy = (scores[labels[:, c] == value, c] for value in (1, 0))
        more, same = (compare(ill[:, None], healthy).double() for compare in (torch.gt, torch.eq))
        assert found[c] == pytest.approx(float((more + same / 2).mean()))
    assert math.isnan(found[2])


def test_labels_as_a_matrix():
    assert label_matrix([{"label": 2}, {"label": 0}], 3).tolist() == [[0, 0, 1], [1, 0, 0]]
    found = label_matrix([{"label": [1, None]}], 2)
    assert found[0, 0] == 1
    assert found[0, 1].isnan()
    assert label_matrix([], 2).shape == (0, 2)


def make_folder(root, spatial_dims, count=10):
    """Images of two classes, stripes and rare bright spots, in a folder a class."""
    shape = (48, 40, 24)[:spatial_dims]
    for number in range(count):
        rng = np.random.default_rng(number)
        wave = np.sin(2 * np.pi * (np.arange(shape[0]) / 12 + rng.uniform())).reshape(-1, *[1] * (spatial_dims - 1))
        images = {"stripes": wave + rng.normal(0, 0.1, shape), "spots": 2 * (rng.random(shape) < 0.02) - 1}
        for name, image in images.items():
            path = root / name / f"{name}{number}"
            if spatial_dims == 2:
                write_image(path.with_suffix(".png"), np.clip(127 + 80 * image, 0, 255))
            else:
                write_nifti(path.with_suffix(".nii.gz"), (600 * image).astype(np.int16), spacing=(1, 1, 1))


@pytest.fixture(scope="module", params=[2, 3])
def labeled(request, tmp_path_factory):
    """Number of axes and a folder with ``list.json``, made by the command, and ``model.pt``."""
    folder = tmp_path_factory.mktemp(f"labeled{request.param}")
    make_folder(folder / "images", request.param)
    made = classify(folder / "images", ["stripes", "spots"], test_fraction=0.3, patient="file")
    (folder / "list.json").write_text(json.dumps(made))
    network = read_config(CONFIGS[request.param], SMALL[request.param]).build_network(seed=1)
    torch.save(network.state_dict(), folder / "model.pt")
    return request.param, folder


def test_the_command_probes_weights_beside_random_ones(labeled, command):
    spatial_dims, folder = labeled
    words = ["--list", f"{folder}/list.json", "--weights", f"{folder}/model.pt", "--random", "2"]
    words += ["--config_file", CONFIGS[spatial_dims], "--overrides", repr(SMALL[spatial_dims]), "--device", "cpu"]
    status, output, _ = command("probe", *words, "--output", "new/probe.json")
    assert status == 0
    report = json.loads(Path("new/probe.json").read_text())
    assert set(report["encoders"]) == {"weights", "random 0", "random 1"}
    assert report["encoders"]["weights"] == report["encoders"]["random 1"]  # they are the weights of this seed
    assert report["classes"] == ["stripes", "spots"]
    assert report["images"]["test"] >= 4
    assert report["labeled_images"] == [report["images"]["training"]]
    assert report["channels"] == {2: 512, 3: 32}[spatial_dims]
    found = report["encoders"]["weights"]
    assert found["linear"]["mean"] == 1  # any convolutions tell stripes from spots
    assert found["k-NN"]["mean"] == pytest.approx(sum(found["k-NN"]["auc"].values()) / 2)
    lines = output.splitlines()
    assert lines[-1] == "new/probe.json is written"
    assert lines[-5].split("  ")[0] == "AUC"
    assert "whether the test images were in the pre-training is not checked" in output
    assert "matched" in output  # the report of what was loaded


def test_parts_of_the_labels_are_those_of_fine_tuning():
    entries = [{"image": f"{n}.png", "patient": f"p{n // 2}", "label": n // 2 % 2} for n in range(40)]
    datalist = {"task": "classification", "class_names": ["a", "b"], "training": entries}
    assert label_rows(datalist, 1.0, 2) == [list(range(40))] * 2
    subsets = label_rows(datalist, 0.2, 3)
    for seed, rows in enumerate(subsets):
        assert [entries[row] for row in rows] == take_fraction(datalist, 0.2, seed)[0]["training"]
        assert {entries[row]["label"] for row in rows} == {0, 1}
    assert subsets[0] != subsets[1] != subsets[2]


def test_areas_are_averaged_over_parts_of_the_labels():
    labels = {"training": some_labels(60), "validation": some_labels(20), "test": some_labels(30)}
    features = {name: torch.randn(len(rows), 4, dtype=torch.float64) for name, rows in labels.items()}
    subsets = [list(range(40)), list(range(20, 60))]
    found = evaluate_subsets(features, labels, subsets, ["a", "b", "c"], neighbors=5)
    parts = [
        evaluate_probes(*({**of, "training": of["training"][rows]} for of in (features, labels)), ["a", "b", "c"], 5)
        for rows in subsets
    ]
    assert parts[0] != parts[1]
    for name in ("k-NN", "linear"):
        assert found[name]["means"] == [part[name]["mean"] for part in parts]
        assert found[name]["mean"] == pytest.approx(sum(found[name]["means"]) / 2)
        assert found[name]["auc"]["b"] == pytest.approx(sum(part[name]["auc"]["b"] for part in parts) / 2)


def test_the_report_is_a_table_of_means_and_deviations():
    def encoder(*values):
        return {name: {"auc": dict(zip("ab", values, strict=True)), "mean": values[0]} for name in ("k-NN", "linear")}

    encoders = {"weights": encoder(0.9, None), "random 0": encoder(0.5, None), "random 1": encoder(0.7, None)}
    rows = describe_probe({"classes": ["a", "b"], "encoders": encoders}).splitlines()
    assert rows[0].split() == ["AUC", "k-NN", "k-NN,", "random", "(2)", "linear", "linear,", "random", "(2)"]
    assert rows[1].split() == ["a", *("0.900", "0.600", "±", "0.141") * 2]
    assert rows[2].split() == ["b", "-", "-", "-", "-"]
    assert rows[3].split() == ["mean", *("0.900", "0.600", "±", "0.141") * 2]
    alone = describe_probe({"classes": ["a"], "encoders": {"weights": encoders["weights"]}}).splitlines()
    assert alone[0].split() == ["AUC", "k-NN", "linear"]


@pytest.mark.parametrize(
    ("spatial_dims", "name", "value", "tensor", "shape"),
    [
        (2, "network_def#decoder_channels", [16, 8, 8, 4, 2], "segmentation_head.0.weight", (1, 2, 3, 3)),
        (3, "network_def::norm", "batch", "down_1.convs.conv_0.adn.N.running_mean", (4,)),
    ],
)
def test_an_override_may_be_a_new_argument_of_the_network(spatial_dims, name, value, tensor, shape):
    assert name not in read_config(CONFIGS[spatial_dims]).parser
    changed = read_config(CONFIGS[spatial_dims], SMALL[spatial_dims] | {name: value})
    assert changed.build("network_def").state_dict()[tensor].shape == shape


def refused(labeled, tmp_path, words, change=None, **options):
    """The probe of a list, perhaps changed, raises and writes nothing."""
    spatial_dims, folder = labeled
    content = json.loads((folder / "list.json").read_text())
    if change:
        change(content)
    path = folder / "changed.json"
    path.write_text(json.dumps(content))
    given = {"weights": folder / "model.pt", "config_file": CONFIGS[spatial_dims], "overrides": {}, "random": 0}
    given |= {"output": tmp_path / "probe.json"} | options
    if isinstance(given["overrides"], dict):
        given["overrides"] = SMALL[spatial_dims] | given["overrides"]
    with pytest.raises(InputError, match=words):
        probe(path, **given)
    assert not (tmp_path / "probe.json").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"random": -1}, "random must be a whole number from 0, got -1"),
        ({"random": True}, "random must be a whole number from 0, got True"),
        ({"neighbors": 0}, "neighbors must be a whole number from 1, got 0"),
        ({"label_subsets": 0}, "label_subsets must be a whole number from 1, got 0"),
        ({"label_fraction": 0}, "label_fraction must be above 0 and at most 1, got 0"),
        ({"temperature": 0}, "temperature must be a positive number, got 0"),
        ({"overrides": "patch_size"}, "overrides must be an object such as .*, got 'patch_size'"),
        ({"overrides": {"patchsize": [32]}}, r"has no value 'patchsize' to replace by .*; did you mean --patch_size\?"),
        ({"overrides": {"optimizer_arguments#width": 3}}, "has no value 'optimizer_arguments#width' to replace by 3"),
        ({"overrides": {"network_def#width#0": 3}}, "has no value 'network_def#width#0' to replace by 3"),
        ({"overrides": {"network_def#width": 3}}, r"network_def cannot be built \(.*unexpected keyword.* 'width'\)"),
        ({"overrides": {"patch_size": [20, 20, 20]}}, "patch_size .* does not fit|where spatial_dims is 2"),
        ({"config_file": "nowhere/train.json"}, "nowhere/train.json does not exist; name the folder of a bundle"),
        ({"weights": "nowhere.pt"}, "nowhere.pt: no such checkpoint"),
        ({"device": "nonsense"}, "device nonsense cannot be used"),
    ],
)
def test_bad_options_are_refused(labeled, tmp_path, options, words):
    refused(labeled, tmp_path, words, **options)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda content: content.update(task="segmentation"), "is no list for classification"),
        (lambda content: content.update(test=[]), "no class that some of its 0 test images have and others lack"),
        (lambda content: [e.update(label=0) for e in content["test"]], "so nothing can be ranked"),
        (lambda content: content.update(spatial_dims=4), "lists images of 4 axes where .* takes"),
        (lambda content: content["training"][0].update(label=7), "has the label 7 in entry 0"),
    ],
    ids=["task", "no test", "one class", "axes", "label"],
)
def test_bad_lists_are_refused(labeled, tmp_path, change, words):
    refused(labeled, tmp_path, words, change)


def test_weights_of_another_network_are_refused(labeled, tmp_path):
    torch.save({"other": torch.zeros(2)}, tmp_path / "other.pt")
    refused(labeled, tmp_path, r"covers 0\.0% of the encoder", weights=tmp_path / "other.pt")


def test_test_images_of_the_pretraining_are_refused(labeled, tmp_path):
    content = json.loads((labeled[1] / "list.json").read_text())
    content["training"].append(content["test"][0])
    (tmp_path / "seen.json").write_text(json.dumps(content))
    words = r"1 of .* test images or their patients are in .*seen\.json"
    refused(labeled, tmp_path, words, pretraining_list=tmp_path / "seen.json")
