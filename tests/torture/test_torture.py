"""The short form of ``make torture``: few kills of two works, seconds of running."""

import pytest
from torture import Work, attack, soak


@pytest.mark.parametrize("kind", [("pretrain", 2), ("list", 3)])
def test_a_work_that_was_killed_gives_what_an_unbroken_one_gives(kind, pretrain_scans, tmp_path):
    done, _, results = attack(Work(kind, pretrain_scans), 2, tmp_path)
    assert (done, results) >= (2, 1)


def test_a_run_neither_grows_nor_slows(pretrain_scans, tmp_path):
    found = soak(Work(("pretrain", 2), pretrain_scans), 10 / 3600, tmp_path)
    assert found["files"][1] <= found["files"][0] + 3
