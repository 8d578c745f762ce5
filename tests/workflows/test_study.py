"""Studies: their cells, what is refused, a whole one on synthetic images, and what is concluded."""

import contextlib
import csv
import itertools
import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import finetune_bundle
import numpy as np
import pretrain_bundle
import pytest
from html_pages import read_page

from dira_monai import InputError, study
from dira_monai.apps.comparison.cases import Cases
from dira_monai.apps.comparison.statistics import estimate
from dira_monai.handlers.training_log import TrainingLog
from dira_monai.workflows.study import run
from dira_monai.workflows.study.cell import run_cell
from dira_monai.workflows.study.grid import Cell, Key, make_cells, read_study, ready_studies, with_networks
from dira_monai.workflows.study.lists import thin_class
from dira_monai.workflows.study.report import conclude
from dira_monai.workflows.study.results import Findings, Group, Result, labels_share, steps_share
from dira_monai.workflows.study.workers import Worker, launch

EMPTY = {"tasks": {}, "pretrainings": {}}
PLAIN = {"initializations": {"random": None, "dira": {}}, "tasks": {"organs": {"task": "segmentation"}}}


def write(folder, **entries):
    (folder / "study.json").write_text(json.dumps(PLAIN | entries))
    return folder / "study.json"


def cells_of(folder, dims=2, **entries):
    return make_cells(read_study(write(folder, **entries), {}), dims, EMPTY)


@pytest.mark.parametrize("name", ready_studies())
def test_a_ready_study_starts(name, spatial_dims, capsys):
    study(name, dims=spatial_dims, seeds=1, subsets=1, dry_run=True)
    assert re.search(r"^\d+ cells, all values are known; nothing was run$", capsys.readouterr().out, re.MULTILINE)


CELLS = {
    "demo_2d": 7,
    "demo_3d": 7,
    "xrays": 1 + 6 * 10,
    "parts": 6 + 21 * 5,
    "brains": 23,
    "hippocampus": 1 + 4 * 9,
    "primitives": 36,
}


@pytest.mark.parametrize(("name", "cells"), CELLS.items())
def test_the_studies_of_demo_and_results_start(name, cells, capsys):
    study(Path(__file__).parents[2] / f"benchmarks/{name}.json", labeled="phantoms", dry_run=True)
    assert f"\n{cells} cells, all values are known; nothing was run" in capsys.readouterr().out


def test_cells_are_a_grid(tmp_path):
    cells = cells_of(tmp_path, label_fractions=[0.1, 1], subsets=3, seeds=2, tuning=[{"learning_rate": 0.1}, {}])
    first, *tuned = cells
    assert (first.name, first.verb, first.key) == ("pretrainings/dira-organs", "pretrain", None)
    assert len(tuned) == 2 * (3 + 1) * 2 * 2  # with all labels, there is one subset
    assert len({cell.name for cell in cells}) == len(cells)
    one = next(cell for cell in tuned if cell.key == Key("organs", "dira", 0.1, 2, 1, 0))
    assert one.name == "cells/organs/dira/labels_0.1/subset_2/seed_1/tuning_0"
    expected = {"label_fraction": 0.1, "label_seed": 2, "seed": 1, "learning_rate": 0.1, "allow_overlap": False}
    assert expected.items() <= one.arguments.items()
    assert one.arguments["pretrained"] == one.needs == first.name
    # every initialization has the same values: nothing but the weights differs
    pairs = {}
    for cell in tuned:
        pairs.setdefault((*cell.key[2:],), []).append({k: v for k, v in cell.arguments.items() if k != "pretrained"})
    assert all(a == b for a, b in pairs.values())


