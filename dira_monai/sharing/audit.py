"""What of a bundle is code that this package does not ship; nothing of it is run."""

import json
import re
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..utils.errors import InputError
from ..utils.version import __version__
from .archive import DAMAGE, PACKAGE, opened_zip, package_difference
from .known import digest, known_digests, list_values
from .weights import check_weight_file

WEIGHTS = (".pt", ".pth", ".ckpt")
PICKLES = (".pkl", ".pickle", ".joblib", ".dill", ".npy", ".npz")
COMPILED = (".pyc", ".pyo", ".so", ".pyd", ".dll", ".dylib", ".exe")
CONFIGS = (".json", ".yaml", ".yml")
SETTINGS = (".conf", ".ini", ".cfg")  # as logging is set up by: known by their content
MAX_CONFIG = 10_000_000  # bytes
MAX_YAML = 1_000_000  # bytes; it is read a hundred times slower
SHIPPED = (  # and what git and exports leave: none of it is read as code
    r"LICENSE|README\.md|SHA256SUMS|docs/(README\.md|data_license\.txt|panel\.png)"
    r"|models/model\.onnx|(.+/)?\.git(attributes|ignore|keep)"
)


def check_files(bundle: str, files: Mapping[str, Path]) -> tuple[list[str], dict[str, list[str]]]:
    """What to say of a bundle's files, and by file what of them is code that no shipped bundle has.

    Args:
        bundle: its name.
        files: by their names in it.

    Raises:
        InputError: if there are weights that are more than tensors, another pickle or compiled code.
    """
    facts = [fact for name, path in files.items() if (fact := _check_data(bundle, name, path))]
    other = package_difference(files)
    if not any(name.startswith(f"{PACKAGE.name}/") for name in files):
        facts.append(f"{PACKAGE.name}: not in there; configs that name it need it installed")
    elif not other:
        facts.append(f"{PACKAGE.name}: the same code as the {__version__} that is installed here")
    if missing := [name for name in other if name not in files]:
        facts.append(
            f"{PACKAGE.name}: without {len(missing)} files of the {__version__} installed here, as {missing[0]}"
        )
    rows = {name: [*_rows(name, path, name in other)] for name, path in files.items()}
    return facts, {name: found for name, found in rows.items() if found}


def _check_data(bundle: str, name: str, path: Path) -> str | None:
    suffix = path.suffix.lower() or path.name.lower()  # a file may be named .pt
    if suffix in COMPILED:
        raise InputError(f"{bundle}: {name} is compiled code, which nobody can read")
    if suffix in WEIGHTS:
        check_weight_file(path, f"{bundle}: {name}")
        return f"{name}: {path.stat().st_size / 1e6:.1f} MB, holds tensors alone"
    if suffix in PICKLES or (suffix != ".ts" and _looks_pickled(path)):
        raise InputError(f"{bundle}: {name} is a pickle or may hold one, which can run code when it is loaded")
    return None


def _looks_pickled(path: Path) -> bool:
    try:
        names = []
        if zipfile.is_zipfile(path):
            with opened_zip(path) as opened:
                names = opened.namelist()
    except (*DAMAGE, MemoryError):
        return True
    with path.open("rb") as file:
        start = file.read(2)
    return any(name.endswith((".pkl", ".npy")) for name in names) or (start[:1] == b"\x80" and start[1:] <= b"\x05")


def _rows(name: str, path: Path, differs: bool) -> Iterator[str]:
    """What to show of a file."""
    if name.startswith(f"{PACKAGE.name}/"):
        if differs:
            yield f"differs from the {PACKAGE.name} {__version__} that is installed here"
    elif name.lower().endswith((*CONFIGS, *SETTINGS)) and path.stat().st_size > _most(name):
        yield "too large to be read"
    elif name.lower().endswith(CONFIGS):
        yield from unknown_values(name, path.read_bytes())
    elif name.lower().endswith(SETTINGS):
        text = path.read_text("utf-8", errors="replace")
        if digest(name, text) not in known_digests():
            yield from ("other file", *filter(str.strip, text.splitlines()))
    elif not name.lower().endswith(WEIGHTS) and not re.fullmatch(SHIPPED, name):
        yield "other file"


def _most(name: str) -> int:
    return MAX_YAML if name.lower().endswith((".yaml", ".yml")) else MAX_CONFIG


def unknown_values(name: str, content: bytes) -> Iterator[str]:
    """Each value of a config that may be code and that no shipped config has at that place, with its place.

    Args:
        name: of the file in its bundle; JSON, or YAML.
        content: of the file.
    """
    known = known_digests()
    try:
        for shown, place, value in list_values(name, _parse(name, content)):
            if digest(place, value) not in known:
                yield f"{shown}: {value if isinstance(value, str) else json.dumps(value, default=str)}"
    except (ValueError, RecursionError) as error:
        yield f"cannot be read as a config ({error})"


def _parse(name: str, content: bytes) -> Any:
    if name.lower().endswith(".json"):
        return json.loads(content.decode())
    try:
        import yaml  # an optional package, for MONAI too
    except ImportError as error:
        raise ValueError("reading YAML needs the package PyYAML") from error
    try:
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(content.decode())):
            raise ValueError("it has aliases, by which a few lines can stand for more than any memory holds")
        return yaml.safe_load(content.decode())
    except yaml.YAMLError as error:
        raise ValueError(str(error).splitlines()[0]) from error
