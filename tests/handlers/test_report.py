"""The page of a run: what it shows is what was logged, and nothing of the run depends on it."""

import base64
import io
import math
import re

import numpy as np
import pytest
import torch
from browser import find_browser, open_page
from html_pages import plotted, points_of, read_page
from logged_runs import logged_run, rows_of
from monai.data import MetaTensor
from PIL import Image
from power_cut import cut_power
from trainer_runs import assert_same, make_evaluator, make_trainer, run_epochs, states

from dira_monai.handlers.report import handler
from dira_monai.handlers.report.cases import (
    Case,
    CaseRecorder,
    choose_cases,
    is_exclusive,
    judge_classification,
    judge_segmentation,
)
from dira_monai.handlers.report.curves import chart_of, draw_curves, stage_marks
from dira_monai.handlers.report.handler import HtmlReport
from dira_monai.handlers.report.judged import show_judged
from dira_monai.handlers.report.panels import choose_epochs
from dira_monai.handlers.report.values import differences, show_values
from dira_monai.handlers.restoration_panel import Panel
from dira_monai.visualize.html import data_uri, page


def reported_run(folder, **options):
    run = logged_run(folder, **options)
    Panel(str(folder / "output"), samples=2).attach(run.evaluator)
    run.report = HtmlReport(str(folder / "output"), run.evaluator)
    run.report.attach(run.trainer)
    return run


def read_report(folder):
    return read_page((folder / "output" / "report.html").read_text())


