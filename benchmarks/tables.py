"""The tables of docs/performance.md, made from what the benchmarks found: ``python benchmarks/tables.py [--check]``."""

import argparse
import json
import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PAGE = ROOT / "docs" / "performance.md"
WORDS = {  # what a row of compare.json is called
    "picture_2d": "2D: a PNG of 224 x 224 read, resized to 256 x 256 and stored (peer: decoded and resized)",
    "views_2d": "2D: two distorted views of 224 x 224",
    "views_3d": "3D: two views of 64 x 64 x 32, elastic, all of Genesis",
    "step_2d_di": "2D: step, `di`, ResNet-50, batch 8",
    "step_2d_di_auto": "2D: step, `di`, ResNet-50, batch 8, `precision auto`",
    "step_2d_dira": "2D: step, `dira`, U-Net of ResNet-50, batch 8",
    "step_2d_dira_auto": "2D: step, `dira`, U-Net of ResNet-50, batch 8, `precision auto`",
    "step_3d_dira": "3D: step, `dira`, batch 8",
    "step_3d_dira_auto": "3D: step, `dira`, batch 8, `precision auto`",
    "step_3d_dira_small": "3D: step, `dira`, batch 8, `precision auto`, `checkpoint_activations`",
    "step_3d_genesis": "3D: step, `genesis`, batch 8",
    "step_3d_genesis_auto": "3D: step, `genesis`, batch 8, `precision auto`",
    "finetune_3d": "3D: fine-tuning epochs of a segmentation, 64 x 64 x 64, batch 2",
    "finetune_3d_auto": "3D: fine-tuning epochs of a segmentation, 64 x 64 x 64, batch 2, `precision auto`",
}


def table(rows: list[list[str]]) -> str:
    """A table of Markdown, the first row its head."""
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([lines[0], "|---" * len(rows[0]) + "|", *lines[1:]])


def rate(value: float) -> str:
    """Three digits or more."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def compare_table(results: dict[str, Any]) -> str:
    """Ratios of compare.json, ours : theirs."""
    head = "what, peer, ours a CPU second, theirs, ratio: min - median - max, goal, RSS, goal, measured, load"
    rows = [head.split(", ")]
    for name, found in results["rows"].items():
        what, _, peer = name.partition("/")
        versions = " ".join(value for package, value in found["versions"].items() if package == peer)
        memory = ["", ""]  # of views, other imports outweigh what they need
        if found["memory_goal"] is not None:
            memory = [f"{found['ours_peak_mib'] / found['theirs_peak_mib']:.2f}", f"{found['memory_goal']:g}"]
        rows.append(
            [
                WORDS[what],
                f"{peer} {versions}".strip(),
                rate(found["ours_per_cpu_second"]),
                rate(found["theirs_per_cpu_second"]),
                " - ".join(f"{value:.2f}" for value in found["ratio"]),
                f"{found['goal']:g}",
                *memory,
                found["date"],
                f"{found['load']:.0f}" if "load" in found else "",
            ]
        )
    where = results["machine"]
    head = "{cpu} ({extensions}), {cpus} CPUs, torch {torch}, Python {python}.".format(**where)
    return f"{head}\n\n{table(rows)}"


def gpu_table(results: dict[str, Any]) -> str:
    """Figures of gpu.json, or that there are none."""
    if not results:
        return "No GPU was available: no row. `python benchmarks/gpu.py` fills this table in 8 minutes."
    names = list(dict.fromkeys(name for found in results["rows"].values() for name in found))
    rows = [["measured", *(name.replace("_", " ") for name in names)]]
    for name, found in results["rows"].items():
        rows.append([name, *(f"{found[key]:.4g}" if key in found else "" for key in names)])
    where = results["machine"]
    return f"{where['device']}, torch {where['torch']}, {where['date']}.\n\n{table(rows)}"


def throughput_table(results: dict[str, Any]) -> str:
    """Figures of throughput_2d.json, from files, or that there are none."""
    if not results:
        return "Not measured: `python benchmarks/throughput.py --dims 2 --precision fp32` fills this table."
    head = "{cpu}, {threads} threads, {precision}, torch {torch}, ".format(**results["machine"])
    return f"{head}rounds: {results['machine']['rounds']}, {results['date']}.\n\n{table(results['rows'])}"


MAKERS = {"compare": compare_table, "throughput_2d": throughput_table, "gpu": gpu_table}


def fill(page: str, folder: Path = RESULTS) -> str:
    """The page with every table between ``<!-- NAME -->`` and ``<!-- end -->`` made anew from NAME.json."""

    def made(match: re.Match[str]) -> str:
        path = folder / f"{match[1]}.json"
        results = json.loads(path.read_text()) if path.exists() else {}
        return f"<!-- {match[1]} -->\n{MAKERS[match[1]](results)}\n<!-- end -->"

    return re.sub(r"<!-- (\w+) -->\n.*?<!-- end -->", made, page, flags=re.DOTALL)


def main() -> int:
    """Write the page, or say whether it is what the results say."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; 1 where a table differs from its file")
    asked = parser.parse_args()
    before = PAGE.read_text()
    after = fill(before)
    if not asked.check:
        PAGE.write_text(after)
    elif before != after:
        print(f"{PAGE}: a table differs from {RESULTS}; run python benchmarks/tables.py", file=sys.stderr)
    return int(asked.check and before != after)


if __name__ == "__main__":
    sys.exit(main())
