"""The map of images that a pre-training leaves on its page."""

import math
import re
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from html_pages import points_of, read_page
from trainer_runs import make_dataset, make_evaluator, make_loader, make_trainer, run_epochs

from dira_monai.data.datasets import PretrainDataset
from dira_monai.handlers.report import embedding
from dira_monai.handlers.report.columns import find_columns, order_values
from dira_monai.handlers.report.embedding import (
    choose_images,
    encode_images,
    frozen_copy,
    middle_box,
    neighbor_accuracy,
    principal_components,
)
from dira_monai.handlers.report.image_map import GIVEN, RANDOM, TRAINED, EmbeddingMap, show_features
from dira_monai.networks.encoder_decoder import encode
from dira_monai.visualize.html import page


def labeled_dataset(count=12, size=16):
    images = torch.rand(count, 1, size, size, generator=torch.Generator().manual_seed(0))
    data = [{"image": images[i], "patient": f"p{i // 2}", "site": "ab"[i % 2]} for i in range(count)]
    return PretrainDataset(data, lambda item: item, (size, size), cache="none")


def trained_map(**options):
    trainer = make_trainer(loader=make_loader((16, 16), dataset=labeled_dataset(), epoch_length=2), **options)
    drawn = EmbeddingMap()
    drawn.keep_beginning(trainer)
    return trainer, drawn, make_evaluator(trainer)


def test_a_map_shows_the_encoder_at_the_end_beside_its_beginning():
    trainer, drawn, evaluator = trained_map()
    beginning = frozen_copy(trainer.network)
    before = drawn.show(trainer, evaluator)
    run_epochs(trainer, 1)
    modes, random = [m.training for m in trainer.network.modules()], torch.get_rng_state()
    content = drawn.show(trainer, evaluator)
    assert [m.training for m in trainer.network.modules()] == modes
    assert torch.equal(torch.get_rng_state(), random)
    shown = read_page(page("x", [content]))
    assert [text.split(",")[0] for text in shown.text("small")] == [TRAINED, RANDOM] * 2
    assert shown.text("figcaption") == ["site", "site", "patient", "patient"]
    assert shown.text("b")[:4] == ["a (12)", "b (12)"] * 2  # validation and training are one data set here
    assert shown.text("td")[:3] == ["site", "24", "0.500"]
    (trained, begun, *_), (unchanged, same, *_) = svgs(content), svgs(before)
    assert points_of(begun) == points_of(same) == points_of(unchanged)
    assert points_of(trained) != points_of(begun)
    chosen = choose_images(evaluator.data_loader.dataset, trainer.data_loader.dataset)
    features, entries = encode_images(trainer, {"b": beginning}, chosen, 100.0)
    assert [entry["patient"] for entry in entries] == [f"p{i // 2}" for i in range(12)] * 2
    with torch.no_grad():
        expected = encode(beginning, entries[3]["image"][None])[-1].mean((2, 3))[0]
    torch.testing.assert_close(features["b"][3], expected)


def test_a_run_from_given_weights_is_shown_beside_these_and_random_ones():
    trainer = make_trainer(seed=1, loader=make_loader((16, 16), dataset=labeled_dataset(), epoch_length=2))
    features = [4, 4, 8, 8, 8, 4]
    network = {
        "_target_": "BasicUNet",
        "spatial_dims": "@spatial_dims",
        "features": features,
        "norm": "$('group', {'num_groups': 2})",
    }
    drawn = EmbeddingMap({"spatial_dims": 2, "pretrained": "model.pt", "network_def": network})
    drawn.keep_beginning(trainer)
    random = torch.get_rng_state()
    content = drawn.show(trainer, make_evaluator(trainer))
    assert torch.equal(torch.get_rng_state(), random)
    assert [text.split(",")[0] for text in read_page(page("x", [content])).text("small")] == [
        TRAINED,
        GIVEN,
        RANDOM,
    ] * 2
    trained, given, other, *_ = (points_of(svg) for svg in svgs(content))
    assert trained == given != other  # nothing was trained yet


def svgs(content):
    return re.findall(r"<svg.*?</svg>", content, re.DOTALL)


def test_other_trainings_have_no_map():
    assert EmbeddingMap().show(object(), None) == ""
    trainer, drawn, evaluator = trained_map()
    assert drawn.show(trainer, None) == ""
    evaluator.data_loader = SimpleNamespace(dataset=[1, 2])  # such as cubes of visual words
    assert drawn.show(trainer, evaluator) == ""


def test_no_image_is_read_after_the_time_is_over():
    trainer, _, evaluator = trained_map()
    chosen = choose_images(evaluator.data_loader.dataset, trainer.data_loader.dataset)
    features, entries = encode_images(trainer, {"a": frozen_copy(trainer.network)}, chosen, 0.0)
    assert len(features["a"]) == len(entries) == 1