def lines_of(content):
    """(epoch, value) of each line of a page's charts by its name, read off the numbers of the axes."""
    found = {}
    for chart in re.findall(r"<svg.*?</svg>", content, re.DOTALL):
        texts = re.findall(r'<text x="([-\d.]+)" y="([-\d.]+)" text-anchor="(end|middle)">([-\d.e]+)</text>', chart)
        numbers = [({"x": x, "y": y, "text-anchor": anchor}, value) for x, y, anchor, value in texts]
        for name, path in re.findall(r'data-series="([^"]+)" d="([^"]+)"', chart):
            found[name] = plotted(numbers, points_of(path))
    return found


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run of four epochs with its page; the states at its end."""
    folder = tmp_path_factory.mktemp("reported")
    run = reported_run(folder, stage_epochs=(0, 2, 2))
    run.trainer.run()
    return folder, states(run.trainer), run.evaluator.state


def test_the_lines_of_the_page_are_the_logged_values(finished):
    folder, *_ = finished
    lines, rows = lines_of((folder / "output/report.html").read_text()), rows_of(folder)
    compared = 0
    for name in rows[-1]:
        logged = [(int(row["epoch"]), float(row[name])) for row in rows if name not in ("stage",) and row[name]]
        spread = max(v for _, v in logged) - min(v for _, v in logged) if logged else 0
        if name in ("epoch", "iteration") or not spread or min(v for _, v in logged) * 100 < max(v for _, v in logged):
            continue  # no chart, no two numbers on the axis, or a logarithmic one: see test_charts.py
        np.testing.assert_allclose(np.array(lines[name])[:, 0], [epoch for epoch, _ in logged], atol=0.02)
        scale = max(abs(v) for _, v in lines[name]) + spread
        np.testing.assert_allclose(np.array(lines[name])[:, 1], [value for _, value in logged], atol=0.02 * scale)
        compared += 1
    assert compared > 5


def test_the_page_has_the_panels_and_where_the_run_stands(finished):
    folder, _, state = finished
    shown = read_report(folder)
    assert [img["alt"] for img in shown.all("img")] == [f"panel of epoch {n}" for n in (4, 2, 1)]
    best = f"best: epoch {state.best_metric_epoch}, val_mse {state.best_metric:.4g}"
    assert f"ended: epoch 4 of 4; {best}" in shown.text("p")
    assert not list((folder / "output").glob(".*"))


def test_a_page_changes_nothing_in_the_run(finished, tmp_path):
    _, expected, _ = finished
    run = logged_run(tmp_path, stage_epochs=(0, 2, 2))
    run.trainer.run()
    assert_same(states(run.trainer), expected)


@pytest.mark.parametrize("stop", [lambda run: run_epochs(run.trainer, 2), lambda run: cut_power(run.trainer, 6)])
def test_the_curves_of_a_resumed_run_are_whole(finished, tmp_path, stop):
    folder, *_ = finished
    run = reported_run(tmp_path, stage_epochs=(0, 2, 2))
    stop(run)
    reported_run(tmp_path, stage_epochs=(0, 2, 2), resume=True).trainer.run()
    whole, resumed = (lines_of((f / "output/report.html").read_text()) for f in (folder, tmp_path))
    for lines in (whole, resumed):
        lines.pop("images_per_second")
    assert str(resumed) == str(whole)  # nan, where an axis has no two numbers, is not equal to itself


def test_a_run_that_was_stopped_has_a_page_of_its_last_epoch(tmp_path, monkeypatch):
    monkeypatch.setattr(handler, "SHARE", math.inf)
    run = reported_run(tmp_path)
    cut_power(run.trainer, iteration=5)
    assert any(text.startswith("so far: epoch 2 of 4") for text in read_report(tmp_path).text("p"))


def test_a_page_that_cannot_be_written_does_not_end_the_run(tmp_path, caplog):
    run = reported_run(tmp_path, max_epochs=1)
    (tmp_path / "output" / "report.html").mkdir(parents=True)
    run.trainer.run()
    assert (tmp_path / "models" / "checkpoint.pt").exists()
    assert [record.getMessage().split(" (")[0] for record in caplog.records if "report" in record.name] == [
        f"{tmp_path}/output/report.html of epoch 1 was not written"
    ] * 2


def test_a_page_that_takes_long_is_written_less_often(tmp_path):
    run = reported_run(tmp_path)
    written = []
    write = run.report.write

    def slow(engine, state):
        write(engine, state)
        written.append((engine.state.epoch, state))
        run.report.cost = 1e3  # seconds, so that the next page may come after 50,000

    run.report.write = slow
    run.trainer.run()
    assert written == [(1, "so far"), (4, "ended")]


def test_the_pictures_of_an_earlier_run_in_the_folder_are_not_shown(tmp_path):
    reported_run(tmp_path).trainer.run()
    reported_run(tmp_path, max_epochs=2).trainer.run()
    assert [img["alt"] for img in read_report(tmp_path).all("img")] == ["panel of epoch 2", "panel of epoch 1"]


@pytest.mark.parametrize(
    ("epochs", "chosen"),
    [([], []), ([3], [3]), ([1, 2, 3], [1, 2, 3]), (list(range(1, 1601)), [*(2**n for n in range(11)), 1600])],
)
def test_panels_are_those_of_doubling_epochs_and_the_last(epochs, chosen):
    assert choose_epochs(epochs) == chosen


@pytest.mark.parametrize(
    ("column", "chart"),
    [
        ("val_loss", "loss"),
        ("val_mean_dice", "dice"),
        ("val_dice_a lung", "dice"),
        ("val_distorted_psnr", "psnr"),
        ("val_contrastive_chance", "contrastive_accuracy"),
        ("discriminator", "adversarial"),
        ("discriminator_accuracy", "discriminator_accuracy"),
        ("val_mean_ap", "ap"),
    ],
)
def test_what_belongs_together_shares_a_chart(column, chart):
    assert chart_of(column) == chart


def test_the_chart_of_the_key_metric_stands_first():
    rows = [{"epoch": "1", "stage": "", "loss": "1", "val_mean_auc": "0.5", "val_auc_x": ""}]
    assert read_page(page("x", [draw_curves(rows, "val_mean_auc")])).text("figcaption") == ["auc", "loss"]


def test_stages_are_marked_where_they_begin():
    rows = [{"epoch": str(i), "stage": stage} for i, stage in enumerate(["di", "di", "dir", ""], 1)]
    assert stage_marks(rows) == [(1, "di"), (3, "dir"), (4, "all")]
    assert stage_marks(rows[:2]) == []


def test_values_that_differ_from_the_shipped_ones_come_first():
    shipped = {"a": 1, "b": [1, 2], "net": {"_target_": "X", "width": 4, "_desc_": "old"}, "imports": [], "run": "@a#b"}
    config = {"a": 1, "b": [1, 3], "net": {"_target_": "X", "width": 8}, "imports": [], "run": "@a::b", "more": None}
    assert list(differences(config, shipped)) == ["b", "net#width", "more"]
    reasons = {"b": "<because> 3 is odd", "a": "one is enough"}
    shown = read_page(
        page("x", [show_values({"_desc_": reasons | {"data": "3 images"}, "_meta_": {}} | config, shipped)])
    ).text("td")
    assert shown[:8] == ["b", "[1, 3]", "[1, 2]", reasons["b"], "net#width", "8", "4", "more"]
    assert shown[shown.index("a") :][:4] == ["a", "1", "the same", reasons["a"]]
    unknown = show_values(config, None)
    assert "what was changed is not known" in unknown
    assert "All values are those" in show_values(shipped, shipped)
    assert show_values(None, None) == ""


def one_hot(classes, count):
    return torch.nn.functional.one_hot(classes, count).movedim(-1, 0).float()


@pytest.mark.parametrize("shape", [(6, 8), (6, 8, 4)])
def test_a_segmented_case_has_the_dice_of_its_classes(shape):
    truth, pred = torch.zeros(2, *shape, dtype=torch.long)
    truth[:4], pred[:2] = 1, 1
    pred[5] = 2  # a class that the truth has not
    image = MetaTensor(torch.rand(1, *shape), meta={"filename_or_obj": "/x/a.png"})
    case = judge_segmentation({"image": image, "label": one_hot(truth, 3), "pred": one_hot(pred, 3)}, True)
    assert (case.name, case.truth) == ("a.png", ())
    assert case.result[0] == case.score == pytest.approx(2 * 2 / (2 + 4))
    assert math.isnan(case.result[1])
    assert case.picture.startswith("data:image/jpeg")


def test_an_image_of_another_geometry_than_its_labels_is_left_out():
    truth = one_hot(torch.ones(9, 7, dtype=torch.long), 2)
    found = judge_segmentation({"image": torch.ones(1, 4, 4), "label": truth, "pred": truth * 0 + 0.0}, True)
    with Image.open(io.BytesIO(base64.b64decode(found.picture.partition(",")[2]))) as picture:
        assert picture.size == (9 * 26, 7 * 26)
        assert picture.getpixel((picture.width // 2, picture.height // 2)) == pytest.approx((40, 40, 40), abs=3)


def test_cases_that_cannot_be_judged_do_not_end_the_run(tmp_path, caplog):
    run = reported_run(tmp_path)
    caplog.clear()  # of what the trainer told of its queue
    recorder = CaseRecorder()
    recorder.start(run.evaluator)
    run.evaluator.state.output = [{"image": torch.rand(1, 4, 4), "label": torch.rand(2, 4, 4)}]
    recorder.keep(run.evaluator)
    recorder.keep(run.evaluator)
    recorder.finish(run.evaluator)
    assert (recorder.epoch, recorder.cases) == (0, [])
    assert [r.getMessage()[:27] for r in caplog.records] == ["report.html shows no cases:"]


def test_an_evaluation_leaves_a_page(tmp_path):
    evaluator = make_evaluator(make_trainer())
    Panel(str(tmp_path), samples=2).attach(evaluator)
    HtmlReport(str(tmp_path / "evaluation")).attach(evaluator)
    evaluator.run()
    shown = read_page((tmp_path / "evaluation" / "report.html").read_text())
    metrics = [text for name, value in evaluator.state.metrics.items() for text in (name, f"{value:.6g}")]
    assert shown.text("td") == metrics
    assert [img["alt"] for img in shown.all("img")] == ["panel"]


def judged(truth, pred):
    return judge_classification({"image": torch.rand(3, 5, 4), "label": truth, "pred": pred}, True)


def test_a_classified_case_has_the_probability_of_its_truth():
    assert judged(np.array([0.0, 1.0]), torch.tensor([0.2, 0.8])).score == pytest.approx(0.8)
    several = judged(torch.tensor([1.0, 0.0, math.nan]), torch.tensor([0.5, 0.3, 0.9]))
    assert several.score == pytest.approx((0.5 + 0.7) / 2)
    assert math.isnan(judged(torch.tensor([math.nan]), torch.tensor([0.9])).score)
    assert not is_exclusive([(0.0, 0.0)], [(0.4, 0.6)])


def case(score, truth=(), result=(), picture="data:,"):
    return Case(f"case {score}", score, truth, result, picture)


def test_worst_median_and_best_are_chosen_of_the_cases_with_a_score():
    cases = [case(s) for s in (0.5, math.nan, 0.9, 0.1, 0.7)] + [case(0.0, picture=None)]
    assert [(name, c.score) for name, c in choose_cases(cases)] == [("worst", 0.1), ("median", 0.5), ("best", 0.9)]
    assert choose_cases(cases[1:2]) == []


def recorded(cases, epoch=1):
    recorder = CaseRecorder()
    recorder.cases, recorder.epoch = cases, epoch
    return recorder


def cells(content):
    rows = re.findall(r"<tr>(.*?)</tr>", content)
    return [re.findall(r"<t[hd]>(.*?)</t[hd]>", row) for row in rows]


def test_classes_that_exclude_each_other_have_a_square_of_confusions():
    sure = ((1, 0, 0), (0.7, 0.2, 0.1)), ((1, 0, 0), (0.1, 0.9, 0.0)), ((0, 0, 1), (0.2, 0.2, 0.6))
    cases = [case(0.5, tuple(map(float, truth)), pred, None) for truth, pred in sure]
    row = {"val_auc_a": "0.75", "val_auc_b": "nan", "val_auc_<c>": "1", "val_ap_a": "0.5", "val_mean_auc": "0.9"}
    assert cells(show_judged(recorded(cases), row)) == [
        ["class", "auc", "ap", "labeled", "positive"],
        ["a", "0.750", "0.500", "3", "2"],
        ["b", "nan", "-", "3", "0"],
        ["&lt;c&gt;", "1.000", "-", "3", "1"],
        ["truth, predicted as:", "a", "b", "&lt;c&gt;"],
        ["a", "1", "1", "0"],
        ["b", "0", "0", "0"],
        ["&lt;c&gt;", "0", "0", "1"],
    ]


def test_many_classes_have_a_list_of_confusions():
    eye = np.eye(40).tolist()
    pairs = [(0, 1), (0, 1), (2, 3), (4, 4)]
    cases = [case(0.5, tuple(eye[a]), tuple(eye[b]), None) for a, b in pairs]
    found = cells(show_judged(recorded(cases), {f"val_auc_c{i}": "0.5" for i in range(40)}))
    assert found[41:] == [["truth", "predicted", "cases"], ["c0", "c1", "2"], ["c2", "c3", "1"]]


def test_classes_that_do_not_exclude_each_other_have_right_and_wrong_answers():
    told = [(1.0, 0.8), (1.0, 0.2), (0.0, 0.6), (0.0, 0.1), (math.nan, 0.9), (0.0, 0.4)]
    cases = [case(0.5, (truth,), (pred,), None) for truth, pred in told]
    found = cells(show_judged(recorded(cases), {"val_auc_x": "0.8"}))
    assert found[1:] == [
        ["x", "0.800", "5", "2"],
        ["at probability 0.5", "found", "missed", "false alarms", "rightly absent"],
        ["x", "1", "1", "1", "2"],
    ]


def test_segmented_classes_have_their_dice_and_three_pictures():
    cases = [case(s, (), (s, math.nan)) for s in (0.2, 0.8, 0.5, 0.9)]
    content = show_judged(recorded(cases), {"val_dice_a": "0.6", "val_dice_b": ""}, "validation of epoch 7")
    assert cells(content)[1:] == [["a", "0.600", "4", "0.200", "0.500"], ["b", "-", "0"]]
    assert re.findall(r"<figcaption>(.*?)<small>(.*?)</small>", content) == [
        ("worst: Dice 0.200", "case 0.2; a 0.200"),
        ("median: Dice 0.500", "case 0.5; a 0.500"),
        ("best: Dice 0.900", "case 0.9; a 0.900"),
    ]
    assert "validation of epoch 7, 4 cases" in content


def test_the_cases_of_the_best_epoch_are_kept(tmp_path):
    run = reported_run(tmp_path)
    recorder, state = CaseRecorder(), run.evaluator.state
    kept = []
    for epoch, best in ((1, 1), (2, 2), (3, 2), (4, 4)):
        state.epoch, state.best_metric_epoch, recorder.current = epoch, best, [case(epoch)]
        recorder.finish(run.evaluator)
        kept.append(recorder.epoch)
    assert kept == [1, 2, 2, 4]
    resumed = CaseRecorder()  # the best epoch was before
    for epoch in (6, 7):
        state.epoch, state.best_metric_epoch, resumed.current = epoch, 4, [case(epoch)]
        resumed.finish(run.evaluator)
        assert resumed.epoch == epoch


@pytest.mark.skipif(find_browser() is None, reason="no Chromium; the other tests read the page strictly without one")
@pytest.mark.parametrize(("width", "dark"), [(400, False), (1200, True)])
def test_the_page_opens_in_a_browser(finished, tmp_path, width, dark):
    folder, *_ = finished
    content = (folder / "output/report.html").read_text()
    long = show_values({"a": "x" * 500, "b": ["y z"] * 80}, {"a": "x", "b": 1})
    cases = [case(s, (1.0, 0.0), (s, 1 - s), data_uri(Image.new("RGB", (30, 20)))) for s in (0.1, 0.4, 0.9)]
    row = {f"val_auc_a class of many words, number {i}": "0.5" for i in (1, 2)}
    content = content.replace("</body>", f"{long}{show_judged(recorded(cases), row)}</body>")
    found, messages = open_page(find_browser(), content, tmp_path, width, dark)
    assert messages == []
    assert found["width"] <= found["room"] == width
    assert found["inside"]
    assert len(found["images"]) == 3 + 3
    assert min(found["images"]) > 0
    assert found["color"] == ("rgb(21, 24, 28)" if dark else "rgb(255, 255, 255)")
