import io
import json
import math
import time

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from ignite.engine import Events
from logged_runs import logged_run, rows_of
from PIL import Image
from power_cut import PowerCutError, cut_power
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from trainer_runs import make_evaluator, make_trainer, record, run_epochs, states

from dira_monai.handlers.evaluation_report import EvaluationReport
from dira_monai.handlers.restoration_panel import Panel
from dira_monai.handlers.training_log import read_rows, write_rows
from dira_monai.metrics import rank_collapse
from dira_monai.utils.errors import InputError
from dira_monai.visualize.tiles import GAP, TITLE, draw_panel, middle_slices
from dira_monai.weights.files import load_weights

pytestmark = pytest.mark.usefixtures("seeded")


def test_a_picture_is_shown_upright():
    image = torch.rand(3, 5)  # the first axis goes from left to right
    picture = middle_slices(image)
    assert picture.shape == (5, 3)
    assert picture[4, 0] == image[0, 4]


def test_a_volume_is_shown_as_its_middle_slices_as_radiologists_do():
    volume = torch.rand(4, 6, 8)  # to the right, to the front, to the top
    picture, array = middle_slices(volume), volume.numpy()
    assert picture.shape == (16, 10)
    for x in range(4):
        for y in range(6):
            assert picture[5 - y, 3 - x] == array[x, y, 4]  # axial
        for z in range(8):
            assert picture[7 - z, 4 + 3 - x] == array[x, 3, z]  # coronal, to its right
    for y in range(6):
        for z in range(8):
            assert picture[8 + 7 - z, 4 + 5 - y] == array[2, y, z]  # sagittal, below
    assert not picture[6:, :4].any()
    assert not picture[:8, 8:].any()


def tiles_of(panel, rows, height, width, zoom):
    """Pixels of all tiles without the zoom, (rows, 4, height, width)."""
    pixels = np.asarray(panel)
    tiles = []
    for row in range(rows):
        for column in range(4):
            top, left = 2 * TITLE + row * (zoom * height + GAP), GAP + column * (zoom * width + GAP)
            tile = pixels[top : top + zoom * height, left : left + zoom * width]
            assert (tile == tile[::zoom, ::zoom].repeat(zoom, 0).repeat(zoom, 1)).all()
            tiles.append(tile[::zoom, ::zoom])
    return np.stack(tiles).reshape(rows, 4, height, width)


@pytest.mark.parametrize("shape", [(20, 12), (6, 4, 5)])
def test_a_panel_shows_target_distorted_restored_and_error(shape):
    target, distorted, restored = torch.rand(3, 2, 2, *shape)  # two channels, of which the first is shown
    restored[0, 0] = 1.5  # beyond white
    panel = draw_panel(target, distorted, restored, "a caption", width=60)
    height, width = middle_slices(target[0, 0]).shape
    zoom = round(60 / width)
    assert zoom > 1
    assert panel.size == (4 * (zoom * width + GAP) + GAP, 2 * TITLE + 2 * (zoom * height + GAP))
    tiles = tiles_of(panel, 2, height, width, zoom)
    for row in range(2):
        images = [target, distorted, restored.clip(0, 1), (restored - target).abs().clip(0, 1)]
        for column, image in enumerate(images):
            expected = np.round(255 * middle_slices(image[row, 0]))
            assert np.abs(tiles[row, column] - expected).max() <= 1


def test_a_large_picture_keeps_its_size():
    images = torch.rand(1, 1, 300, 10)
    assert draw_panel(images, images, images, width=100).size == (4 * (300 + GAP) + GAP, 2 * TITLE + 10 + GAP)


