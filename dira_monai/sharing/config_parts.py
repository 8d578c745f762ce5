"""What the parts of a configuration refer to, and what of it is needed."""

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from monai.bundle import ConfigParser, ReferenceResolver

from ..bundle.values import list_texts

SEPARATOR = "::"
NESTED = re.compile(r"@\w+(::\w+)+")  # a reference to a part of something, as MONAI rewrites it


def find_references(value: Any) -> set[str]:
    """The ids that a value refers to, with ``::`` between their parts."""
    texts = list_texts(value)
    return {ref for text in texts for ref in ReferenceResolver.match_refs_pattern(text)}


def is_expression(value: Any) -> bool:
    """Whether a value is a text that MONAI evaluates or replaces."""
    return isinstance(value, str) and value.startswith(("$", "@"))


def as_json(value: Any) -> Any:
    """The value as a JSON file has it.

    Raises:
        TypeError: if it is anything else than texts, finite numbers, lists and objects.
        ValueError: the same.
    """
    return json.loads(json.dumps(value, allow_nan=False))


def copy_parts(value: Any) -> Any:
    """A copy whose dictionaries and lists are new, and whose references have # between their parts, as in files."""
    if isinstance(value, dict):
        return {key: copy_parts(part) for key, part in value.items()}
    if isinstance(value, list):
        return [copy_parts(part) for part in value]
    return NESTED.sub(lambda found: found[0].replace("::", "#"), value) if is_expression(value) else value


def undo_overlay(config: Mapping[str, Any], base: Mapping[str, Any], overlay: Mapping[str, Any]) -> dict[str, Any]:
    """A merged configuration without what one of its files has changed at the top.

    Args:
        config: the merged one.
        base: the file that comes first.
        overlay: the file whose values go, where nothing else has changed them again.
    """
    undone = {name for name, value in overlay.items() if name in config and config[name] == value}
    kept = {
        name: base[name] if name in undone else value for name, value in config.items() if name not in undone - {*base}
    }
    return copy_parts(kept)


def needed_parts(config: Mapping[str, Any], roots: Iterable[str]) -> dict[str, Any]:
    """The part of a configuration that some of its ids need, directly or through others, in the same order."""
    parser, wanted = ConfigParser(copy_parts(dict(config))), set[str]()
    waiting = [root for root in roots if root in parser]
    while waiting:
        place = waiting.pop()
        if place not in wanted:
            wanted.add(place)
            waiting += [ref for ref in find_references(parser[place]) if ref in parser]
    return _keep(config, wanted, "")


def _keep(config: Mapping[str, Any], wanted: set[str], above: str) -> dict[str, Any]:
    kept: dict[str, Any] = {}
    for key, value in config.items():
        place = f"{above}{key}"
        if place in wanted:
            kept[key] = value
        elif isinstance(value, dict) and (inside := _keep(value, wanted, place + SEPARATOR)):
            kept[key] = inside
        elif isinstance(value, list) and any(name.startswith(place + SEPARATOR) for name in wanted):
            kept[key] = value
    return kept


def needed_imports(config: Mapping[str, Any], *imports: Iterable[str]) -> list[str]:
    """Those of several lists of import statements whose module or name the expressions of a configuration use."""
    code = "\n".join(text for key, value in config.items() if key != "imports" for text in list_texts(value))
    lines = dict.fromkeys(line for lines in imports for line in lines)
    return [line for line in lines if re.search(rf"(?<![\w.@]){re.escape(line.split()[-1])}\.", code)]
