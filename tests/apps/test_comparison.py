"""Statistics of runs against hand-worked cases and scipy."""

import json
import math

import numpy as np
import pytest
import torch
from finetune_bundle import train
from scipy.stats import mannwhitneyu, t, ttest_1samp, ttest_rel

from dira_monai.apps.comparison.cases import Cases, read_cases, weighted_auc
from dira_monai.apps.comparison.statistics import estimate, holm, resample
from dira_monai.metrics import class_auc
from dira_monai.utils.errors import InputError

NAN = math.nan


def dice_run(values, patients=None):
    values = np.asarray(values, dtype=float)
    values = values if values.ndim == 2 else values[:, None]
    people = np.arange(len(values)) if patients is None else np.asarray(patients)
    return Cases("run", "val_mean_dice", tuple(map(str, range(len(values)))), people, values)


def auc_run(scores, truth, patients=None):
    scores, truth = (np.asarray(x, dtype=float).reshape(len(truth), -1) for x in (scores, truth))
    people = np.arange(len(truth)) if patients is None else np.asarray(patients)
    return Cases("run", "val_mean_auc", tuple(map(str, range(len(truth)))), people, scores, truth)


@pytest.mark.parametrize(
    ("scores", "truth", "weights", "expected"),
    [
        ([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1], [1, 1, 1, 1], 0.75),  # 3 of 4 pairs
        ([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1], [1, 2, 1, 1], 4 / 6),  # the second negative twice
        ([0.5, 0.5, 0.5], [0, 1, 1], [1, 1, 1], 0.5),  # ties count half
        ([1, 2, 3, 0], [0, 1, 1, NAN], [1, 1, 1, 9], 1.0),
        ([1, 2, 3], [1, 1, 1], [1, 1, 1], NAN),
        ([1, 2, 3], [0, 1, 1], [0, 1, 1], NAN),  # no negative drawn
        ([1.0], [NAN], [1], NAN),
    ],
)
def test_weighted_auc_counts_pairs(scores, truth, weights, expected):
    found = weighted_auc(np.array(scores, float), np.array(truth, float), np.array([weights, weights], float))
    assert found == pytest.approx([expected] * 2, nan_ok=True)


def test_weighted_auc_is_that_of_repeated_cases(monkeypatch):
    monkeypatch.setattr("dira_monai.apps.comparison.cases.AT_ONCE", 100)  # in several parts
    rng = np.random.default_rng(0)
    scores, truth = rng.integers(0, 9, 40).astype(float), rng.integers(0, 2, 40).astype(float)
    weights = rng.multinomial(40, [1 / 40] * 40, size=7)
    for found, counts in zip(weighted_auc(scores, truth, weights), weights, strict=True):
        some, labels = scores.repeat(counts), truth.repeat(counts)
        statistic = mannwhitneyu(some[labels == 1], some[labels == 0]).statistic
        assert found == pytest.approx(statistic / (labels == 1).sum() / (labels == 0).sum())


def test_equal_runs_do_not_differ():
    rng = np.random.default_rng(0)
    for run in (dice_run(rng.random(9)), auc_run(rng.random(9), [0, 1, 0, 1, 0, 1, 0, 1, 1])):
        found = estimate([[run, run]], [[run, run]])
        assert found == (0.0, 0.0, 0.0, 0.0, 1.0)


def test_a_perfect_auc_is_sure():
    found = estimate([[auc_run([1, 2, 3, 4, 5, 6], [0, 0, 0, 1, 1, 1])]])
    assert (found.value, found.low, found.high) == (1, 1, 1)  # resamples of one class are left out


def test_ten_times_the_scores_changes_nothing():
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 2, 30)
    first, second = rng.random(30), rng.random(30) + 0.3 * truth
    plain = estimate([[auc_run(second, truth)]], [[auc_run(first, truth)]])
    assert estimate([[auc_run(10 * second, truth)]], [[auc_run(first, truth)]]) == plain
    assert 0 < plain.p < 1


def test_a_class_without_cases_does_not_count():
    truth = [[0, 0], [1, 0], [0, 0], [1, 0]]
    scores = [[0.2, 0.1], [0.3, 0.2], [0.4, 0.9], [0.8, 0.4]]
    assert estimate([[auc_run(scores, truth)]]).value == 0.75
    nothing = estimate([[auc_run([1, 2], [1, 1])]])
    assert all(map(math.isnan, nothing))
    values = [[0.5, NAN], [0.7, 0.9], [NAN, NAN]]
    assert estimate([[dice_run(values)]]).value == pytest.approx((0.5 + 0.8) / 2)


def test_over_patients_it_is_the_t_test():
    """Of one run, the interval of a mean is Student's, and p of a difference that of his paired test."""
    first, second = np.random.default_rng(0).random((2, 40))
    found = estimate([[dice_run(second)]])
    assert found.error == pytest.approx(second.std(ddof=1) / math.sqrt(40), rel=0.03)
    interval = ttest_1samp(second, 0).confidence_interval()
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high), abs=0.005)
    assert math.isnan(found.p)
    assert estimate([[dice_run(second)]], [[dice_run(first)]]).p == pytest.approx(
        ttest_rel(second, first).pvalue, abs=0.01
    )


def test_few_that_agree_are_not_sure():
    """Three patients that gain 0.01, 0.02 and 0.03; one alone tells nothing."""
    found = estimate([[dice_run([0.51, 0.52, 0.53])]], [[dice_run([0.5] * 3)]])
    assert found.p == pytest.approx(ttest_1samp([0.01, 0.02, 0.03], 0).pvalue, abs=0.01)
    assert found.low < 0
    one = estimate([[dice_run([0.6])]], [[dice_run([0.5])]])
    assert one.value == pytest.approx(0.1)
    assert all(map(math.isnan, one[1:]))