def test_the_panel_handler_draws_the_first_samples_of_each_validation(tmp_path):
    trainer = make_trainer()
    evaluator = make_evaluator(trainer)
    Panel(str(tmp_path), samples=2).attach(evaluator)
    outputs = record(evaluator)
    drawn = []
    for epoch in (1, 12):
        evaluator.run(epoch)
        path = tmp_path / "panels" / f"epoch_{epoch:04d}.png"
        assert path.read_bytes() == (tmp_path / "panel.png").read_bytes()
        drawn.append(tiles_of(Image.open(path), 2, 16, 16, 14))
    np.testing.assert_array_equal(*drawn)
    assert len(outputs) == 6
    for row in range(2):
        for column, name in enumerate(("label", "image", "pred")):
            expected = 255 * outputs[0][name][row, 0].T.numpy()
            assert np.abs(drawn[0][row, column] - expected).max() <= 0.51
    run_epochs(trainer, 1)
    evaluator.run(2)
    assert (tiles_of(Image.open(tmp_path / "panel.png"), 2, 16, 16, 14)[:, 2] != drawn[0][:, 2]).any()


def test_metrics_csv_has_a_row_for_each_epoch(tmp_path):
    run = logged_run(tmp_path, stage_epochs=(1, 1, 2), objective={"momentum": 0.5, "final_momentum": 1.0})
    outputs, rates, metrics = record(run.trainer), [], []
    run.evaluator.add_event_handler(Events.COMPLETED, lambda engine: metrics.append(dict(engine.state.metrics)))
    run.trainer.add_event_handler(
        Events.EPOCH_COMPLETED, lambda engine: rates.append(engine.optimizer.param_groups[0]["lr"])
    )
    run.trainer.run()
    rows = rows_of(tmp_path)
    assert [row["epoch"] for row in rows] == ["1", "2", "3", "4"]
    assert [row["iteration"] for row in rows] == ["2", "4", "6", "8"]
    assert [row["stage"] for row in rows] == ["di", "dir", "dira", "dira"]
    names = ["loss", "contrastive", "restoration", "adversarial", "discriminator"]
    for epoch, row in enumerate(rows):
        two = outputs[2 * epoch : 2 * epoch + 2]
        for name in [*names, "contrastive_accuracy", "discriminator_accuracy"]:
            if name in two[0]:
                assert float(row[name]) == pytest.approx(float(two[0][name] + two[1][name]) / 2, rel=1e-4)
            else:
                assert row[name] == ""
        if epoch > 0:
            expected = float(two[0]["restored"].std() + two[1]["restored"].std()) / 2
            assert float(row["restored_deviation"]) == pytest.approx(expected, rel=1e-4)
        assert float(row["collapse"]) == pytest.approx(rank_collapse(two[1]["query"]), rel=1e-4)
        assert float(row["learning_rate"]) == pytest.approx(rates[epoch], rel=1e-4, abs=1e-9)
        assert float(row["momentum"]) == pytest.approx(run.trainer.objective.momentum_at((epoch + 1) / 4), rel=1e-4)
        assert float(row["images_per_second"]) > 0
        for name, value in metrics[epoch].items():
            assert float(row[name]) == pytest.approx(value, rel=1e-4)
    assert set(names) <= set(rows[0])


def scalars_of(folder):
    events = EventAccumulator(str(folder / "output" / "tensorboard"))
    events.Reload()
    return {name: [event.step for event in events.Scalars(name)] for name in ("loss", "val_mse")}


def die_in_the_validation_of_epoch_3(run):
    def die(_):
        if run.trainer.state.epoch == 3:
            raise PowerCutError

    run.evaluator.add_event_handler(Events.STARTED, die)
    with pytest.raises(PowerCutError):
        run.trainer.run()


@pytest.fixture(scope="module")
def whole_table(tmp_path_factory):
    """Rows of a run that was never stopped."""
    folder = tmp_path_factory.mktemp("whole")
    logged_run(folder).trainer.run()
    return without_speed(rows_of(folder))


def without_speed(rows):
    """The columns that two equal runs share."""
    assert all(float(row.pop("images_per_second")) > 0 for row in rows)
    return rows


