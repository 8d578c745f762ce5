from types import SimpleNamespace

import numpy as np
import pytest
import torch
from ignite.engine import Engine
from monai.data import MetaTensor
from PIL import Image

from dira_monai.handlers.label_panel import LabelPanel
from dira_monai.handlers.report.panels import choose_epochs
from dira_monai.visualize.labels import COLORS, OPACITY, center_of, draw_bars, paint
from dira_monai.visualize.tiles import GAP, TITLE, middle_slices, save_panel


def one_hot(classes, count):
    return torch.nn.functional.one_hot(classes, count).movedim(-1, 0).float()


@pytest.mark.parametrize("shape", [(5, 4), (5, 4, 3)])
def test_classes_are_painted_over_the_image(shape):
    image, classes = torch.rand(shape), torch.zeros(shape, dtype=torch.long)
    corner = (0,) * len(shape)
    classes[corner] = 2
    picture = paint(image, classes, corner)
    plain = paint(image, None, corner)
    colored = (picture != plain).any(-1)
    np.testing.assert_array_equal(plain[..., 0], (255 * middle_slices(image, corner)).round())
    assert colored.sum() == (1 if len(shape) == 2 else 3)  # once in each of the three slices through it
    expected = (1 - OPACITY) * 255 * float(image[corner]) + OPACITY * np.array(COLORS[2])
    np.testing.assert_allclose(picture[colored], np.broadcast_to(expected, picture[colored].shape), atol=1)


def test_more_classes_than_colors_are_still_painted():
    classes = torch.arange(12).reshape(3, 4)
    picture = paint(torch.zeros(3, 4), classes)
    assert (picture[0, 0] == 0).all()
    assert (picture.reshape(-1, 3)[1:].sum(axis=1) > 0).all()


def test_the_center_is_the_mean_place_of_what_is_labeled():
    classes = torch.zeros(7, 9, 5)
    classes[2, 4, 1] = 1
    classes[4, 6, 3] = 2
    assert center_of(classes) == [3, 5, 2]
    assert center_of(torch.zeros(3, 3)) is None


def test_bars_are_as_long_as_the_probabilities():
    bars = np.asarray(draw_bars(["a", "b"], torch.tensor([1.0, float("nan")]), torch.tensor([0.25, 1.0]), width=101))
    assert (bars[20] == COLORS[4]).all(axis=1).sum() == 26
    assert (bars[20 + TITLE + 8] == COLORS[2]).all(axis=1).sum() == 101


def run(panel, samples, epoch=3):
    engine = Engine(lambda engine, batch: batch)
    engine.data_loader = SimpleNamespace(sampler=range(len(samples)))
    panel.attach(engine)
    batches = [samples[i : i + 2] for i in range(0, len(samples), 2)]
    engine.state.metrics = {"val_mean_dice": 0.5}
    engine.run(batches, max_epochs=1)
    return engine


@pytest.mark.parametrize("shape", [(6, 4), (6, 4, 4)])
def test_samples_spread_over_the_validation_list_are_drawn_with_truth_and_prediction(tmp_path, shape):
    images = [MetaTensor(torch.rand(1, *shape), meta={"filename_or_obj": f"/x/{i}.png"}) for i in range(8)]
    truths = [torch.zeros(shape, dtype=torch.long) for _ in images]
    for truth in truths:
        truth[(1,) * len(shape)] = 1
    samples = [
        {"image": image, "label": one_hot(t, 2), "pred": one_hot(1 - t, 2)}
        for image, t in zip(images, truths, strict=True)
    ]
    panel = LabelPanel(str(tmp_path), ["background", "organ"], samples=4)
    run(panel, samples)
    assert (tmp_path / "panels" / "epoch_0001.png").read_bytes() == (tmp_path / "panel.png").read_bytes()
    notes = [row.lines[0][0] for row in panel.rows]
    assert [note.split(".png")[0] for note in notes] == ["0", "2", "4", "6"]
    assert all(note.endswith("0.000") for note in notes)
    drawn = np.asarray(Image.open(tmp_path / "panel.png"))
    zoom = round(224 / middle_slices(images[0][0]).shape[1])
    width = zoom * middle_slices(images[0][0]).shape[1]
    top = 3 * TITLE
    for column, classes in enumerate((None, truths[0], 1 - truths[0])):
        expected = paint(images[0][0], classes, center_of(truths[0]))
        left = GAP + column * (width + GAP)
        tile = drawn[top : top + zoom * expected.shape[0] : zoom, left : left + width : zoom]
        np.testing.assert_array_equal(tile, expected)


def test_a_classifier_is_shown_by_bars(tmp_path):
    samples = [
        {"image": torch.rand(1, 8, 8), "label": torch.tensor([1.0, 0.0]), "pred": torch.tensor([0.7, 0.3])}
        for _ in range(3)
    ]
    panel = LabelPanel(str(tmp_path), ["no", "yes"], samples=9)
    run(panel, samples)
    assert len(panel.rows) == 3
    np.testing.assert_array_equal(
        np.asarray(panel.rows[0].tiles[1]),
        np.asarray(draw_bars(["no", "yes"], samples[0]["label"], samples[0]["pred"])),
    )


@pytest.mark.parametrize("interval", [1, 3])
def test_the_newest_panels_stay_and_ever_fewer_of_the_older_ones(tmp_path, interval):
    for validation in range(1, 41):
        save_panel(Image.new("L", (2, 2)), tmp_path, interval * validation)
    kept = [interval * n for n in (1, 2, 4, 8, 16, *range(31, 41))]
    assert sorted(path.name for path in (tmp_path / "panels").iterdir()) == [f"epoch_{n:04d}.png" for n in kept]
    assert set(choose_epochs([interval * n for n in range(1, 41)])) <= {*kept}