def test_patients_come_with_all_of_their_cases():
    """Ten equal cases of each patient tell no more than one."""
    values = np.random.default_rng(0).random(12)
    once, often = dice_run(values), dice_run(values.repeat(10), np.arange(12).repeat(10))
    assert estimate([[often]]).error == pytest.approx(estimate([[once]]).error)


def test_seeds_and_subsets_count():
    """Runs whose cases are all alike differ by their seeds or subsets alone: the error is that of these means."""
    levels = [0.1, 0.2, 0.4, 0.3, 0.6]
    runs = [dice_run([level] * 6) for level in levels]
    expected = np.std(levels, ddof=1) / math.sqrt(5)
    for grid in ([runs], [[run] for run in runs]):
        found = estimate(grid)
        assert found.error == pytest.approx(expected, rel=0.03)
        assert (found.high - found.value) / found.error == pytest.approx(t.ppf(0.975, 4))
    base = [dice_run([0.05] * 6)] * 5
    assert estimate([runs], [base]).p == pytest.approx(ttest_1samp(levels, 0.05).pvalue, rel=0.1)


def test_differences_are_paired():
    """Patients differ much, the runs by the same in each patient: that is sure."""
    values = np.random.default_rng(0).random(20)
    found = estimate([[dice_run(values + 0.01)]], [[dice_run(values)]])
    assert (found.low, found.high) == pytest.approx((0.01, 0.01))
    assert found.p < 1e-6
    assert np.array_equal(resample([[dice_run(values)]]).all, resample([[dice_run(values)]]).all)


def test_runs_on_other_cases_are_refused():
    run = dice_run([1, 2, 3])
    with pytest.raises(InputError, match="run: 1 runs cannot be paired with 2; give as many of each"):
        estimate([[run, run]], [[run]])
    for other in (dice_run([1, 2]), dice_run([1, 2, 3], [0, 0, 1]), auc_run([1, 2, 3], [0, 1, 1])):
        with pytest.raises(InputError, match="was not tested on the same cases as run; evaluate both on one list"):
            estimate([[other]], [[run]])
    with pytest.raises(InputError, match="was not tested on the same cases"):
        estimate([[auc_run([1, 2, 3], [0, 1, 1])]], [[auc_run([1, 2, 3], [0, 0, 1])]])


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.01, 0.04, 0.03], [0.03, 0.06, 0.06]),
        ([0.01, NAN, 0.04, 0.03], [0.03, NAN, 0.06, 0.06]),
        ([0.6, 0.7], [1.0, 1.0]),
        ([], []),
    ],
)
def test_holm(values, expected):
    assert holm(values) == pytest.approx(expected, nan_ok=True)


def write_run(folder, task, entries, table, name):
    content = {"dataset_dir": str(folder), "task": task, "class_names": ["a", "b"], "test": entries}
    (folder / "evaluation").mkdir(parents=True)
    (folder / "datalist.json").write_text(json.dumps(content))
    rows = [line if line.startswith("filename") else f"{folder}/{line}" for line in table]
    (folder / "evaluation" / name).write_text("\n".join(rows))
    return folder


def test_cases_are_read_in_the_order_of_the_list(tmp_path):
    entries = [{"image": f"{i}.png", "patient": p, "label": n} for i, p, n in ((1, "x", 0), (2, "y", 1), (3, "x", 1))]
    table = ["3.png,0.2,0.8", "1.png,0.9,0.1", "2.png,0.6,0.4"]
    run = write_run(tmp_path / "c", "classification", entries, table, "predictions.csv")
    found = read_cases(run)
    assert found.patients.tolist() == [0, 1, 0]
    assert found.result[:, 1].tolist() == [0.1, 0.4, 0.8]
    assert found.truth.tolist() == [[1, 0], [0, 1], [0, 1]]
    areas = class_auc(torch.tensor(found.result), torch.tensor(found.truth))
    assert estimate([[found]]).value == pytest.approx(sum(areas) / 2)
    entries = [{"image": ["1.dcm", "2.dcm"], "label": "l.nii"}, {"image": "3.nii", "label": "m.nii"}]
    table = ["filename,class0,mean", "3.nii,0.25,0.25", "1.dcm,nan,nan"]
    run = write_run(tmp_path / "s", "segmentation", entries, table, "val_mean_dice_raw.csv")
    found = read_cases(run)
    assert (found.truth, found.patients.tolist()) == (None, [0, 1])
    assert found.result[:, 0].tolist() == pytest.approx([NAN, 0.25], nan_ok=True)
    (run / "evaluation/val_mean_dice_raw.csv").write_text(f"{run}/3.nii,0.25,0.25\n")
    with pytest.raises(InputError, match=r"is not of the 2 test images of .*datalist\.json; evaluate again"):
        read_cases(run)
    (run / "evaluation/val_mean_dice_raw.csv").unlink()
    with pytest.raises(InputError, match="no such file; run dira-monai evaluate for this run first"):
        read_cases(run)


def test_scores_of_real_runs_are_those_of_their_evaluation(finetuned):
    kind, folder, options = finetuned
    train(kind, options | {"tensorboard": False}, ("train", "evaluate"))
    written = (folder / "out/evaluation/metrics.csv").read_text().splitlines()[0].split(",")
    found = read_cases(folder / "out")
    assert (found.metric, estimate([[found]]).value) == (written[0], pytest.approx(float(written[1]), rel=1e-5))