@pytest.mark.parametrize(
    "stop",
    [
        lambda run: run_epochs(run.trainer, 2),
        lambda run: cut_power(run.trainer, iteration=6),
        die_in_the_validation_of_epoch_3,
    ],
    ids=["after epoch 2", "in epoch 3", "in the validation of epoch 3"],
)
def test_no_row_is_lost_or_doubled_after_a_resume(tmp_path, whole_table, stop):
    stop(logged_run(tmp_path))
    time.sleep(1.1)  # TensorBoard orders the files of two runs by the second in their names
    logged_run(tmp_path, resume=True).trainer.run()
    assert [row["epoch"] for row in whole_table] == ["1", "2", "3", "4"]
    assert without_speed(rows_of(tmp_path)) == whole_table
    assert scalars_of(tmp_path) == {"loss": [2, 4, 6, 8], "val_mse": [2, 4, 6, 8]}


def test_a_new_run_in_an_old_folder_begins_a_new_table(tmp_path):
    logged_run(tmp_path).trainer.run()
    logged_run(tmp_path, max_epochs=2).trainer.run()
    assert [row["epoch"] for row in rows_of(tmp_path)] == ["1", "2"]


def test_the_last_line_says_where_everything_is(tmp_path, capsys):
    run = logged_run(tmp_path, max_epochs=2)
    run.trainer.run()
    best = run.evaluator.state.best_metric_epoch
    assert capsys.readouterr().out.splitlines()[-1] == (
        f"done: weights {tmp_path}/models/model.pt (best: epoch {best}), panel {tmp_path}/output/panel.png, "
        f"logs {tmp_path}/output/metrics.csv and tensorboard beside it; fine-tune it"
    )
    assert best in (1, 2)
    again = logged_run(tmp_path, max_epochs=2, resume=True)
    again.trainer.run()  # nothing is left to do
    assert f"(best: epoch {best})" in capsys.readouterr().out
    assert len(rows_of(tmp_path)) == 2


def test_without_a_terminal_an_epoch_is_one_line(tmp_path, capsys):
    run = logged_run(tmp_path, max_epochs=3, val_interval=2, stage_epochs=(1, 1, 1))
    run.trainer.run()
    out, err = capsys.readouterr()
    lines, rows = out.splitlines()[:-1], rows_of(tmp_path)
    assert err == ""
    assert len(lines) == len(rows) == 3
    for epoch, (line, row) in enumerate(zip(lines, rows, strict=True), 1):
        names = ["contrastive", *["restoration"] * (epoch > 1), *["adversarial", "discriminator"] * (epoch > 2)]
        told = [f"{name} {float(row[name]):.3g}" for name in names]
        told += [f"val_mse {float(row['val_mse']):.4g} (best)"] if epoch == 2 else []
        assert line == f"epoch {epoch}/3 {row['stage']}: {', '.join(told)}"


def test_the_line_of_the_last_whole_epoch_comes_before_an_error(tmp_path, capsys):
    cut_power(logged_run(tmp_path).trainer, iteration=3)
    assert [line[:9] for line in capsys.readouterr().out.splitlines()] == ["epoch 1/4"]


@pytest.mark.parametrize(("epochs", "shown"), [(4, [1, 2, 4]), (3, [1, 2, 3])])
def test_tensorboard_gets_panels_of_doubling_validations_and_the_last(tmp_path, epochs, shown):
    run = logged_run(tmp_path, max_epochs=epochs)
    drawn = {}

    def draw(engine):
        engine.state.panel = Image.new("L", (6, 4), 40 * engine.state.epoch)
        drawn[2 * engine.state.epoch] = 40 * engine.state.epoch

    run.evaluator.add_event_handler(Events.EPOCH_COMPLETED, draw)
    run.trainer.run()
    events = EventAccumulator(str(tmp_path / "output" / "tensorboard"))
    events.Reload()
    assert [event.step for event in events.Images("panel")] == [2 * epoch for epoch in shown]
    for event in events.Images("panel"):
        with Image.open(io.BytesIO(event.encoded_image_string)) as picture:
            assert picture.size == (6, 4)
            assert picture.getpixel((0, 0)) == (drawn[event.step],) * 3