def test_validation_images_are_chosen_and_few_of_them_joined_by_training_images(monkeypatch):
    validation, training = make_dataset((4, 4), 6), make_dataset((4, 4), 9)
    assert [place for _, place in choose_images(validation, training)] == [*range(6), *range(9)]
    assert [place for _, place in choose_images(validation, training, count=5)] == [0, 3, 0, 3, 6]
    monkeypatch.setattr(embedding, "ENOUGH", 6)
    assert [data for data, _ in choose_images(validation, training)] == [validation] * 6


@pytest.mark.parametrize(("shape", "expected"), [((9, 8), ((2, 7), (1, 6))), ((10, 23), ((0, 10), (6, 16)))])
def test_the_middle_of_an_image_is_one_window_or_two_long(shape, expected):
    image = torch.arange(math.prod(shape)).reshape(1, *shape)
    (a, b), (c, d) = expected
    torch.testing.assert_close(middle_box(image, (5, 5)), image[:, a:b, c:d])


@pytest.mark.parametrize("shape", [(20, 6), (6, 20)])
def test_principal_components_are_those_of_the_singular_values(shape):
    rows = torch.rand(shape, generator=torch.Generator().manual_seed(0)).double()
    found, share = principal_components(rows)
    left, values, _ = np.linalg.svd(rows.numpy() - rows.numpy().mean(0), full_matrices=False)
    np.testing.assert_allclose(found.abs(), np.abs(left[:, :2] * values[:2]), atol=1e-9)
    assert share == pytest.approx((values[:2] ** 2).sum() / (values**2).sum())
    assert (found.gather(0, found.abs().argmax(0, keepdim=True)) > 0).all()
    again, _ = principal_components(rows.flip(1))
    torch.testing.assert_close(again, found)


def test_neighbors_of_other_groups_tell_labels():
    generator = torch.Generator().manual_seed(0)
    labels = [i % 2 for i in range(40)]
    apart = torch.randn(40, 8, generator=generator) + 4 * torch.tensor(labels)[:, None]
    groups = [str(i) for i in range(40)]
    assert neighbor_accuracy(apart, labels, groups) == (1.0, 1.0)
    # images of a group are alike and have one label, of which nothing else tells: its own are no neighbors
    alike = torch.randn(10, 8, generator=generator).repeat_interleave(4, 0)
    random = torch.randint(2, (10,), generator=generator).repeat_interleave(4).tolist()
    own = [str(i // 4) for i in range(40)]
    assert neighbor_accuracy(alike, random, own)[0] < 0.8
    assert neighbor_accuracy(alike, random, groups)[0] > 0.95
    assert neighbor_accuracy(apart, labels, ["one"] * 40) is None


def test_columns_of_few_values_are_found_and_numbers_put_into_ranges():
    entries = [
        {
            "image": f"{i}.png",
            "patient": f"p{i}",
            "spacing": [1.0, 1.0 + i % 2],
            "site": "<b>" if i % 3 else None,
            "sex": "fm"[i % 2],
            "age": 20 + i,
            "label": [i % 2, None],
            "constant": 1,
        }
        for i in range(20)
    ]
    found = find_columns(entries)
    assert list(found) == ["sex", "age", "label 0", "spacing"]  # site has one value; facts of the files come last
    assert order_values(found["age"]) == ["20 to 24", "24 to 28", "28 to 31", "31 to 35", "35 to 39"]
    assert found["age"][:5] == ["20 to 24"] * 4 + ["24 to 28"]
    assert found["age"][-1] == "35 to 39"
    assert order_values(["10", "9", None, "x"]) == ["9", "10", "x"]
    assert find_columns([{"age": math.nan}, {"age": 3}]) == {"age": ["nan", "3"]}


def test_features_are_shown_in_the_colors_of_foreign_columns():
    features = torch.rand(30, 5, generator=torch.Generator().manual_seed(0))
    entries = [{"site": ["<script>", "b", None][i % 3], "patient": str(i)} for i in range(30)]
    content = show_features({TRAINED: features}, entries, "told")
    shown = read_page(page("x", [content]))
    assert shown.text("b") == ["<script> (10)", "b (10)", "not known (10)"]
    row = shown.text("td")
    assert row[:3] == ["site", "20", "0.500"]
    dots = [len(points_of(p["d"])) for p in shown.all("path")]
    assert dots == [10, 10, 10]
    plain = show_features({TRAINED: features}, [{}] * 30, "told")
    assert "no column of a few values" in plain
    assert "<table>" not in plain
    assert show_features({TRAINED: features[:2]}, entries[:2], "told") == ""


def test_umap_is_drawn_where_it_is_installed(monkeypatch):
    class Halves:
        def __init__(self, random_state):
            assert random_state == 0

        def fit_transform(self, rows):
            assert rows.shape == (20, 5)
            return rows[:, :2]

    monkeypatch.setitem(sys.modules, "umap", SimpleNamespace(UMAP=Halves, __spec__=SimpleNamespace()))
    features = {name: torch.rand(20, 5) for name in (TRAINED, RANDOM)}
    content = show_features(features, [{}] * 20, "told")
    assert [text.split(",")[1][:5] for text in read_page(page("x", [content])).text("small")] == [
        " PCA ",
        " PCA ",
        " UMAP",
    ]
