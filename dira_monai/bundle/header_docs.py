"""The values at the top of the bundles' files in words: for ``--help``, and as tables in ``docs``.

``python -m dira_monai.bundle.header_docs docs`` writes the tables anew.
"""

import json
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from .header_values import HEADER
from .shipped import bundle_folders

FILES = ("train", "evaluate", "inference")
FIXED = " ●"  # a resumed run cannot change it
LONGEST = 100  # characters of a value in a table
TABLES = {  # of a page: bundles, each with the head of its column
    "pretraining.md": {"dira_pretrain_2d": "2D", "dira_pretrain_3d": "3D"},
    "finetuning.md": {
        f"dira_finetune_{task}_{dims}d": f"{task} {dims}D"
        for task in ("segmentation", "classification")
        for dims in (2, 3)
    },
}
DECIDED = ("bundle_root", "dataset_dir", "output_dir", "ckpt_dir", "pretrained")  # by the arguments of the commands
START, END = "<!-- values: made by python -m dira_monai.bundle.header_docs docs -->", "<!-- end of values -->"


def read_values(bundle: str, files: Iterable[str] = FILES) -> dict[str, Any]:
    """The values of ``HEADER`` in files of a bundle that comes with the package, those of the first file first."""
    values: dict[str, Any] = {}
    for file in files:
        content = json.loads((bundle_folders()[bundle] / f"configs/{file}.json").read_text("utf-8"))
        values |= {name: value for name, value in content.items() if name in HEADER and name not in values}
    return values


def describe_options(*bundles: str) -> str:
    """A line for each value of ``train.json`` of some bundles: its name, what it is, and what it must be."""
    names = dict.fromkeys(name for bundle in bundles for name in read_values(bundle, FILES[:1]) if name not in DECIDED)
    return "\n".join(f"--{name}: {_plain(HEADER[name].meaning)} ({HEADER[name].rule.told})" for name in names)


def make_table(bundles: Mapping[str, str]) -> str:
    """The Markdown table of all values of some bundles, given with the heads of their columns."""
    columns = {bundle: read_values(bundle) for bundle in bundles}
    names = dict.fromkeys(name for values in columns.values() for name in values)
    return _markdown(
        bundles.values(),
        {name: [_cell(of[name]) if name in of else "" for of in columns.values()] for name in names},
    )


def _markdown(heads: Iterable[str], cells: Mapping[str, Sequence[str]]) -> str:
    """A table of values, with what each is and must be before its cells."""
    rows = [["value", "meaning", "must be", *heads]]
    rows.append(["---"] * len(rows[0]))
    for name, own in cells.items():
        value = HEADER[name]
        rows.append([f"`{name}`{FIXED if value.fixed else ''}", value.meaning, value.rule.told, *own])
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in rows)


def make_overlay_table(bundles: Mapping[str, str]) -> str:
    """The Markdown table of the values that overlays of some bundles add to ``train.json``."""
    names: dict[str, list[str]] = {}
    for bundle in bundles:
        for file in sorted((bundle_folders()[bundle] / "configs").glob("*.json")):
            added = read_values(bundle, [file.stem]).keys() - read_values(bundle).keys()
            for name in (name for name in HEADER if name in added):
                names.setdefault(name, [])
                names[name] += [file.stem] if file.stem not in names[name] else []
    return _markdown(["overlays"], {name: [", ".join(files)] for name, files in names.items()})


def _cell(value: Any) -> str:
    """A value in a table, as it is typed; of what is long its beginning."""
    if isinstance(value, Mapping):
        return (
            f"`{value['_target_']}`" if "_target_" in value else ", ".join(f"{k} {v}" for k, v in value.items()) or "{}"
        )
    if isinstance(value, list):
        return ", ".join(map(_cell, value)) or "[]"
    text = str(value)
    return text if not text.startswith(("$", "@")) else f"`{text}`" if len(text) <= LONGEST else "by the others"


def write_tables(folder: str | Path) -> list[Path]:
    """Write the tables into the pages of a folder, between their marks; the pages that were changed."""
    made = {page: make_table(bundles) for page, bundles in TABLES.items()}
    made["objectives.md"] = make_overlay_table(TABLES["pretraining.md"])
    changed = []
    for page, table in made.items():
        path = Path(folder) / page
        before = path.read_text("utf-8")
        head, rest = before.split(START)
        text = f"{head}{START}\n\n{table}\n\n{END}{rest.split(END)[1]}"
        if text != before:
            path.write_text(text, "utf-8")
            changed.append(path)
    return changed


def _plain(text: str) -> str:
    """Markdown as plain text."""
    return re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", text).replace("`", "")


if __name__ == "__main__":
    print(*write_tables(sys.argv[1]), sep="\n")
