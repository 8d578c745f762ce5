"""Everything of pre-training that a GPU changes, in one run of minutes: views, steps, memory, epochs, two GPUs.

Rows: views on the device; the steps of ``STEPS`` in fp32, bf16, bf16 compiled; the network alone in a CUDA graph, which
says what launching costs; the stand-in of the published code; an epoch from stored images against its step; NCCL where
two GPUs are. Columns: images a second, peak memory, and MFU, the share of the card's rate of large matrix products in
that precision, measured here too. ``--device cpu --quick`` runs all of it on a CPU in small: the figures say nothing.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from compare import RESULTS
from peers.steps import published
from torch.utils.flop_counter import FlopCounterMode
from workloads import PATCH, bundle, make_step, make_views, read_bundle

from dira_monai.utils.files import atomic_write

STEPS = ((2, "di"), (2, "dira"), (3, "dira"), (3, "genesis"))
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
BATCH = {2: 64, 3: 16}
SMALL: dict[int, dict[str, Any]] = {
    2: {"patch_size": [64, 64], "network_def#backbone": "resnet10", "discriminator_channels": 8},
    3: {"patch_size": [32, 32, 32], "network_def#features": [4, 4, 8, 8, 8, 4], "discriminator_channels": 8},
}
Row = dict[str, float]


class Bench:
    """One run: what is asked for, and the rates of the device, measured once."""

    def __init__(self, device: str, quick: bool, seconds: float) -> None:
        self.device, self.quick, self.seconds = device, quick, seconds
        self.on_gpu = device.startswith("cuda")
        self.rates: dict[str, float] = {}

    def own(self, dims: int) -> dict[str, Any]:
        """Values that make everything small in a quick run."""
        return SMALL[dims] if self.quick else {}

    def batch(self, dims: int) -> int:
        """Images of a step."""
        return 4 if self.quick else BATCH[dims]

    def wait(self) -> None:
        """Until the device is done."""
        if self.on_gpu:
            torch.cuda.synchronize()

    def time(self, work: Callable[[], Any], warm: int = 3) -> float:
        """Seconds of a call once it is warm."""
        for _ in range(1 if self.quick else warm):
            work()
        self.wait()
        started, calls = time.perf_counter(), 0
        while calls == 0 or time.perf_counter() - started < self.seconds:
            work()
            self.wait()
            calls += 1
        return (time.perf_counter() - started) / calls

    def measure(self, work: Callable[[], Any], images: int, precision: str, count: bool = True) -> Row:
        """Images a second, peak memory and MFU of a call."""
        if self.on_gpu:
            torch.cuda.reset_peak_memory_stats()
        seconds = self.time(work)
        row: Row = {"images_per_second": images / seconds}
        if self.on_gpu:
            row["peak_mib"] = torch.cuda.max_memory_allocated() / 2**20
        if count:
            with FlopCounterMode(display=False) as counter:
                work()
            row["gflop"] = counter.get_total_flops() / 1e9
            row["mfu"] = row["gflop"] / seconds / self.rate(precision)
        return row

    def rate(self, precision: str) -> float:
        """1e9 floating-point operations a second of large matrix products, as torch multiplies them in training."""
        if precision not in self.rates:
            n = 256 if self.quick else 8192
            a = torch.ones(n, n, device=self.device, dtype=DTYPES[precision])
            self.rates[precision] = 2 * n**3 / self.time(lambda: a @ a) / 1e9
        return self.rates[precision]


def views(bench: Bench, dims: int) -> Row:
    """Views made on the device."""
    work, count = make_views(dims, bench.batch(dims), bench.device, **bench.own(dims))
    return bench.measure(work, count, "fp32", count=False)


def step(bench: Bench, dims: int, method: str, precision: str, compiled: bool = False) -> Row:
    """A training step on views that are ready."""
    work, images = make_step(dims, method, bench.batch(dims), bench.device, precision=precision, **bench.own(dims))
    row = bench.measure(work, images, precision)
    if not compiled:
        return row
    started = time.perf_counter()
    fast = torch.compile(work)
    fast()
    bench.wait()
    spent = time.perf_counter() - started
    row = bench.measure(fast, images, precision, count=False) | {"gflop": row["gflop"], "compile_seconds": spent}
    return row | {"mfu": row["gflop"] * row["images_per_second"] / images / bench.rate(precision)}


def published_step(bench: Bench, dims: int) -> Row:
    """The stand-in of the published code in its last stage."""
    work = published(dims, bench.device, **bench.own(dims))
    size = bench.own(dims).get("patch_size", PATCH[dims])
    images = [torch.rand(bench.batch(dims), 3 if dims == 2 else 1, *size, device=bench.device) for _ in range(3)]
    return bench.measure(lambda: work(*images), bench.batch(dims), "fp32")


def graph(bench: Bench, dims: int) -> Row:
    """The network's forward and backward pass in bf16, replayed as a CUDA graph: no launches from Python."""
    network = read_bundle(dims, **bench.own(dims)).get_parsed_content("network_def").to(bench.device)
    size = bench.own(dims).get("patch_size", PATCH[dims])
    images = torch.rand(bench.batch(dims), 1, *size, device=bench.device)

    def work() -> None:
        with torch.autocast(bench.device.split(":")[0], dtype=torch.bfloat16):
            network(images).float().square().mean().backward()

    if not bench.on_gpu:
        return bench.measure(work, len(images), "bf16")
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        for _ in range(3):
            work()
    torch.cuda.current_stream().wait_stream(stream)
    plain, captured = bench.measure(work, len(images), "bf16"), torch.cuda.CUDAGraph()
    for parameter in network.parameters():
        parameter.grad = None
    with torch.cuda.graph(captured):
        work()
    row = bench.measure(captured.replay, len(images), "bf16", count=False)
    return row | {"against_plain": row["images_per_second"] / plain["images_per_second"]}


