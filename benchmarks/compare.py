"""Our views and steps beside what people would use instead: items a CPU second, in turns, in one run.

Each side is a process of one thread that is started once; both sides of a row take turns of some seconds, so that other
load on the machine meets both alike. A ratio is that of two turns which follow each other. Images are noise: what they
show does not matter for speed. ``python benchmarks/compare.py --help``; ``make bench`` makes the environment too.
"""

import argparse
import importlib
import itertools
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import IO, Any, NamedTuple

import torch

from dira_monai.utils.files import atomic_write
from dira_monai.utils.tables import format_table

RESULTS = Path(__file__).parent / "results"
OURS: dict[str, tuple[str, tuple[Any, ...], dict[str, Any]]] = {  # functions of ``workloads`` and their arguments
    "picture_2d": ("make_pictures", (), {}),
    "views_2d": ("make_views", (2,), {}),
    "views_3d": ("make_views", (3,), {}),
    "di_2d": ("make_step", (2, "di"), {}),
    "di_2d_auto": ("make_step", (2, "di"), {"precision": "auto"}),
    "dira_2d": ("make_step", (2, "dira"), {}),
    "dira_2d_auto": ("make_step", (2, "dira"), {"precision": "auto"}),
    "dira_3d": ("make_step", (3, "dira"), {}),
    "dira_3d_auto": ("make_step", (3, "dira"), {"precision": "auto"}),
    "dira_3d_small": ("make_step", (3, "dira"), {"precision": "auto", "checkpoint_activations": True}),
    "genesis_3d": ("make_step", (3, "genesis"), {}),
    "genesis_3d_auto": ("make_step", (3, "genesis"), {"precision": "auto"}),
    "finetune_3d": ("make_finetuning", (), {}),
    "finetune_3d_auto": ("make_finetuning", (), {"precision": "auto"}),
}


class Row(NamedTuple):
    """A comparison: ours, the peer (module.function of ``peers``), packages to name, and the ratios to reach."""

    ours: str
    peer: str
    packages: tuple[str, ...] = ()
    goal: float = 1.0
    memory_goal: float | None = None


ROWS = {
    "picture_2d/pillow": Row("picture_2d", "pictures.pillow", ("pillow",), 0.67),
    "views_2d/pillow": Row("views_2d", "views_2d.pillow", ("pillow", "numpy"), 2),
    "views_2d/kornia": Row("views_2d", "views_2d.kornia", ("kornia",), 4),
    "views_2d/torchvision": Row("views_2d", "views_2d.torchvision", ("torchvision",), 4),
    "views_2d/monai": Row("views_2d", "views_2d.monai", ("monai",), 4),
    "views_2d/lightly": Row("views_2d", "views_2d.lightly", ("lightly", "torchvision"), 8),
    "views_2d/batchgeneratorsv2": Row("views_2d", "views_2d.batchgenerators", ("batchgeneratorsv2",), 8),
    "views_2d/torchio": Row("views_2d", "views_2d.torchio", ("torchio",), 8),
    "views_2d/published": Row("views_2d", "views_2d.published", (), 10),
    "views_3d/numpy": Row("views_3d", "views_3d.published", ("numpy", "scipy"), 20),
    "views_3d/batchgeneratorsv2": Row("views_3d", "views_3d.batchgenerators", ("batchgeneratorsv2",), 5),
    "views_3d/torchio": Row("views_3d", "views_3d.torchio", ("torchio",), 20),
    "views_3d/monai": Row("views_3d", "views_3d.monai", ("monai",), 60),
    "step_2d_di/lightly": Row("di_2d", "steps.lightly", ("lightly",), 1.5, 1.0),
    "step_2d_di_auto/lightly": Row("di_2d_auto", "steps.lightly", ("lightly",), 1.5, 1.0),
    "step_2d_dira/published": Row("dira_2d", "steps.published_2d", (), 2.5, 0.6),
    "step_2d_dira_auto/published": Row("dira_2d_auto", "steps.published_2d", (), 2.5, 0.6),
    "step_3d_dira/published": Row("dira_3d", "steps.published_3d", (), 2.2, 0.7),
    "step_3d_dira_auto/published": Row("dira_3d_auto", "steps.published_3d", (), 2.2, 0.7),
    "step_3d_dira_small/published": Row("dira_3d_small", "steps.published_3d", (), 2.2, 0.7),
    "step_3d_genesis/plain": Row("genesis_3d", "steps.plain_genesis", (), 1.5, 0.8),
    "step_3d_genesis_auto/plain": Row("genesis_3d_auto", "steps.plain_genesis", (), 1.5, 0.8),
    "finetune_3d/monai": Row("finetune_3d", "finetuning.plain", ("monai",), 2, 1.0),
    "finetune_3d_auto/monai": Row("finetune_3d_auto", "finetuning.plain", ("monai",), 2, 1.0),
}


def find_work(name: str) -> tuple[Callable[[], Any], int]:
    """What one side repeats, and how many items that makes: ours by name, or ``module.function`` of ``peers``."""
    if name in OURS:
        function, arguments, values = OURS[name]
        return getattr(importlib.import_module("workloads"), function)(*arguments, **values)
    module, function = name.split(".")
    return getattr(importlib.import_module(f"peers.{module}"), function)()


