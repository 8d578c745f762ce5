"""What of a bundle is code, and whether its weights are only numbers; nothing of it is run."""

import configparser
import re
import zipfile
from ast import literal_eval
from collections.abc import Iterator, Mapping
from pathlib import Path

from . import __version__
from .archive import PACKAGE, package_difference
from .config_code import suspects
from .errors import InputError
from .weight_files import read_weights

WEIGHTS = (".pt", ".pth", ".ckpt")
PICKLES = (".pkl", ".pickle", ".joblib", ".dill", ".npy", ".npz")
COMPILED = (".pyc", ".pyo", ".so", ".pyd", ".dll", ".dylib", ".exe")
CODE = (".py", ".pyw", ".ipynb", ".sh", ".bat", ".ps1", ".ts")


def check_files(bundle: str, files: Mapping[str, Path]) -> tuple[list[str], list[str]]:
    """What to say of a bundle's files, and what of them may run that is not plain: each with its file and place.

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
    code = [f"{name}: differs from the {PACKAGE.name} {__version__} that is installed here" for name in other]
    own = [(name, path) for name, path in files.items() if not name.startswith(f"{PACKAGE.name}/")]
    return facts, code + [line for name, path in own for line in _code(name, path)]


def _check_data(bundle: str, name: str, path: Path) -> str | None:
    suffix = path.suffix.lower()
    if suffix in COMPILED:
        raise InputError(f"{bundle}: {name} is compiled code, which nobody can read")
    if suffix in WEIGHTS:
        try:
            read_weights(path)
        except InputError as error:
            raise InputError(f"{bundle}: {str(error).replace(str(path), name)}") from error
        return f"{name}: {path.stat().st_size / 1e6:.1f} MB, read as tensors alone"
    if suffix in PICKLES or (suffix != ".ts" and _looks_pickled(path)):
        raise InputError(f"{bundle}: {name} is a pickle or may hold one, which can run code when it is loaded")
    return None


def _looks_pickled(path: Path) -> bool:
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as inner:
            return any(name.endswith(".pkl") for name in inner.namelist())
    with path.open("rb") as file:
        start = file.read(2)
    return start[:1] == b"\x80" and start[1:] <= b"\x05"


def _code(name: str, path: Path) -> Iterator[str]:
    suffix = path.suffix.lower()
    if suffix in CODE:
        yield f"{name}: code of its own"
    elif suffix in (".json", ".yaml", ".yml"):
        yield from suspects(name, path.read_bytes())
    elif suffix in (".conf", ".ini", ".cfg"):
        yield from _logging_suspects(name, path)


def _logging_suspects(name: str, path: Path) -> Iterator[str]:
    """Handlers of a logging configuration whose class or arguments Python would evaluate."""
    parser = configparser.RawConfigParser()
    try:
        parser.read_string(path.read_text("utf-8"))
    except (configparser.Error, ValueError) as error:
        yield f"{name}: cannot be read ({str(error).splitlines()[0]})"
    for section in parser.sections():
        for key, value in parser.items(section):
            if (key == "class" and not re.fullmatch(r"(logging\.)?(handlers\.)?\w+", value)) or (
                key in ("args", "kwargs") and not _literal(value)
            ):
                yield f"{name}: {section}: is evaluated: {value}"


def _literal(text: str) -> bool:
    try:
        literal_eval(re.sub(r"\bsys\.std(out|err)\b", "0", text))
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return False
    return True
