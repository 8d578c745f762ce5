"""How fast pre-training is: views, steps, epochs from files, start-up, memory, beside a stand-in of the published code.

Every measurement is a process of its own. The two sides of a ratio take turns, ``--rounds`` times, and the medians are
compared. Images are phantoms (synthetic): what they show does not matter for speed. The floor is what the machine can
do at best: the step's floating-point operations at the measured rate of large matrix products, and the bytes that its
operations read and write, were nothing fused, at the measured rate of copying.
``python benchmarks/throughput.py --help``.
"""

import argparse
import csv
import itertools
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from compare import RESULTS, machine
from monai.bundle import ConfigParser
from peers.steps import published
from published import cube_view, xray_sample, xray_view
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.data import DataLoader
from torch.utils.flop_counter import FlopCounterMode
from workloads import PATCH, bundle, make_step, make_views, read_bundle

from dira_monai import PretrainDataset, SeededSampler, load_datalist, tune_malloc
from dira_monai.datalists.io import write_datalist
from dira_monai.phantoms.chest import write_phantoms
from dira_monai.utils.files import atomic_write
from dira_monai.utils.tables import format_table

PHANTOMS = {2: ("xray", 32), 3: ("ct", 4)}
RATIOS = (
    ("epoch", "step", "an epoch from files against the step alone"),
    ("processes", "epoch", "two processes against one"),
    ("many", "few", "a sample of 100,000 images against one of 1,000"),
)
ONLY_2D = ("loader", "loader-standin", "epoch-standin", "start")


def common_values(asked: argparse.Namespace, name: str) -> dict[str, Any]:
    """Values of the configuration that everything is measured with; files go to a folder of this name."""
    return {
        "dataset_dir": str(images_of(asked)),
        "output_dir": str(asked.output / name),
        "ckpt_dir": str(asked.output / name),
        "device": f"$torch.device('{asked.device}')",
        "precision": asked.precision,
        "batch_size": asked.batch_size,
        "patch_size": PATCH[asked.dims],
        "stage_epochs": "$None",
        "queue_size": 65536,
    } | json.loads(asked.options)


def read_measured(asked: argparse.Namespace) -> ConfigParser:
    """The configuration that is measured from files."""
    return read_bundle(asked.dims, **common_values(asked, "run"))


def images_of(asked: argparse.Namespace) -> Path:
    """Folder of the phantoms, which are made where they are missing."""
    kind, count = PHANTOMS[asked.dims]
    folder = asked.output / kind
    if not (folder / "images").is_dir():
        write_phantoms(folder, kind=kind, count=count)
    return folder / "images"


def repeat(
    asked: argparse.Namespace,
    work: Callable[[], Any],
    warm: int = 2,
    least: int = 3,
    middle: Callable[[list[float]], float] = statistics.median,
) -> float:
    """Median seconds of a call, of as many as ``--seconds`` allow, once it is warm."""
    for _ in range(warm):
        work()
    synchronize(asked)
    times, started = list[float](), time.perf_counter()
    while len(times) < least or time.perf_counter() - started < asked.seconds:
        before = time.perf_counter()
        work()
        synchronize(asked)
        times.append(time.perf_counter() - before)
    return middle(times)


def synchronize(asked: argparse.Namespace) -> None:
    """Wait for the device."""
    if asked.device.startswith("cuda"):
        torch.cuda.synchronize()


def peak_mib(asked: argparse.Namespace) -> float:
    """Largest memory of this process so far: of the GPU where there is one, else resident in RAM; MiB."""
    if asked.device.startswith("cuda"):
        return torch.cuda.max_memory_allocated() / 2**20
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def measure_views(asked: argparse.Namespace) -> dict[str, float]:
    """Views a second: two of each X-ray with distortions, or of each cube with elastic deformation and Genesis."""
    work, count = make_views(asked.dims, asked.batch_size, asked.device, **json.loads(asked.options))
    return {"views_per_second": count / repeat(asked, work, middle=statistics.fmean)}  # some cost many times others


def measure_views_standin(asked: argparse.Namespace) -> dict[str, float]:
    """The same, one sample after the other."""
    if asked.dims == 2:
        from PIL import Image

        source = torch.randint(256, (256, 256, 3), dtype=torch.uint8).numpy()
        picture = Image.fromarray(source)
        return {"views_per_second": 1 / repeat(asked, lambda: xray_view(picture), middle=statistics.fmean)}
    cube = torch.rand(PATCH[3]).numpy()
    return {"views_per_second": 1 / repeat(asked, lambda: cube_view(cube), middle=statistics.fmean)}


