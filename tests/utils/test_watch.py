"""Processes that are frozen, killed or left alone, in groups of two with a limit of seconds."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from programs import group_environments, start
from running import TORCHRUN

from dira_monai.utils.errors import InputError
from dira_monai.utils.watch import join_processes

STEPS = """
import os, sys, time
import torch
from dira_monai.utils.host_sums import sum_over_processes
from dira_monai.utils.distributed import on_first_process
from dira_monai.utils.errors import install_error_hook
from dira_monai.utils.watch import join_processes, leave_processes, note_place

limit, lone, steps = map(float, sys.argv[1:])
print(os.getpid(), flush=True)
install_error_hook()
join_processes("gloo", limit / 60)
on_first_process(lambda: time.sleep(lone))
for step in range(int(steps)):
    sum_over_processes(torch.ones(1))
    note_place(f"iteration {step + 1}")
    print(step + 1, flush=True)
    time.sleep(0.05)
leave_processes()
"""


def start_pair(folder, *words):
    """Two processes, and the files of what they say and of their errors."""
    outputs = [[folder / f"{rank}.{name}" for name in ("out", "err")] for rank in (0, 1)]
    groups = zip(outputs, group_environments(2), strict=True)
    return [start(["-c", STEPS, *words], outputs=map(str, to), **group) for to, group in groups], outputs


def wait_for_steps(file):
    deadline = time.monotonic() + 120
    while not (file.exists() and "60\n" in file.read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.parametrize("number", ["SIGSTOP", "SIGKILL"])
@pytest.mark.parametrize("victim", [0, 1])
def test_a_process_that_is_frozen_or_killed_is_named_and_the_other_ends(tmp_path, number, victim):
    pair, outputs = start_pair(tmp_path, 2, 0, 10**6)
    wait_for_steps(outputs[1][0])
    os.kill(pair[victim].pid, getattr(signal, number))
    pair[1 - victim].join(60)
    pair[victim].kill()
    assert pair[1 - victim].exitcode == 1
    sentence = (
        rf"error: of 2 processes {victim} \(host .+, process {pair[victim].pid}; iteration \d+\) ended or stopped"
    )
    assert len(re.findall(sentence, outputs[1 - victim][1].read_text())) == 1
    assert "Traceback" not in outputs[1 - victim][1].read_text()


def test_one_process_may_work_alone_longer_than_the_limit(tmp_path):
    pair, outputs = start_pair(tmp_path, 1, 3, 5)
    for process in pair:
        process.join(300)
    assert [process.exitcode for process in pair] == [0, 0]
    lines = outputs[1][0].read_text().splitlines()
    assert [line for line in lines if not line.startswith("[Gloo]")][1:] == ["1", "2", "3", "4", "5"]  # torch 2.8


def test_processes_end_without_their_torchrun(tmp_path):
    (tmp_path / "steps.py").write_text(STEPS)
    words = [sys.executable, *TORCHRUN, "--redirects=3", f"--log_dir={tmp_path}/log", str(tmp_path / "steps.py")]
    agent = subprocess.Popen([*words, "2", "0", "1000000"], stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 200
        while len(said := [*tmp_path.rglob("stdout.log")]) < 2 and time.monotonic() < deadline:
            time.sleep(0.2)
        for file in said:
            wait_for_steps(file)
        workers = [int(file.read_text().split()[0]) for file in said]
        agent.kill()
        agent.wait()
        deadline = time.monotonic() + 60
        while any(map(_lives, workers)) and time.monotonic() < deadline:
            time.sleep(0.2)
        assert not any(map(_lives, workers))
        assert any("torchrun that started" in file.read_text() for file in tmp_path.rglob("stderr.log"))
    finally:
        agent.kill()


def _lives(process):
    """Whether there is such a process, and not only its status for a parent that does not ask."""
    try:
        return Path(f"/proc/{process}/stat").read_text().split()[2] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("minutes", [0, -1, "10", True, float("nan")])
def test_a_limit_that_is_none_is_refused(minutes):
    with pytest.raises(InputError, match="--timeout_minutes must be a number above 0"):
        join_processes("gloo", minutes)