def test_weights_of_the_package_bring_their_network_to_all_initializations(tmp_path):
    tasks = {name: {"task": name} for name in ("segmentation", "classification")}
    starts = {"random": None, "primitives": {"weights": "primitives_2d"}}
    finetune = {"network_def#backbone": "resnet18"}  # what is given stays
    read = read_study(write(tmp_path, tasks=tasks, initializations=starts, finetune=finetune), {"unlabeled": "x"})
    cells = make_cells(with_networks(read, 2), 2, EMPTY)
    assert len(cells) == 4
    for cell in cells:
        network = {name: value for name, value in cell.arguments.items() if name.startswith("network_def")}
        own = "network_def#decoder_channels" if cell.key.task == "segmentation" else "network_def#_target_"
        expected = {"network_def#decoder_channels": [96, 48, 24, 16, 8], "network_def#_target_": "resnet10"}
        assert network == finetune | {own: expected[own]}
    with pytest.raises(InputError, match=r"primitives_2d: is for .+ are for dira_finetune_segmentation_3d"):
        with_networks(read, 3)
    whole = {"network_def": {"_target_": "BasicUNet"}}
    assert with_networks(read | {"finetune": whole}, 2)["tasks"]["segmentation"]["values"] == {}


def test_a_task_may_have_fractions_of_its_own(tmp_path):
    tasks = {"a": {"task": "segmentation"}, "b": {"task": "segmentation", "label_fractions": [0.2, 0.5]}}
    cells = cells_of(tmp_path, tasks=tasks, label_fractions=[0.1, 1], subsets=2)
    keys = {(cell.key.task, cell.key.fraction, cell.key.subset) for cell in cells if cell.key}
    assert keys == {("a", 0.1, 0), ("a", 0.1, 1), ("a", 1, 0), *(("b", f, s) for f in (0.2, 0.5) for s in (0, 1))}


def test_equal_pretrainings_are_one(tmp_path):
    tasks = {"a": {"task": "segmentation"}, "b": {"task": "classification"}}
    names = [cell.name for cell in cells_of(tmp_path, tasks=tasks, unlabeled=str(tmp_path)) if cell.verb == "pretrain"]
    assert names == ["pretrainings/dira"]
    tasks["b"]["pretrain"] = {"batch_size": 4}
    own = [cell for cell in cells_of(tmp_path, tasks=tasks, unlabeled=str(tmp_path)) if cell.verb == "pretrain"]
    assert [(cell.name, cell.arguments.get("batch_size")) for cell in own] == [
        ("pretrainings/dira", None),
        ("pretrainings/dira-b", 4),
    ]
    starts = {"random": None, "file": {"weights": "w.pt"}, "half": {"parts": "encoder"}}
    found = {
        cell.key.initialization: cell.arguments["pretrained"]
        for cell in cells_of(tmp_path, initializations=starts)
        if cell.key
    }
    assert found == {"random": None, "file": "w.pt", "half": "pretrainings/half-organs/models/encoder.pt"}


REFUSED = [
    ({"seed": 3}, "seed is no entry of a study; did you mean seeds?"),
    ({"seeds": 0}, "seeds must be a whole number from 1, got 0"),
    ({"label_fractions": [0]}, "label_fractions must be a list of numbers above 0 and at most 1, got [0]"),
    (
        {"tasks": {"organs": {"task": "segmentation", "label_fractions": 0.1}}},
        "tasks organs: label_fractions must be a list of numbers above 0 and at most 1, got 0.1",
    ),
    ({"tasks": {"x": {"task": "detection"}}}, "tasks x: task must be segmentation or classification, got detection"),
    ({"tasks": {"a/b": {"task": "segmentation"}}}, "tasks 'a/b' becomes a folder; use letters, digits, _ . - only"),
    (
        {"initializations": {"a": {"wieghts": 1}}},
        "initializations a: wieghts is no entry of a study; did you mean weights?",
    ),
    ({"finetune": {"bath_size": 3}}, "cells/organs/random/labels_1/subset_0/seed_0: --bath_size is no value"),
    ({"finetune": {"gradient_clip": -1}}, "--gradient_clip must be a number above 0"),
    ({"pretrain": {"network_def#backbone": "resnet11"}}, "pretrainings/dira-organs: "),
    ({"initializations": {"a": {"method": "simsam"}}}, "method simsam is neither a file nor one of"),
]


@pytest.mark.parametrize(("entries", "sentence"), REFUSED)
def test_refused(entries, sentence, tmp_path):
    with pytest.raises(InputError, match=re.escape(sentence)):
        study(write(tmp_path, **entries), dims=2, dry_run=True)


@pytest.mark.parametrize(("given", "said"), [(3, "got 3"), (None, "got None")])
def test_objects_of_the_file_make_no_objects_of_what_is_given(given, said, tmp_path):
    with pytest.raises(InputError, match=f"finetune must be an object of values, {said}"):
        read_study(write(tmp_path, finetune={"batch_size": 2}), {"finetune": given})