def epoch(bench: Bench, dims: int, folder: Path, processes: int = 1) -> Row:
    """Images a second of the second epoch of a run from stored images, views and all."""
    size = read_bundle(dims, **bench.own(dims)).get_parsed_content("region_size")
    images, out = folder / f"noise_{dims}d", folder / f"epoch_{dims}d_{processes}"
    write_noise(images, size, 16 if bench.quick else 256)
    values: dict[str, Any] = bench.own(dims) | {
        "dataset_dir": images,
        "output_dir": out,
        "ckpt_dir": out,
        "device": f"$torch.device('{bench.device}')",
        "precision": "bf16",
        "batch_size": bench.batch(dims),
        "epoch_length": 2 if bench.quick else 40,
        "max_epochs": 2,
        "val_interval": 1000,
        "stage_epochs": [0, 0, 2],
        "min_foreground": 0,
        "intensity_range": [0, 255],
    }
    configs = [bundle(dims), *([bundle(dims, "multi_gpu_train")] if processes > 1 else [])]
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"] if processes > 1 else []
    words = [sys.executable, *launcher, "-m", "monai.bundle", "run", "--config_file", str(configs)]
    for name, value in values.items():
        if not (processes > 1 and name == "device"):
            words += [f"--{name}", str(value)]
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(done.stdout[-1000:] + done.stderr[-1000:])
    header, *_, last = (out / "metrics.csv").read_text().splitlines()
    return {"images_per_second": float(dict(zip(header.split(","), last.split(","), strict=True))["images_per_second"])}


def write_noise(folder: Path, size: list[int], count: int) -> None:
    """Images of noise, in files that are quick to read."""
    import nibabel
    import numpy as np
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(0)
    for number in range(count):
        image = noise.integers(256, size=size, dtype=np.uint8)
        if len(size) == 2:
            Image.fromarray(image).save(folder / f"{number}.png")
        else:
            nibabel.Nifti1Image(image, np.eye(4)).to_filename(folder / f"{number}.nii")