def serve(name: str) -> None:
    """A side's process: for each number of seconds on standard input, a line of JSON with what was done in them."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what the sides print goes elsewhere
    torch.set_num_threads(1)
    torch.manual_seed(0)
    work, items = find_work(name)
    work()
    for line in sys.stdin:
        started, calls, until = time.process_time(), 0, time.process_time() + float(line)
        while time.process_time() < until:
            work()
            calls += 1
        used = time.process_time() - started
        unit = 2**20 if sys.platform == "darwin" else 2**10
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
        print(json.dumps({"items_per_cpu_second": calls * items / used, "peak_mib": peak}), file=answers)


class Side:
    """A process that does one side's work when asked."""

    def __init__(self, name: str, log: IO[bytes]) -> None:
        words = [sys.executable, __file__, "--serve", name]
        own = os.environ | dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
        self.name, pipe = name, subprocess.PIPE
        self.process = subprocess.Popen(words, stdin=pipe, stdout=pipe, stderr=log, env=own, text=True)

    def turn(self, seconds: float) -> dict[str, float]:
        """Items a CPU second and peak memory after so many CPU seconds."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{seconds}\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise RuntimeError(f"{self.name} ended with exit status {self.process.wait()}")
        return json.loads(answer)

    def close(self) -> None:
        """End the process."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()


def compare(row: Row, ours_side: Side, rounds: int, seconds: float, log: IO[bytes]) -> dict[str, Any]:
    """Turns of both sides of a row, and their ratios."""
    peer = Side(row.peer, log)
    try:
        turns = [[side.turn(seconds) for side in (ours_side, peer)] for _ in range(rounds)]
    finally:
        peer.close()
    ours, theirs = ([turn[side]["items_per_cpu_second"] for turn in turns] for side in (0, 1))
    return {
        "ratio": spread([a / b for a, b in zip(ours, theirs, strict=True)]),
        "ours_per_cpu_second": statistics.median(ours),
        "theirs_per_cpu_second": statistics.median(theirs),
        "ours_peak_mib": turns[-1][0]["peak_mib"],
        "theirs_peak_mib": turns[-1][1]["peak_mib"],
        "versions": {name: version(name) for name in row.packages},
        "goal": row.goal,
        "memory_goal": row.memory_goal,
        "date": time.strftime("%Y-%m-%d"),
        "load": os.getloadavg()[0],
    }


def spread(values: list[float]) -> list[float]:
    """Smallest, median and largest."""
    return [min(values), statistics.median(values), max(values)]


def machine() -> dict[str, str]:
    """What the figures depend on."""
    found, extensions = platform.processor(), ""
    if Path("/proc/cpuinfo").is_file():
        lines = [line.replace("\t", "").split(": ", 1) for line in Path("/proc/cpuinfo").read_text().splitlines()]
        facts = dict(line for line in lines if len(line) == 2)
        found = facts.get("model name", found)
        flags = facts.get("flags", "").split()
        extensions = " ".join(name for name in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if name in flags)
    return {
        "cpu": found,
        "cpus": str(os.cpu_count()),
        "extensions": extensions,
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def describe(rows: dict[str, dict[str, Any]]) -> str:
    """A table for the terminal."""
    cells = [["row", "ratio min - median - max", "ours/s", "theirs/s", "RSS ratio"]]
    for name, found in rows.items():
        ratio = " - ".join(f"{value:.2f}" for value in found["ratio"])
        memory = found["ours_peak_mib"] / found["theirs_peak_mib"]
        rates = [f"{found[f'{side}_per_cpu_second']:.4g}" for side in ("ours", "theirs")]
        cells.append([name, ratio, *rates, f"{memory:.2f}"])
    return format_table(cells)


def main() -> None:
    """Measure what is asked for; rows that were measured before stay in the file as they are."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="*", metavar="ROW", help=f"rows, or beginnings of them, of {', '.join(ROWS)}")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each side")
    parser.add_argument("--seconds", type=float, default=3, help="CPU seconds of a turn, at least one call")
    parser.add_argument("--output", type=Path, default=RESULTS / "compare.json")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.serve:
        serve(asked.serve)
        return
    results = json.loads(asked.output.read_text()) if asked.output.exists() else {}
    if results.get("machine") != machine():
        results = {"machine": machine(), "rows": {}}
    asked.output.parent.mkdir(parents=True, exist_ok=True)
    names = [name for name in ROWS if asked.only is None or name.startswith(tuple(asked.only))]
    with open(asked.output.with_suffix(".log"), "wb") as log:
        for ours, group in itertools.groupby(names, lambda name: ROWS[name].ours):
            side = Side(ours, log)
            for name in group:
                results["rows"][name] = compare(ROWS[name], side, asked.rounds, asked.seconds, log)
                print(describe({name: results["rows"][name]}).splitlines()[1], flush=True)
                with atomic_write(asked.output) as file:
                    file.write((json.dumps(results, indent=1) + "\n").encode())
            side.close()
    print(describe(results["rows"]))


if __name__ == "__main__":
    main()
