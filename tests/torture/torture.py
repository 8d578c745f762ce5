"""Attacks on real runs, and what came of them: kills at random moments, lost processes, hours of running.

    make torture                                     # 100 kills, 2 hours: HOURS=0.5 KILLS=30 make torture
    python tests/torture/torture.py FOLDER --kills 30 --hours 0.3

Each line that it prints is a fact; what does not hold ends it with an error.
"""

import argparse
import csv
import hashlib
import json
import os
import platform
import random
import signal
import sys
import time
from pathlib import Path
from statistics import mean

HELPERS = Path(__file__).parents[1] / "helpers"
sys.path.insert(0, str(HELPERS))

import finetune_bundle
import pretrain_bundle
from programs import group_environments, start
from running import assert_equal_states, command_of, load

LONGER = {"epoch_length": 6, "max_epochs": 4, "resume": True, "tensorboard": False}
ENDS = [signal.SIGKILL] * 7 + [signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP]  # of ten attacks
PRETRAINING = [("pretrain", 2), ("pretrain", 3)]


class Work:
    """What is attacked: a command that can be repeated, and what it leaves in a folder."""

    def __init__(self, kind, scans):
        self.kind = kind
        self.scans = scans
        self.name = f"{kind[0]} {kind[1]}D"

    def words(self, folder):
        """The command, behind ``python``."""
        task, dims = self.kind
        if task == "list":
            return ["-m", "dira_monai", "datalist", self.scans[dims], "--output", folder / "list.json"]
        if task == "prepare":
            config = pretrain_bundle.BUNDLES[dims]
            return ["-m", "dira_monai", "prepare", self.scans[dims] / "list.json", folder / "store", "--config", config]
        return self._training(folder, ["train"])

    def _training(self, folder, files, **more):
        task, dims = self.kind
        if task == "pretrain":
            options = pretrain_bundle.overrides(dims, self.scans, folder, **LONGER | more)
            return pretrain_bundle.command(dims, files, options)
        options = finetune_bundle.overrides(self.kind, self.scans, folder, **LONGER | more)
        return command_of(finetune_bundle.bundle(*self.kind), files, options)

    def result(self, folder):
        """Everything that must be the same, however often the work was broken off."""
        if self.kind[0] in ("list", "prepare"):
            files = [path for path in sorted(folder.rglob("[!.]*.*")) if path.is_file()]
            return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
        assert not list(folder.rglob(".*.tmp")), "half written files are left"
        states = {path.name: load(path) for path in sorted((folder / "models").glob("[!.]*.pt"))}
        states.pop("checkpoint_1.pt", None)  # a run that was broken off may have saved inside of the last epoch
        with open(folder / "out/metrics.csv") as file:
            rows = [{k: v for k, v in row.items() if k != "images_per_second"} for row in csv.DictReader(file)]
        return states | {"rows": rows}


def run(words, folder):
    """A process that works, with its output in files."""
    (folder / "log").mkdir(parents=True, exist_ok=True)
    return start(words, outputs=[folder / "log/out", folder / "log/err"], OMP_NUM_THREADS="1")


def attack(work, kills, folder, seed=0):
    """Break a work off at random moments and repeat it, until so many kills were made; each result is the unbroken one.

    Returns:
        Number of kills, of signals among them that ended the work behind a saved step, and of results.
    """
    chance = random.Random(f"{seed} {work.name}")
    whole = folder / "whole"
    began = time.monotonic()
    process = run(work.words(whole), whole)
    process.join()
    assert process.exitcode == 0, (whole / "log/err").read_text()
    length, expected = time.monotonic() - began, work.result(whole)
    done, stopped, results = 0, 0, 0
    while done < kills or results == 0:
        broken = folder / f"broken{results}"
        while True:
            process = run(work.words(broken), broken)
            if done < kills:
                process.join(chance.uniform(0, length))
            else:
                process.join()
            if process.exitcode is not None:
                break
            end = chance.choice(ENDS)
            os.kill(process.pid, end)
            process.join()
            done += 1
            stopped += process.exitcode == 128 + end
        assert process.exitcode == 0, (broken / "log/err").read_text()
        assert_equal_states(work.result(broken), expected)
        results += 1
    return done, stopped, results


def lose(work, folder, number, seed=0):
    """Freeze or kill one of two processes at a random moment: seconds until the other has named it and ended."""
    victim = random.Random(f"{seed} {work.name} {number}").randrange(2)
    words = work._training(folder, ["train", "multi_gpu_train"], timeout_minutes=0.2, max_epochs=1000)
    folder.mkdir(parents=True)
    errors = [folder / f"{rank}.err" for rank in (0, 1)]
    groups = zip(errors, group_environments(2), strict=True)
    pair = [start(words, outputs=[os.devnull, file], OMP_NUM_THREADS="1", **group) for file, group in groups]
    while not (folder / "out/metrics.csv").exists():
        assert all(process.is_alive() for process in pair), errors[0].read_text() + errors[1].read_text()
        time.sleep(0.1)
    time.sleep(random.Random(seed).uniform(0, 3))
    os.kill(pair[victim].pid, number)
    began = time.monotonic()
    pair[1 - victim].join(120)
    pair[victim].kill()
    told = errors[1 - victim].read_text()
    assert pair[1 - victim].exitcode == 1, told
    assert f"of 2 processes {victim} (host " in told, told
    return time.monotonic() - began