def measure_loader(asked: argparse.Namespace) -> dict[str, float]:
    """Views a second from prepared files in 2D: memory-mapped crops and all that happens to them."""
    parser = read_measured(asked)
    views = parser.get_parsed_content("views")
    path = make_store(asked.output / "store_256", 64, 256)
    dataset = PretrainDataset(load_datalist(path)["training"], None, parser.get_parsed_content("region_size"))
    sampler = SeededSampler(dataset, asked.batch_size, epoch_length=10**6)
    batches = iter(DataLoader(dataset, asked.batch_size, sampler=sampler))

    def work() -> None:
        batch = next(batches)
        views(batch["image"], batch["seed"])

    return {"views_per_second": views.count * asked.batch_size / repeat(asked, work, middle=statistics.fmean)}


def measure_loader_standin(asked: argparse.Namespace) -> dict[str, float]:
    """The same from PNG files of 1024 x 1024 pixels, which are decoded each time."""
    from PIL import Image

    folder = asked.output / "xray_1024"
    folder.mkdir(exist_ok=True)
    for path in images_of(asked).glob("*.png"):
        if not (folder / path.name).exists():
            with atomic_write(folder / path.name) as file:
                Image.open(path).resize((1024, 1024), Image.Resampling.BICUBIC).save(file, "PNG")
    files = itertools.cycle(sorted(folder.glob("*.png")))
    return {"views_per_second": 2 / repeat(asked, lambda: xray_sample(next(files)), middle=statistics.fmean)}


class Bytes(TorchDispatchMode):
    """Adds up what every operation reads and writes; what only looks at a tensor in another way costs nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        """Call the operation and count."""
        result = func(*args, **(kwargs or {}))
        if not func.is_view:
            flat = torch.utils._pytree.tree_leaves((args, kwargs, result))
            self.total += sum(t.numel() * t.element_size() for t in flat if isinstance(t, torch.Tensor))
        return result


def measure_step(asked: argparse.Namespace) -> dict[str, float]:
    """Images a second and peak memory of the step alone, and what it computes."""
    given = {"precision": asked.precision} | json.loads(asked.options)
    step, _ = make_step(asked.dims, "dira", asked.batch_size, asked.device, **given)
    seconds = repeat(asked, step)
    memory = peak_mib(asked)
    with FlopCounterMode(display=False) as counter:
        step()
    with Bytes() as traffic:
        step()
    return {
        "images_per_second": asked.batch_size / seconds,
        "peak_mib": memory,
        "gflop": counter.get_total_flops() / 1e9,
        "gbyte": traffic.total / 1e9,
    }


def measure_step_standin(asked: argparse.Namespace) -> dict[str, float]:
    """Images a second and peak memory of the published step."""
    step = published(asked.dims, asked.device)
    shape = (asked.batch_size, 3 if asked.dims == 2 else 1, *PATCH[asked.dims])
    views = [torch.rand(shape, device=step.device) for _ in range(3)]
    seconds = repeat(asked, lambda: step(*views))
    return {"images_per_second": asked.batch_size / seconds, "peak_mib": peak_mib(asked)}


def measure_floor(asked: argparse.Namespace) -> dict[str, float]:
    """Rates of the machine: large matrix products in the run's precision, in 1e9 operations a second, and copying."""
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[asked.precision]
    n = 8192 if asked.device.startswith("cuda") else 2048
    a, b = (torch.rand(n, n, device=asked.device).to(dtype) for _ in range(2))
    product = repeat(asked, lambda: a @ b)
    block = torch.ones(2**28, dtype=torch.uint8, device=asked.device)
    other = torch.empty_like(block)
    copy = repeat(asked, lambda: other.copy_(block))
    return {"gflop_per_second": 2 * n**3 / product / 1e9, "gbyte_per_second": 2 * block.numel() / copy / 1e9}