def breaking_loss(call, value):
    """Mean squared error until a call, then another value."""
    calls = []

    def loss(restored, target):
        calls.append(1)
        error = F.mse_loss(restored, target)
        return error if len(calls) < call else error * value

    return loss


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("iteration", [3, 4], ids=["at the first of an epoch", "between two looks"])
def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_checkpoint(tmp_path, iteration, value):
    run = logged_run(tmp_path, loss_function=breaking_loss(iteration, value))
    kept = []
    run.trainer.add_event_handler(Events.EPOCH_COMPLETED, lambda engine: kept.append(states(engine)))
    message = f"epoch 2, iteration {iteration}: the restoration loss is not finite; .* in {tmp_path}/models is kept"
    with pytest.raises(InputError, match=message):
        run.trainer.run()
    assert len(kept) == 1
    content = load_weights(tmp_path / "models" / "checkpoint.pt")
    assert content["epoch"] == 1
    torch.testing.assert_close(content["network"], kept[0]["network"], rtol=0, atol=0)
    torch.testing.assert_close(load_weights(tmp_path / "models" / "model.pt"), kept[0]["network"], rtol=0, atol=0)
    assert [row["epoch"] for row in rows_of(tmp_path)] == ["1"]


def test_a_sum_that_is_not_finite_is_named_total(tmp_path):
    run = logged_run(tmp_path, restoration_weight=1e39)
    with pytest.raises(InputError, match="epoch 1, iteration 1: the total loss is not finite"):
        run.trainer.run()
    assert not list((tmp_path / "models").glob("[!.]*"))


def test_another_error_passes_the_log(tmp_path):
    run = logged_run(tmp_path)
    cut_power(run.trainer, iteration=3)
    assert [row["epoch"] for row in rows_of(tmp_path)] == ["1"]


def test_rows_whose_columns_differ_survive_the_file(tmp_path):
    rows = [{"epoch": 1, "loss": 0.123456789}, {"epoch": 2, "loss": 2.0, "val": float("nan")}]
    write_rows(tmp_path / "metrics.csv", rows)
    expected = [{"epoch": "1", "loss": "0.123457", "val": ""}, {"epoch": "2", "loss": "2", "val": "nan"}]
    assert read_rows(tmp_path / "metrics.csv") == expected
    assert read_rows(tmp_path / "none.csv") == []
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.csv"]


def test_an_evaluation_report_prints_and_writes_the_metrics(tmp_path, capsys):
    evaluator = make_evaluator(make_trainer())
    EvaluationReport(str(tmp_path / "new")).attach(evaluator)
    evaluator.run()
    written = json.loads((tmp_path / "new" / "evaluation.json").read_text())
    assert written == pytest.approx(evaluator.state.metrics)
    assert set(written) == {"val_mse", "val_contrastive"}
    out = capsys.readouterr().out
    assert f"val_mse {written['val_mse']:.4f}" in out
    assert "evaluation.json" in out


def test_a_metric_that_is_not_defined_is_null_in_the_report(tmp_path):
    evaluator = make_evaluator(make_trainer())
    EvaluationReport(str(tmp_path)).attach(evaluator)
    evaluator.add_event_handler(Events.COMPLETED, lambda: evaluator.state.metrics.update(val_mse=float("nan")))
    EvaluationReport(str(tmp_path / "late")).attach(evaluator)
    evaluator.run()
    assert math.isfinite(json.loads((tmp_path / "evaluation.json").read_text())["val_mse"])
    assert json.loads((tmp_path / "late" / "evaluation.json").read_text())["val_mse"] is None
