"""What the configs of this package's bundles say: the values that an audit of another config need not show.

The package has no bundles once it is installed, so ``known.json`` holds a digest of each such value with its place.
``python -m dira_monai.sharing.known bundles`` writes it anew.
"""

import hashlib
import json
import re
import sys
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

from ..utils.errors import InputError
from .archive import METADATA
from .generated_parts import GENERATED

FILE = Path(__file__).with_name("known.json")
CALLED = {"_target_", "_mode_", "optimizer_name", "reader", "label_reader"}  # whose text names what is called
MAX_PLACE = 1000  # characters; so long is no honest place, and each value below it would be as much to read
MAX_VALUES = 1_000_000  # of a config: a few lines of YAML can stand for more than any memory holds


def digest(place: str, value: Any) -> str:
    """Digest of a value with its place; all numbers at one place have the same one."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    text = json.dumps([place, 0 if number else value], default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


@cache
def known_digests() -> frozenset[str]:
    """Digests of the values in the shipped bundles' configs."""
    return frozenset(json.loads(FILE.read_text("utf-8")))


def list_values(name: str, config: Any) -> Iterator[tuple[str, str, Any]]:
    """Each value of a config that is or may become code: where it is shown, its place among known ones, the value.

    These are the values of ``CALLED``; text that begins with ``$``, ``@`` or ``%``, which MONAI evaluates or replaces
    wherever it stands; addresses of servers; and all that stands below the top, which may be an argument of what is
    called. Other plain values at the top, where those stand that users change, and descriptions are left out.

    A place among known ones has no positions in lists and one kind of separator: ``handlers#_target_``. Each value is
    visited once.

    Args:
        name: of the file in its bundle.
        config: its content.

    Raises:
        ValueError: if there are more values, or longer places, than an honest config has.
    """
    stack: list[tuple[str, Any, bool]] = [("", config, False)]  # place, value, whether it stands below the top
    visits = 0
    while stack:
        shown, value, below = stack.pop()
        visits += 1
        if visits > MAX_VALUES or len(shown) > MAX_PLACE:
            raise ValueError(f"more than {MAX_VALUES} values, or a place of more than {MAX_PLACE} characters")
        if isinstance(value, dict):
            places = [(f"{shown}#{key}" if shown else str(key), inner) for key, inner in value.items()]
            # an overlay reaches below the top by a name, such as train#trainer#_target_
            stack += [
                (key, inner, name != METADATA and bool(re.search("#|::|[+]", key))) for key, inner in reversed(places)
            ]
        elif isinstance(value, list):
            stack += [(f"{shown}#{i}", inner, below) for i, inner in reversed([*enumerate(value)])]
        elif _may_be_code(shown, value, below) or (name != METADATA and _names_server(shown, value)):
            yield shown, "#".join(part for part in _parts(shown) if not part.isdecimal()), value


def _parts(place: str) -> list[str]:
    return place.replace("::", "#").lstrip("+").split("#")


def _may_be_code(place: str, value: Any, below: bool) -> bool:
    if isinstance(value, str) and value.startswith(("$", "@", "%")):
        return True
    parts = _parts(place)
    return not CALLED.isdisjoint(parts) or (below and parts[-1] != "_desc_")


def _names_server(place: str, value: Any) -> bool:
    return isinstance(value, str) and "://" in value and _parts(place)[-1] != "_desc_"


def collect_digests(bundles: Iterable[Path]) -> list[str]:
    """Digests of all values in the configs of bundles' folders and of their runs, and of logging configurations."""
    made = (value for config in GENERATED for value in list_values("configs/evaluate.json", config))
    found = {digest(place, value) for _, place, value in made}
    for path in (path for bundle in bundles for path in bundle.glob("configs/*")):
        name = f"configs/{path.name}"
        if path.suffix == ".json":
            values = list_values(name, json.loads(path.read_text("utf-8")))
            found |= {digest(place, value) for _, place, value in values}
        else:
            found.add(digest(name, path.read_text("utf-8")))
    return sorted(found)


if __name__ == "__main__":
    if len(sys.argv) != 2 or not [*Path(sys.argv[1]).glob(f"*/{METADATA}")]:
        raise InputError("expected one word, the folder of the bundles: python -m dira_monai.sharing.known bundles")
    FILE.write_text(json.dumps(collect_digests(Path(sys.argv[1]).iterdir()), indent=0) + "\n", "utf-8")