def run_bundle(asked: argparse.Namespace, name: str, launcher: list[str], **values: Any) -> tuple[float, float]:
    """Images a second of the last epoch of a run from files, and seconds until its first epoch began."""
    folder = asked.output / name
    length = {"val_interval": 1000, "epoch_length": max(4, asked.images // asked.batch_size), "max_epochs": 2}
    given = length | common_values(asked, name) | values
    overlays = given.pop("overlays", [])
    words = [*launcher, "-m", "monai.bundle", "run"]
    words += ["--config_file", str([bundle(asked.dims), *(bundle(asked.dims, overlay) for overlay in overlays)])]
    for key, value in given.items():
        words += [f"--{key}", str(value)]
    started, begun, log = time.perf_counter(), 0.0, b""
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    while part := process.stdout.read1(4096):  # type: ignore[union-attr]
        log += part
        if not begun and b"epoch 1/" in log:
            begun = time.perf_counter() - started
    if process.wait() != 0:
        raise RuntimeError(log.decode(errors="replace")[-2000:])
    with open(folder / "metrics.csv", newline="") as file:
        rates = [float(row["images_per_second"]) for row in csv.DictReader(file)]
    return rates[-1], begun - given["epoch_length"] * given["batch_size"] / rates[0]  # its line came at its end


def measure_epoch(asked: argparse.Namespace) -> dict[str, float]:
    """Images a second of a whole training from files, views and all, and seconds until it began."""
    rate, begun = run_bundle(asked, "epoch", [sys.executable])
    return {"images_per_second": rate, "start_seconds": begun}


def measure_start(asked: argparse.Namespace, count: int = 2000) -> dict[str, float]:
    """Seconds from the command until the first epoch begins, imports and the list of so many PNG files included."""
    from PIL import Image

    folder = asked.output / f"xray_{count}"
    folder.mkdir(exist_ok=True)
    pictures = [np.asarray(Image.open(path)) for path in sorted(images_of(asked).glob("*.png"))]
    for number in range(count):
        path, shift = folder / f"{number}.png", number // len(pictures)
        if not path.exists():
            with atomic_write(path) as file:
                Image.fromarray(np.roll(pictures[number % len(pictures)], shift, axis=1)).save(file, "PNG")
    _, begun = run_bundle(asked, "start", [sys.executable], dataset_dir=folder, epoch_length=4, max_epochs=1)
    return {"start_seconds": begun}


def measure_epoch_standin(asked: argparse.Namespace) -> dict[str, float]:
    """The same of the stand-in in 2D: decoding, views and step in one process."""
    step = published(asked.dims, asked.device)
    files = sorted(images_of(asked).glob("*.png"))

    def work() -> None:
        samples = [xray_sample(files[n % len(files)]) for n in range(asked.batch_size)]
        query, target, key = (
            torch.stack([torch.from_numpy(sample[view][part]) for sample in samples]).to(step.device)
            for view, part in ((0, 0), (0, 1), (1, 0))
        )
        step(query, key, target)

    return {"images_per_second": asked.batch_size / repeat(asked, work, warm=1)}


def measure_processes(asked: argparse.Namespace) -> dict[str, float]:
    """Images a second of two processes, with half of the batch and of the threads each."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    half = {"batch_size": asked.batch_size // 2, "epoch_length": max(4, asked.images // asked.batch_size)}
    os.environ["OMP_NUM_THREADS"] = str(max(1, asked.threads // 2))
    rate, _ = run_bundle(
        asked, "processes", launcher, overlays=["multi_gpu_train"], device="$torch.device('cpu')", **half
    )
    return {"images_per_second": rate}


def make_store(folder: Path, count: int, side: int = 64) -> Path:
    """A folder as the command prepare makes it, of so many small images of noise."""
    if not (folder / "datalist.json").is_file():
        images = folder / "images"
        images.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(0)
        entries = []
        for number in range(count):
            np.save(images / f"{number}.npy", noise.integers(256, size=(1, side, side), dtype=np.uint8))
            entries.append({"image": f"images/{number}.npy", "patient": str(number), "shape": [side, side]})
        cut = count // 10
        write_datalist({"training": entries[cut:], "validation": entries[:cut]}, folder / "datalist.json")
    return folder / "datalist.json"


def measure_many(asked: argparse.Namespace, count: int = 100_000) -> dict[str, float]:
    """Samples a second that are read from so many stored images, and seconds until the first one."""
    path = make_store(asked.output / f"store_{count}", count)
    started = time.perf_counter()
    datalist = load_datalist(path)
    dataset = PretrainDataset(datalist["training"], None, [56, 56])
    steps = 3200 // asked.batch_size
    sampler = SeededSampler(dataset, asked.batch_size, epoch_length=steps + 1)
    batches = iter(DataLoader(dataset, asked.batch_size, sampler=sampler))
    next(batches)
    begun = time.perf_counter() - started
    before = time.perf_counter()
    for _ in range(steps):
        next(batches)
    return {"samples_per_second": steps * asked.batch_size / (time.perf_counter() - before), "start_seconds": begun}


def measure_few(asked: argparse.Namespace) -> dict[str, float]:
    """The same of 1,000 images."""
    return measure_many(asked, 1000)


def measure_volumes(asked: argparse.Namespace) -> dict[str, float]:
    """Crops a second of stored volumes of 256 voxels a side, ``--gigabytes`` of them, and what RAM they took.

    In a memory limit, ``systemd-run --scope -p MemoryMax=1G python benchmarks/throughput.py --only volumes``, it shows
    that a set larger than RAM is read at what rate.
    """
    folder, count = asked.output / f"volumes_{asked.gigabytes}", max(2, round(asked.gigabytes * 1e9 / 256**3))
    noise = np.random.default_rng(0)
    for number in range(count):
        path = folder / f"{number}.npy"
        if not path.exists():
            with atomic_write(path) as file:
                np.save(file, noise.integers(256, size=(1, 256, 256, 256), dtype=np.uint8))
    data = [{"image": str(folder / f"{number}.npy")} for number in range(count)]
    dataset = PretrainDataset(data, None, [96, 96, 48])
    places = iter(SeededSampler(dataset, 1, epoch_length=10**6, min_batch_size=1))
    before = peak_mib(asked)
    seconds = repeat(asked, lambda: dataset[next(places)], least=4 * count)
    return {"crops_per_second": 1 / seconds, "gigabytes": count * 256**3 / 1e9, "grown_mib": peak_mib(asked) - before}


MEASURES = {
    name.removeprefix("measure_").replace("_", "-"): value
    for name, value in list(globals().items())
    if name.startswith("measure_")
}


def measure(name: str, words: list[str], threads: int) -> dict[str, float]:
    """What one measurement finds, in a process of its own."""
    own = os.environ | {"OMP_NUM_THREADS": str(1 if name.startswith(("views", "loader")) else threads)}
    command = [sys.executable, __file__, *words, "--measure", name]
    result = subprocess.run(command, env=own, capture_output=True, text=True)
    if result.returncode != 0:
        raise RuntimeError(f"{name}: {result.stderr[-2000:]}")
    return json.loads(result.stdout.splitlines()[-1])


def describe(found: dict[str, dict[str, float]], batch_size: int) -> list[list[str]]:
    """Rows of a table of the medians and their ratios, the first one its head; of steps of so many images."""
    rows = [["measured", "here", "stand-in", "ratio"]]
    for name, figures in found.items():
        other = found.get(f"{name}-standin", {})
        for figure, value in figures.items() if not name.endswith("-standin") else ():
            ratio = f"{value / other[figure]:.2f}" if figure in other else ""
            rows.append([f"{name}: {figure}", f"{value:.4g}", f"{other[figure]:.4g}" if ratio else "", ratio])
    if "step" in found and "floor" in found:
        step, floor = found["step"], found["floor"]
        seconds = batch_size / step["images_per_second"]
        used = step["gflop"] / seconds / floor["gflop_per_second"]
        rows.append(["share of the measured matrix rate that the step uses", f"{used:.3f}", "", ""])
        moved = step["gbyte"] / seconds / floor["gbyte_per_second"]
        rows.append(["bytes of all operations, unfused, against the measured copy rate", f"{moved:.3f}", "", ""])
    for name, base, text in RATIOS:
        if name in found and base in found:
            share = next(iter(found[name].values())) / next(iter(found[base].values()))
            rows.append([text, "", "", f"{share:.2f}"])
    return rows


def main() -> None:
    """Measure what is asked for, print the table and write throughput.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dims", type=int, choices=(2, 3), default=2)
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--precision", choices=("fp32", "bf16", "fp16"), default="bf16")
    parser.add_argument("--batch_size", type=int, default=8)
    parser.add_argument(
        "--threads", type=int, default=os.cpu_count() or 1, help="of the CPU, for all but views and loader"
    )
    parser.add_argument("--seconds", type=float, default=10, help="least length of a measurement")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--images", type=int, default=64, help="of an epoch from files")
    parser.add_argument("--gigabytes", type=float, default=2, help="of the stored volumes")
    parser.add_argument("--options", default="{}", help="further values of the configuration, as JSON")
    parser.add_argument("--only", nargs="*", choices=MEASURES, metavar="NAME", help=f"of {', '.join(MEASURES)}")
    parser.add_argument("--output", type=Path, default=Path("demo/throughput"), help="folder for everything")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    asked.output = asked.output.resolve()
    if asked.measure:
        torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
        torch.manual_seed(0)
        if not asked.measure.endswith("standin"):
            tune_malloc()
        print("\n" + json.dumps(MEASURES[asked.measure](asked)))
        return
    images_of(asked)
    words = [word for word in sys.argv[1:] if word != "--only"]
    if asked.only:
        words = [word for word in words if word not in asked.only]
    names = [name for name in MEASURES if not asked.only or name in asked.only]
    if asked.dims == 3:
        names = [name for name in names if name not in ONLY_2D]
    rounds: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    for turn in range(asked.rounds):
        for name in names:
            rounds[name].append(measure(name, words, asked.threads))
            print(f"round {turn + 1}, {name}: {rounds[name][-1]}", flush=True)
    found = {
        name: {figure: statistics.median(turn[figure] for turn in turns) for figure in turns[0]}
        for name, turns in rounds.items()
    }
    how = {"threads": asked.threads, "device": asked.device, "precision": asked.precision, "rounds": asked.rounds}
    rows = describe(found, asked.batch_size)
    print("\n" + format_table(rows))
    results = {"machine": machine() | how, "date": time.strftime("%Y-%m-%d"), "rows": rows, "rounds": rounds}
    folder = asked.output if asked.only else RESULTS  # the page has whole runs
    with atomic_write(folder / f"throughput_{asked.dims}d.json") as file:
        file.write((json.dumps(results, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