def plan(bench: Bench, folder: Path) -> dict[str, Callable[[], Row]]:
    """All rows, the cheapest ones first: what the time does not suffice for is left out at the end."""
    rows: dict[str, Callable[[], Row]] = {f"views {dims}D": partial(views, bench, dims) for dims in (2, 3)}
    for dims, method in STEPS:
        for precision in DTYPES:
            rows[f"step {dims}D {method} {precision}"] = partial(step, bench, dims, method, precision)
    for dims in (2, 3):
        rows[f"published step {dims}D"] = partial(published_step, bench, dims)
        rows[f"network {dims}D as a CUDA graph, bf16"] = partial(graph, bench, dims)
        rows[f"epoch {dims}D bf16"] = partial(epoch, bench, dims, folder)
    if bench.on_gpu and torch.cuda.device_count() > 1:
        for dims in (2, 3):
            rows[f"epoch {dims}D bf16, two GPUs"] = partial(epoch, bench, dims, folder, 2)
    for dims, method in STEPS if bench.on_gpu else ():  # a C++ compiler is missing on many machines without a GPU
        rows[f"step {dims}D {method} bf16 compiled"] = partial(step, bench, dims, method, "bf16", compiled=True)
    return rows


def derive(rows: dict[str, Row]) -> None:
    """Add what follows from two rows: against the published step, and an epoch against its step."""
    for dims in (2, 3):
        ours, base = rows.get(f"step {dims}D dira bf16"), rows.get(f"published step {dims}D")
        if ours and base and "images_per_second" in ours and "images_per_second" in base:
            ours["against_published"] = ours["images_per_second"] / base["images_per_second"]
        whole = rows.get(f"epoch {dims}D bf16")
        if ours and whole and "images_per_second" in ours and "images_per_second" in whole:
            whole["against_step"] = whole["images_per_second"] / ours["images_per_second"]


def describe_device(device: str) -> str:
    """The card's name, or the CPU's."""
    return torch.cuda.get_device_name(device) if device.startswith("cuda") else platform.processor() or "CPU"


def main() -> int:
    """Measure until the time is up, write the file after each row; 1 where a row failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--minutes", type=float, default=8, help="no row begins after them")
    parser.add_argument("--seconds", type=float, default=3, help="length of a measurement")
    parser.add_argument("--quick", action="store_true", help="everything small: to see that it runs")
    parser.add_argument("--only", nargs="*", metavar="ROW", help="rows, or beginnings of them")
    parser.add_argument("--output", type=Path, default=RESULTS / "gpu.json")
    parser.add_argument("--folder", type=Path, default=Path("demo/gpu"), help="for images and runs")
    asked = parser.parse_args()
    bench, started = Bench(asked.device, asked.quick, asked.seconds), time.perf_counter()
    results: dict[str, Any] = {"rows": {}, "failed": {}, "left_out": []}
    results["machine"] = {
        "device": describe_device(asked.device),
        "torch": torch.__version__,
        "cpus": os.cpu_count(),
        "date": time.strftime("%Y-%m-%d"),
    }
    asked.output.parent.mkdir(parents=True, exist_ok=True)
    for name, work in plan(bench, asked.folder.resolve()).items():
        if asked.only is not None and not name.startswith(tuple(asked.only)):
            continue
        if time.perf_counter() - started > 60 * asked.minutes:
            results["left_out"].append(name)
            continue
        try:
            results["rows"][name] = work()
        except Exception as error:  # the other rows are worth having all the same
            results["failed"][name] = f"{type(error).__name__}: {error}"[-2000:]
        derive(results["rows"])
        print(name, results["rows"].get(name, results["failed"].get(name)), flush=True)
        with atomic_write(asked.output) as file:
            file.write((json.dumps(results | {"rates_gflop": bench.rates}, indent=1) + "\n").encode())
    return int(bool(results["failed"]))


if __name__ == "__main__":
    sys.exit(main())
