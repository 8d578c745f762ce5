"""The benchmarks of speed: tables are what was measured, and all rows of the GPU's script run on a CPU."""

import json
import sys
from pathlib import Path

import pytest
from running import load_script

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def benchmarks():
    sys.path.insert(0, str(ROOT / "benchmarks"))
    names = ("tables", "compare", "gpu", "workloads")
    yield {name: load_script(ROOT / "benchmarks" / f"{name}.py") for name in names}
    sys.path.remove(str(ROOT / "benchmarks"))


def test_the_page_shows_what_was_measured(benchmarks):
    tables = benchmarks["tables"]
    page = tables.PAGE.read_text()
    assert set(tables.MAKERS) == {name for name in tables.MAKERS if f"<!-- {name} -->" in page}
    assert tables.fill(page) == page


def test_a_changed_figure_changes_the_page(benchmarks, tmp_path):
    tables = benchmarks["tables"]
    results = json.loads((tables.RESULTS / "compare.json").read_text())
    next(iter(results["rows"].values()))["ratio"] = [1.234, 2.345, 3.456]
    (tmp_path / "compare.json").write_text(json.dumps(results))
    page = tables.fill(tables.PAGE.read_text(), tmp_path)
    assert "1.23 - 2.35 - 3.46" in page or "1.23 - 2.34 - 3.46" in page
    gpu = {"machine": {"device": "H", "torch": "2", "date": "D"}, "rows": {"a": {"x_y": 2.0}, "b": {"z": 0.5}}}
    (tmp_path / "gpu.json").write_text(json.dumps(gpu))
    assert "| measured | x y | z |\n|---|---|---|\n| a | 2 |  |\n| b |  | 0.5 |" in tables.fill(page, tmp_path)


def test_every_measurement_is_of_a_row_and_has_its_goals(benchmarks):
    compare = benchmarks["compare"]
    rows = json.loads((compare.RESULTS / "compare.json").read_text())["rows"]
    assert rows
    for name, found in rows.items():
        row = compare.ROWS[name]
        assert (found["goal"], found["memory_goal"]) == (row.goal, row.memory_goal)


def test_sides_take_turns_and_the_ratio_is_that_of_neighbors(benchmarks, monkeypatch):
    compare = benchmarks["compare"]
    order = []

    class Side:
        def __init__(self, name, log):
            self.name, self.rates = name, iter({"ours": (2.0, 6.0, 8.0)}.get(name, (1.0, 2.0, 1.0)))

        def turn(self, seconds):
            order.append(self.name)
            return {"items_per_cpu_second": next(self.rates), "peak_mib": len(order)}

        def close(self):
            order.append("end")

    monkeypatch.setattr(compare, "Side", Side)
    found = compare.compare(compare.Row("ours", "peer"), Side("ours", None), 3, 1.0, None)
    assert order == ["ours", "peer"] * 3 + ["end"]
    assert found["ratio"] == [2, 3, 8]
    assert (found["ours_per_cpu_second"], found["theirs_per_cpu_second"]) == (6, 1)
    assert (found["ours_peak_mib"], found["theirs_peak_mib"]) == (5, 6)


def test_epochs_of_fine_tuning_run(benchmarks):
    small = {"network_def#features": [2] * 6, "patch_size": [32, 32, 32]}
    epoch, count = benchmarks["workloads"].make_finetuning(**small)
    assert count == 4
    assert 0 < epoch() < 10


@pytest.mark.parametrize("row", ["views 2D", "views 3D", "step 3D dira bf16", "step 3D genesis fp32"])
def test_rows_of_the_gpu_run_on_a_cpu(benchmarks, tmp_path, row):
    gpu = benchmarks["gpu"]
    found = gpu.plan(gpu.Bench("cpu", quick=True, seconds=0), tmp_path)[row]()
    assert found["images_per_second"] > 0
    assert ("mfu" in found) == row.startswith("step")


def test_the_gpu_script_derives_ratios_and_names_every_row(benchmarks, tmp_path):
    gpu = benchmarks["gpu"]
    names = set(gpu.plan(gpu.Bench("cpu", quick=True, seconds=0), tmp_path))
    assert {f"step {d}D {m} {p}" for d, m in gpu.STEPS for p in gpu.DTYPES} < names
    rows = {f"{name} 3D{end}": {"images_per_second": rate} for name, end, rate in RATES}
    gpu.derive(rows)
    assert rows["step 3D dira bf16"]["against_published"] == 4
    assert rows["epoch 3D bf16"]["against_step"] == 0.9


RATES = (("step", " dira bf16", 20.0), ("published step", "", 5.0), ("epoch", " bf16", 18.0))