def test_hours_of_the_file_are_put_over_or_left_out(tmp_path):
    path = write(tmp_path, hours={"pretrain": 8, "finetune": 1})
    given = ({}, {"hours": {"finetune": 2}}, {"hours": None})
    found = [read_study(path, entries)["hours"] for entries in given]
    assert found == [{"pretrain": 8, "finetune": 1}, {"pretrain": 8, "finetune": 2}, {}]
    assert read_study(write(tmp_path, hours=None), given[1])["hours"] == {"finetune": 2}


def test_no_study(tmp_path, command):
    status, _, _ = command("study", "few_lables")
    assert "few_lables: neither a JSON file" in status
    assert "nor one of the studies architecture, class_imbalance, few_labels, pretext_fit, stacking" in status
    with pytest.raises(InputError, match="task organs has no data; give --labeled FOLDER"):
        study(write(tmp_path), output=tmp_path / "out")


def patients(count, classes):
    return [{"image": f"{i}_{k}.png", "patient": str(i), "label": classes(i)} for i in range(count) for k in range(2)]


def test_a_class_is_thinned_by_patient_in_nested_steps():
    lists = {"class_names": ["common", "rare"], "training": patients(100, lambda i: int(i % 5 < 2)), "test": [1]}
    found = {ratio: thin_class(lists, ratio) for ratio in (1, 2, 10, 50)}
    counts = {r: [sum(e["label"] == n for e in part["training"]) for n in (0, 1)] for r, part in found.items()}
    assert counts == {1: [80, 80], 2: [80, 40], 10: [80, 8], 50: [80, 2]}
    sets = [{e["image"] for e in part["training"]} for part in found.values()]
    assert all(small < large for large, small in itertools.pairwise(sets))
    assert all(part["test"] == [1] for part in found.values())
    with pytest.raises(InputError, match="80 images of rare are too few for a ratio of 500"):
        thin_class(lists, 500)
    with pytest.raises(InputError, match="rare: expected a class of"):
        thin_class(lists, 2, "x")


def in_this_process(path, words, check):
    try:
        run_cell(path)
    except InputError as error:
        (path / "cell.json").write_text(
            json.dumps(json.loads((path / "cell.json").read_text()) | {"failed": str(error)})
        )
    return 0


@pytest.fixture
def small(finetune_scans, tmp_path, monkeypatch):
    """The ready study few_labels on SYNTHETIC images: few steps, one seed; its cells run in this process."""
    monkeypatch.setattr("dira_monai.workflows.study.workers.run_process", in_this_process)
    unet = pretrain_bundle.UNET
    tuned = finetune_bundle.SMALL | finetune_bundle.OWN["segmentation", 2] | {"max_epochs": 3}
    few = {"hours": {}, "pretrain": pretrain_bundle.SMALL | pretrain_bundle.OWN[2], "finetune": tuned}
    content = json.loads(ready_studies()["few_labels"].read_text()) | few | {"seeds": 1, "subsets": 1}
    content |= {"label_fractions": [0.3], "initializations": {"random": None, "dira": {}}}
    content["tasks"]["target"]["label_fractions"] = [0.4, 1]
    assert unet["features"] == content["pretrain"]["network_def"]["features"]
    (tmp_path / "few.json").write_text(json.dumps(content))
    return lambda **more: study(
        tmp_path / "few.json", labeled=str(finetune_scans[2]), output=str(tmp_path / "out"), **more
    )