def soak(work, hours, folder):
    """Train for hours: means of the second and of the last tenth of the time.

    Returns:
        Memory (MB), open files, CPU milliseconds an epoch (which other work on the machine changes little), the number
        of epochs, and the bytes that TensorBoard gets an epoch.
    """
    process = run(work._training(folder, ["train"], max_epochs=10**6, keep_checkpoints=2, tensorboard=True), folder)
    samples, deadline = [], time.monotonic() + 3600 * hours
    while time.monotonic() < deadline:
        process.join(min(10.0, 360 * hours))
        assert process.exitcode is None, (folder / "log/err").read_text()
        samples.append(measure(process.pid, folder / "out/metrics.csv"))
    os.kill(process.pid, signal.SIGTERM)
    process.join()
    assert process.exitcode == 128 + signal.SIGTERM
    tenth = max(1, len(samples) // 10)
    parts = [samples[tenth : 2 * tenth + 1], samples[-tenth - 1 :]]
    facts = {
        name: [round(mean(sample[n] for sample in part), 1) for part in parts] for n, name in ((0, "MB"), (1, "files"))
    }
    spent = [(part[-1][2] - part[0][2]) / max(1, part[-1][3] - part[0][3]) for part in parts]
    size = sum(path.stat().st_size for path in (folder / "out/tensorboard").iterdir())
    epochs = samples[-1][3]
    facts["CPU ms an epoch"] = [round(1000 * seconds) for seconds in spent]
    return facts | {"epochs": epochs, "TensorBoard bytes an epoch": round(size / max(1, epochs))}


def measure(pid, metrics):
    """Memory (MB), open files and CPU seconds of a process, and the number of rows of its table."""
    status = Path(f"/proc/{pid}/status").read_text()
    memory = int(status.split("VmRSS:")[1].split()[0]) / 1024
    times = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    seconds = (int(times[11]) + int(times[12])) / os.sysconf("SC_CLK_TCK")
    epochs = metrics.read_bytes().count(b"\n") - 1 if metrics.exists() else 0
    return memory, len(os.listdir(f"/proc/{pid}/fd")), seconds, epochs


def make_works(folder):
    """Trainings, and commands that read many images."""
    few = {d: pretrain_bundle.write_scans(folder / f"few{d}", d) for d in (2, 3)}
    many = {d: pretrain_bundle.write_scans(folder / f"many{d}", d, count=60) for d in (2, 3)}
    labeled = {d: finetune_bundle.write_data(folder / f"labeled{d}", d) for d in (2, 3)}
    for scans in many.values():
        made = run(["-m", "dira_monai", "datalist", scans, "--output", scans / "list.json"], folder)
        made.join()
        assert made.exitcode == 0
    trainings = [Work(kind, few) for kind in PRETRAINING] + [Work(kind, labeled) for kind in finetune_bundle.KINDS]
    return trainings, [Work((task, d), many) for task in ("list", "prepare") for d in (2, 3)]


def main():
    """Run all attacks."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--hours", type=float, default=2.0)
    parser.add_argument("--seed", type=int, default=0)
    words = parser.parse_args()
    words.folder = words.folder.absolute()  # trainings begin in another folder
    words.folder.mkdir(parents=True)
    trainings, works = make_works(words.folder / "data")
    print(f"{platform.platform()}, {os.cpu_count()} processors, Python {platform.python_version()}", flush=True)
    if words.kills > 0:
        everything = [*trainings, *works]
        shares = [words.kills // len(everything) + (n < words.kills % len(everything)) for n in range(len(everything))]
        for work, kills in zip(everything, shares, strict=True):
            done, stopped, results = attack(work, kills, words.folder / work.name.replace(" ", "_"), words.seed)
            print(
                f"{work.name}: {done} kills, {stopped} of them behind a saved step; {results} results, all equal",
                flush=True,
            )
        for work in trainings[:3]:
            for number in (signal.SIGSTOP, signal.SIGKILL):
                seconds = lose(
                    work, words.folder / f"pair_{work.name.replace(' ', '_')}_{number.name}", number, words.seed
                )
                print(f"{work.name}, one of two processes, {number.name}: named after {seconds:.0f} s", flush=True)
    if words.hours > 0:
        facts = soak(trainings[0], words.hours, words.folder / "soak")
        print(f"{trainings[0].name} for {words.hours} h, start and end: {json.dumps(facts)}")


if __name__ == "__main__":
    main()
