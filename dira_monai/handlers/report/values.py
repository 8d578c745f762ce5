"""The values of a run: first those that differ from the shipped configuration, with reasons where it was planned."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser

from ...visualize.html import details, paragraph, table

LONGEST = 300  # letters of a value that are shown
ABSENT = object()


def read_shipped(folder: Path | None, files: Sequence[str] = ("train.json",)) -> dict[str, Any] | None:
    """Those files of a folder of configurations that are there, the later over the earlier; None where none is."""
    paths = [] if folder is None else [folder / name for name in files if (folder / name).is_file()]
    return ConfigParser.load_config_files(paths) if paths else None


def leaves(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The values of a configuration by MONAI's ids, such as ``network_def#backbone``; a list is one value."""
    for name, value in config.items():
        if name == "_desc_":
            continue
        if isinstance(value, Mapping) and value:
            yield from leaves(value, f"{prefix}{name}#")
        else:
            yield prefix + name, value


def header_names(config: Mapping[str, Any]) -> list[str]:
    """The values that a user may set: those above ``imports``."""
    names = list(config)
    return names[: names.index("imports")] if "imports" in names else names


def differences(config: Mapping[str, Any], shipped: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Values that differ, by their ids: that of the run and that of the shipped file, ``ABSENT`` where it has none."""
    run = dict(leaves({name: value for name, value in config.items() if name != "_meta_"}))
    before = dict(leaves(shipped))
    return {
        name: (run.get(name, ABSENT), before.get(name, ABSENT))
        for name in [*run, *(name for name in before if name not in run)]
        if _text(run.get(name, ABSENT)) != _text(before.get(name, ABSENT))
    }


def show_values(config: Mapping[str, Any] | None, shipped: Mapping[str, Any] | None) -> str:
    """Tables of the values of a run.

    Args:
        config: as the run merged it; where its ``_desc_`` is a mapping, as in a plan, this holds reasons of values.
        shipped: ``train.json`` as it lies in the bundle; None: not known.
    """
    if config is None:
        return ""
    told = config.get("_desc_")
    reasons = {name: why for name, why in told.items() if name in config} if isinstance(told, Mapping) else {}
    changed = {} if shipped is None else differences(config, shipped)
    rows = [[name, _text(new), _text(old), reasons.get(name, "")] for name, (new, old) in changed.items()]
    rows += [[name, _text(config.get(name)), "the same", why] for name, why in reasons.items() if name not in changed]
    top = [name for name in header_names(config) if name not in (*changed, *reasons, "_desc_")]
    rest = table(["value", "of this run"], ([name, _text(config[name])] for name in top))
    if shipped is None:
        about = paragraph("train.json of the bundle was not found: what was changed is not known.", soft=True)
    else:
        about = "" if rows else paragraph("All values are those of the bundle.")
    heads = ["value", "of this run", "shipped", *(["reason"] if reasons else [])]
    return about + table(heads, (row[: len(heads)] for row in rows)) + details("all other values", rest)


def _text(value: Any) -> str:
    """A value as the configuration has it, cut where it is long."""
    if value is ABSENT:
        return "-"
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    text = text.replace("::", "#")  # as MONAI's parser writes the ids of references anew
    return text if len(text) <= LONGEST else f"{text[:LONGEST]} ..."