def test_a_whole_study_on_synthetic_images(small, tmp_path, capsys, monkeypatch):
    plain, calls = TrainingLog.end_epoch, []

    def killed(self, engine):
        plain(self, engine)
        calls.append(engine.state.epoch)
        if len(calls) == 2 + 3 + 2:  # in epoch 2 of the second fine-tuning
            raise KeyboardInterrupt

    monkeypatch.setattr(TrainingLog, "end_epoch", killed)
    with pytest.raises(KeyboardInterrupt):
        small()
    out = tmp_path / "out"
    assert small() == out
    printed = capsys.readouterr().out
    assert "5 of 5 cells finished, 0 running" in printed
    assert re.search(r"3 of 5 cells finished, 1 running, about \d\.\d min left", printed)
    starts = {
        path.parent.relative_to(out / "cells").as_posix(): len(json.loads(path.read_text())["starts"])
        for path in out.glob("cells/*/*/*/*/*/run.json")
    }
    assert sorted(starts.values()) == [1, 1, 1, 2]  # the killed one went on; nothing else ran twice
    resumed = out / "cells" / max(starts, key=starts.__getitem__)
    assert [row["epoch"] for row in csv.DictReader((resumed / "metrics.csv").open())] == ["1", "2", "3"]
    begun = len(calls)
    small()
    assert len(calls) == begun  # all of it is there
    check_report(out)
    with pytest.raises(
        InputError, match=r"organs was prepared here|target was prepared here for .*; give another --output"
    ):
        small(finetune={"test_fraction": 0.5})
    with pytest.raises(InputError, match="was begun with other values; delete it, or give another --output"):
        small(tuning=[{"learning_rate": 0.1}])


def check_report(out):
    rows = list(csv.DictReader((out / "results.csv").open()))
    assert [row["initialization"] for row in rows] == ["random", "dira"] * 2
    lists = [json.loads(path.read_text()) for path in sorted(out.glob("cells/*/*/*/*/*/datalist.json"))]
    assert all(entry == lists[0] for entry in lists)
    assert {row["images"] for row in rows[:2]} != {row["images"] for row in rows[2:]}
    assert not [*out.glob("cells/**/*.pt")]
    page = read_page((out / "report.html").read_text())
    told = page.text("p")
    text = (out / "report.md").read_text()
    assert all(line in text for line in told[:3])
    assert told[2].startswith("Cost: ")
    assert "One seed: chance in training is not counted" in text
    figures = {"differences", "target_by_labels", "target_by_steps_0.4", "target_by_steps_1"}
    assert {path.stem for path in out.glob("figures/*.svg")} == figures
    assert all(f"figures/{name}.svg" in text for name in figures)


def test_what_fails_is_told_and_the_rest_goes_on(small):
    bad = {"bad": {"values": {"intensity_range": [5000, 9000]}}}
    with pytest.raises(
        InputError, match=r"3 of 8 cells are left, the first: .*pretrainings/bad-target: .*intensity_range"
    ):
        small(initializations=bad, pretrain={"max_epochs": 1}, finetune={"max_epochs": 1})


def test_pretraining_must_not_know_the_test_patients(small, finetune_scans):
    folder = str(finetune_scans[2] / "images")
    with pytest.raises(InputError, match=r"dira for target: warning: 4 of 4 images are, .* knows none of them"):
        small(unlabeled=folder)


def test_two_workers_share_the_cells(tmp_path, monkeypatch, capsys):
    pytest.importorskip("submitit")
    monkeypatch.setattr("dira_monai.workflows.study.workers.POLL", 0.05)
    code = "import sys; from dira_monai.workflows.study.cell import *; update_cell(Path(sys.argv[1]), finished=True)"
    cells = [Cell(f"c{n}", "finetune", "", {"pretrained": "c0"} if n else {}, "c0" if n else None) for n in range(6)]
    run._begin(cells, tmp_path, False)
    launch(Worker(cells, tmp_path, ("-c", code)), 2, None, {})
    states = [json.loads((tmp_path / f"c{number}/cell.json").read_text()) for number in range(6)]
    assert all(state["finished"] and not state["failed"] for state in states)
    assert "6 of 6 cells finished, 0 running" in capsys.readouterr().out


STUDY = """
import sys
from pathlib import Path
from dira_monai.workflows.study.cell import update_cell
from dira_monai.workflows.study.grid import Cell
from dira_monai.workflows.study.workers import Worker, launch
folder = Path(sys.argv[1])
cells = [Cell(f"c{n}", "finetune", "", {}, None) for n in range(2)]
for cell in cells:
    update_cell(folder / cell.name, finished=False)
code = "import sys, time; open(sys.argv[1] + '/begun', 'w').close(); time.sleep(1000)"
launch(Worker(cells, folder, ("-c", code)), int(sys.argv[2]), None, {})
"""


