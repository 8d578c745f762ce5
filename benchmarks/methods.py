"""Every pre-training method of both bundles for a few steps on built-in phantoms: seconds a step, memory, losses.

A method is an overlay beside a bundle's train.json; dira is train.json alone. Networks and images are tiny, so that the
numbers compare methods on one machine and say nothing of their value. ``python benchmarks/methods.py --help``.
"""

import argparse
import csv
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dira_monai.datalists.io import write_datalist
from dira_monai.datalists.unlabeled import make_datalist
from dira_monai.phantoms.chest import write_phantoms
from dira_monai.utils.files import atomic_write
from dira_monai.utils.tables import format_table

ROOT = Path(__file__).resolve().parents[1]
STANDARD = {"train", "evaluate", "inference", "multi_gpu_train", "metadata"}
SIZES = {  # of a run that lasts seconds; every method takes the same
    "epoch_length": 4,
    "max_epochs": 2,
    "batch_size": 4,
    "val_samples": 4,
    "queue_size": 64,
    "discriminator_channels": 8,
}
OWN: dict[int, dict[str, Any]] = {
    2: {"patch_size": [64, 64], "network_def#backbone": "resnet10"},
    3: {"patch_size": [32, 32, 32], "network_def#features": [8, 8, 16, 32, 32, 8]},
}
PHANTOMS = {2: ("xray", 20), 3: ("ct", 10)}
LOSSES = ("loss", "contrastive", "restoration", "adversarial")


def bundle(dims: int) -> Path:
    """Folder of the bundle for so many axes."""
    return ROOT / "bundles" / f"dira_pretrain_{dims}d"


def find_methods(dims: int) -> list[str]:
    """Names of the overlays of the bundle for so many axes, dira first."""
    files = (bundle(dims) / "configs").glob("*.json")
    return ["dira", *sorted(file.stem for file in files if file.stem not in STANDARD)]


def prepare(dims: int, folder: Path) -> Path:
    """Folder of the phantoms for so many axes, which are made where they are missing."""
    kind, count = PHANTOMS[dims]
    write_phantoms(folder / kind, kind=kind, count=count)
    return folder / kind / "images"


def execute(words: Sequence[str], log: Path) -> tuple[int, float]:
    """Exit status and peak memory in MiB of a command, whose output goes to a file."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "wb") as file:
        process = subprocess.Popen([sys.executable, *words], stdout=file, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(process.pid, 0)  # RUSAGE_CHILDREN would give the peak of all commands so far
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return os.waitstatus_to_exitcode(status), usage.ru_maxrss / unit


def find_words(dims: int, images: Path, folder: Path) -> list[str]:
    """The command that transvw needs first; it writes ``folder/words``."""
    datalist = folder / "datalist.json"
    write_datalist(make_datalist(images, spatial_dims=dims), datalist)
    size = OWN[dims]["patch_size"]
    given = {"patch_size": size, "words#feature_size": size, "words#max_air": 1.0}  # a cube is as large as a lung
    words = ["-m", "dira_monai", "visual-words", str(bundle(dims)), "--datalist", str(datalist)]
    words += ["--output", str(folder / "words"), "--overrides", str(given)]
    few = {"classes": 3, "neighbors": 4, "validation_neighbors": 1, "steps": 4, "batch_size": 2}
    return words + [f"--{name}={value}" for name, value in few.items()]


def run_method(dims: int, method: str, images: Path, folder: Path) -> dict[str, Any]:
    """Facts of a run of one method: seconds a step, seconds in all, peak MiB, losses, or where it failed."""
    options = SIZES | OWN[dims] | {"output_dir": str(folder / "output"), "ckpt_dir": str(folder / "models")}
    options["dataset_dir"] = str(images)
    started = time.perf_counter()
    status = 0
    if method == "transvw":
        options["words_dir"] = str(folder / "words")
        log = folder / "words.txt"
        status, _ = execute(find_words(dims, images, folder), log)
    if method == "distillation":
        teacher = folder.parent / "dira"
        if not (teacher / "models/model.pt").is_file():
            run_method(dims, "dira", images, teacher)
        options["teacher"] = str(teacher / "models/model.pt")
    if status == 0:
        configs = [bundle(dims) / "configs" / f"{name}.json" for name in ("train", method) if name != "dira"]
        words = ["-m", "monai.bundle", "run", "--config_file", str([str(config) for config in configs])]
        for name, value in options.items():
            words += [f"--{name}", str(value)]
        log = folder / "log.txt"
        status, memory = execute(words, log)
    facts: dict[str, Any] = {"dims": dims, "method": method, "seconds": time.perf_counter() - started}
    if status != 0:
        lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
        return facts | {"failed": lines[-1] if lines else f"exit status {status}", "log": str(log)}
    with open(folder / "output" / "metrics.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    losses = {name: [float(row[name]) if row.get(name) else None for row in rows] for name in LOSSES}
    rate = options["batch_size"] / float(rows[-1]["images_per_second"])
    return facts | {"seconds_per_step": rate, "peak_mib": memory, "losses": losses}


def describe(results: Sequence[dict[str, Any]]) -> str:
    """A table of the runs; losses are those of the last epoch."""
    rows = [["", "method", "s/step", "peak RSS MiB", *LOSSES]]
    for facts in results:
        head = [f"{facts['dims']}d", facts["method"]]
        if "failed" in facts:
            rows.append([*head, "failed", "", *[""] * len(LOSSES)])
            continue
        last = [facts["losses"][name][-1] for name in LOSSES]
        figures = ["-" if value is None else f"{value:.4g}" for value in last]
        rows.append([*head, f"{facts['seconds_per_step']:.3f}", f"{facts['peak_mib']:.0f}", *figures])
    failures = [f"{f['dims']}d {f['method']} failed, see {f['log']}: {f['failed']}" for f in results if "failed" in f]
    return "\n".join([format_table(rows), *failures])


def main() -> int:
    """Run what the command line asks for, print a table, write methods.json; 1 where a method failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("demo/methods"), help="folder for everything")
    parser.add_argument("--methods", nargs="*", help="names, such as dira simsiam; all by default")
    parser.add_argument("--dims", nargs="*", type=int, choices=(2, 3), default=(2, 3), help="2, 3 or both")
    asked = parser.parse_args()
    folder, results = asked.output.resolve(), []
    for dims in asked.dims:
        images = prepare(dims, folder)
        for method in find_methods(dims):
            if asked.methods is None or method in asked.methods:
                results.append(run_method(dims, method, images, folder / f"{dims}d" / method))
                print(f"{dims}d {method}: {results[-1].get('failed', 'done')}", flush=True)
    print(
        "\nSYNTHETIC phantoms, tiny networks; the losses of two methods are not alike, and say nothing of their worth"
    )
    print(describe(results))
    with atomic_write(folder / "methods.json") as file:
        file.write((json.dumps(results, indent=1) + "\n").encode())
    return int(any("failed" in facts for facts in results))


if __name__ == "__main__":
    sys.exit(main())
