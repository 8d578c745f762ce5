"""The table of ``make methods``."""

from pathlib import Path

import pytest
from running import load_script

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def methods():
    return load_script(ROOT / "benchmarks" / "methods.py")


@pytest.mark.parametrize("dims", [2, 3])
def test_every_overlay_runs_and_has_a_row_in_the_docs(methods, dims):
    first, *overlays = methods.find_methods(dims)
    rows = (ROOT / "docs" / "objectives.md").read_text().split("|---|---|---|---|---|\n")[1].split("\n\n")[0]
    bundles = {row.split("`")[1]: row.split("|")[3] for row in rows.splitlines() if "`" in row.split("|")[2]}
    assert first == "dira"
    assert sorted(overlays) == sorted(name for name, where in bundles.items() if f"{dims}D" in where)


def test_a_failed_method_keeps_its_row_and_says_why(methods):
    losses = {name: [2.0, 1.5] for name in methods.LOSSES} | {"adversarial": [None, None]}
    done = {"dims": 2, "method": "dira", "seconds": 9.0, "seconds_per_step": 0.25, "peak_mib": 512.4, "losses": losses}
    failed = {"dims": 3, "method": "voco", "seconds": 1.0, "failed": "no such file", "log": "voco/log.txt"}
    table = methods.describe([done, failed])
    *_, first, second, reason = table.splitlines()
    assert first.split() == ["2d", "dira", "0.250", "512", "1.5", "1.5", "1.5", "-"]
    assert second.split() == ["3d", "voco", "failed"]
    assert reason == "3d voco failed, see voco/log.txt: no such file"


def test_a_command_that_fails_is_told_with_its_last_line(methods, tmp_path, monkeypatch):
    monkeypatch.setattr(methods, "bundle", lambda dims: tmp_path)
    facts = methods.run_method(2, "dira", tmp_path, tmp_path / "run")
    assert "train.json" in facts["failed"]
    assert "seconds_per_step" not in facts