@pytest.mark.parametrize("workers", [1, 2])
def test_no_cell_outlives_a_study_that_is_told_to_end(workers, tmp_path):
    pytest.importorskip("submitit")
    process = subprocess.Popen([sys.executable, "-c", STUDY, str(tmp_path), str(workers)])
    wait_for(lambda: len(list(tmp_path.glob("c*/begun"))) == workers)
    process.terminate()
    assert process.wait(100) == 128 + signal.SIGTERM
    wait_for(lambda: not any(str(tmp_path) in words for words in running()))  # workers too


def wait_for(true, seconds=300):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.1)


def running():
    """Command lines of all processes."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            yield path.read_text()


def planted(name, fraction, values, curve=((10, 0.5), (20, 0.6))):
    """A group of runs, one a seed, with the Dice of each patient."""
    runs = []
    for seed, dice in enumerate(values):
        dice = np.asarray(dice, float)[:, None]
        cases = Cases(name, "val_mean_dice", tuple(map(str, range(len(dice)))), np.arange(len(dice)), dice)
        cell = Cell("", "finetune", "", {}, None, Key("t", name, fraction, 0, seed, 0))
        runs.append(
            Result(cell, {"val_mean_dice": float(dice.mean())}, cases, list(curve), round(100 * fraction), 60.0)
        )
    return Group([runs], 0, estimate([[run.cases for run in runs]]))


def found_of(*groups, seconds=3600.0):
    places = {group.every[0].cell.key[:3]: group for group in groups}
    found = Findings([], places, "random")
    for place, group in places.items():
        found.pretraining[place] = seconds
        base = places["t", "random", place[2]]
        if group is not base:
            found.differences[place] = estimate(*([[r.cases for r in row] for row in g.runs] for g in (group, base)))
            found.corrected[place] = found.differences[place].p
    return found


@pytest.mark.parametrize(
    ("gain", "first"),
    [
        (0.1, "Take dira: its scores differ by +0.100 in the mean of 2 comparisons with random."),
        (-0.1, "Start from random: of 1 others the best is dira, -0.100 in the mean of 2 comparisons with random."),
        (None, "dira may help, +0.000 in the mean of 2 comparisons with random, but none of these is sure."),
    ],
)
def test_three_sentences(gain, first):
    values = np.random.default_rng(0).random((3, 9)) / 2
    other = values + gain if gain is not None else values + np.array([-0.2] * 4 + [0.0] + [0.2] * 4) + 1e-9
    found = found_of(*(planted(n, f, v) for n, v in (("random", values), ("dira", other)) for f in (0.1, 1.0)))
    lines = conclude({"initializations": {"random": None, "dira": {}}, "seeds": 3}, found)
    assert lines[0] == first
    sure = 2 if gain else 0
    assert (
        f"above in {sure if gain and gain > 0 else 0} and below in {sure if gain and gain < 0 else 0} of 2" in lines[1]
    )
    assert "with 9 test patients, 1 subset, 3 seeds." in lines[1]
    assert lines[2].startswith("Cost: 1.0 h of pre-training")
    assert ("(6.0 min for each 0.01 gained)" in lines[2]) == (gain == 0.1)
    assert conclude({"initializations": {"random": None}, "seeds": 3}, found)[0].startswith("Nothing can be compared")


def test_labels_and_steps_that_are_saved():
    flat = [[0.5] * 4, [0.5] * 4]
    runs = [planted("random", f, np.add(flat, g)) for f, g in ((0.1, 0.0), (1.0, 0.2))]
    runs += [planted("dira", f, np.add(flat, g)) for f, g in ((0.1, 0.1), (0.4, 0.3), (1.0, 0.3))]
    found = Findings([], {group.every[0].cell.key[:3]: group for group in runs}, "random")
    assert labels_share(found, "t", "dira") == pytest.approx(0.2)  # half the way from 10 to 40, in logarithms
    assert labels_share(found, "t", "random") == pytest.approx(1.0)
    base = planted("random", 1.0, flat, [(10, 0.2), (20, 0.6), (30, 0.5)])
    assert steps_share(planted("dira", 1.0, flat, [(5, 0.1), (10, 0.7)]), base) == 0.5
    assert np.isnan(steps_share(planted("dira", 1.0, flat, [(10, 0.55)]), base))
    assert np.isnan(steps_share(base, planted("random", 1.0, flat, [])))
