"""What a bundle's configs would run, told without running any of it.

A config is a program: MONAI calls whatever ``_target_`` names and evaluates every string that begins with ``$``. Plain
are parts of MONAI, torch and this package, ignite's metrics, and expressions that only compute. All else is told with
its file and place, for a person to read. It is an aid to reading, no sandbox.
"""

import json
import re
from collections.abc import Iterator
from typing import Any

from monai.bundle import ConfigParser
from monai.utils import optional_import

from .expression_code import SAFE, judge_expression, plain_import, plain_target

MAX_VALUES = 1_000_000  # of a config: a few lines of YAML can stand for more than any memory holds
IMPORTED = re.compile(r"[@%][\w#:]*\bimports\b")  # a reference to a module, whose every function is at hand
READER = r"(\w+::)*\w*(reader|writer)"  # key whose value LoadImage and SaveImage call, where it is a name
READERS = re.compile(r"(itk|nibabel|nrrd|numpy|pil|pydicom)(reader|writer)", re.IGNORECASE)
PROGRAM = re.compile(r"[$@%].*|.*\.(py\w*|sh|bat|ps1|conf|json|ya?ml)", re.IGNORECASE | re.DOTALL)
SERVER = re.compile(r"\w://")


def suspects(name: str, content: bytes) -> Iterator[str]:
    """What of a config (JSON, or YAML) is not plain: its file, its place in there, and what it says.

    Args:
        name: of the file.
        content: of the file.
    """
    try:
        for number, (place, key, value) in enumerate(_values("", "", _parse(name, content))):
            if number == MAX_VALUES:
                raise ValueError(f"more than {MAX_VALUES} values")
            reason = _judge(place, key, value) or _judge_address(name, key, value)
            if reason:
                yield f"{name}: {place}: {reason}: {value}"
    except (ValueError, RecursionError) as error:
        yield f"{name}: cannot be read as a config ({error})"


def _parse(name: str, content: bytes) -> Any:
    if name.lower().endswith(".json"):
        return json.loads(content.decode())
    yaml, found = optional_import("yaml")
    if not found:
        raise ValueError("reading YAML needs the package PyYAML")
    try:
        return yaml.safe_load(content.decode())
    except yaml.YAMLError as error:
        raise ValueError(str(error).splitlines()[0]) from error


def _values(place: str, key: str, value: Any) -> Iterator[tuple[str, str, Any]]:
    """Every value with its place and the last part of the place that is a name."""
    yield place, key, value
    if isinstance(value, dict):
        for inner, content in value.items():  # an overlay names a place in its key: train#trainer#_target_
            yield from _values(f"{place}#{inner}".lstrip("#+"), re.split("#|::|^[+]", str(inner))[-1], content)
    elif isinstance(value, list):
        for number, content in enumerate(value):
            yield from _values(f"{place}#{number}", key, content)


def _judge(place: str, key: str, value: Any) -> str | None:
    """Why a value is not plain."""
    if key == "_target_":
        return None if isinstance(value, str) and plain_target(value) else "is called"
    if key == "_mode_":
        return None if value == "default" else "hides what is called with, or starts a debugger"
    if "compile_kwargs" in place:
        return "chooses a compiler"
    if key in SAFE:
        return None if value is SAFE[key] else "lets a file run code when it is loaded"
    return _judge_text(place, key, value) if isinstance(value, str) else None


def _judge_address(name: str, key: str, value: Any) -> str | None:
    told = isinstance(value, str) and key not in ("_desc_", "description") and not name.endswith("metadata.json")
    return "names a server" if told and SERVER.search(value) else None


def _judge_text(place: str, key: str, text: str) -> str | None:
    if re.match(r"\$\s*(import|from)\b", text):
        return None if re.fullmatch(r"imports(#\d+)?", place) and plain_import(text[1:].strip()) else "imports"
    try:
        text = _absolute(place, text)
    except ValueError as error:
        return str(error)
    if IMPORTED.search(text):
        return "takes a module"
    if re.fullmatch(READER, key):
        known = READERS.fullmatch(text) or re.fullmatch(f"@{READER}", text) or plain_target(text)
        return None if known else "is called"
    if key == "filename" and PROGRAM.fullmatch(text):
        return "is a file to write that may be run later"
    if text.startswith("$"):
        return judge_expression(text[1:])
    return "is read as a config" if re.match(r"%(\W*$|.*\.(json|ya?ml)\b)", text, re.IGNORECASE) else None


def _absolute(place: str, text: str) -> str:
    """A text in which references to other places are absolute, as MONAI makes them."""
    if not re.match(r"[$@%]", text):
        return text
    if re.search(r"^%|[@%](#|::)", text) and not re.fullmatch(r"[\w#:]*", place):
        raise ValueError("refers to another place from one whose name may be code")  # the name becomes part of the text
    return ConfigParser.resolve_relative_ids(place.replace("#", "::"), text)
