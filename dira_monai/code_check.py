"""What of a bundle is code, and whether its weights are only numbers; nothing of it is run."""

import configparser
import re
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from . import __version__
from .archive import DAMAGE, PACKAGE, package_difference
from .config_code import suspects
from .errors import InputError
from .weight_files import read_weights

WEIGHTS = (".pt", ".pth", ".ckpt")
PICKLES = (".pkl", ".pickle", ".joblib", ".dill", ".npy", ".npz")
COMPILED = (".pyc", ".pyo", ".so", ".pyd", ".dll", ".dylib", ".exe")
CONFIGS = (".json", ".yaml", ".yml")
SETTINGS = (".conf", ".ini", ".cfg")  # as logging is set up by
MAX_CONFIG = 100_000_000  # bytes
CODE = (".py", ".pyw", ".ipynb", ".sh", ".bat", ".ps1", ".ts")
PLAIN = re.compile(  # files that nothing runs: texts, tables, pictures, scans, weights, what git and the hub leave
    r"(.*/)?([^./][^/]*\.(md|txt|rst|bib|csv|tsv|log|png|jpe?g|gif|nii|nii\.gz|nrrd|mha|mhd|dcm|onnx|safetensors|pth?|ckpt)"
    r"|LICENSE|NOTICE|README|SHA256SUMS|events\.out\.tfevents\.[^/]*|\.git(attributes|ignore|keep))"
    r"|\.cache/huggingface/(.*\.(metadata|lock)|CACHEDIR\.TAG)",
    re.IGNORECASE | re.DOTALL,
)
LOGGING = {  # what Python would evaluate in a logging configuration, and where that only writes to the screen
    "class": r"(logging\.)?(StreamHandler|NullHandler|Formatter)",
    "args": r"\(\s*(sys\.std(out|err)\s*,?)?\s*\)",
    "kwargs": r"\{\s*\}",
}


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
    if missing := [name for name in other if name not in files]:
        facts.append(
            f"{PACKAGE.name}: without {len(missing)} files of the {__version__} installed here, as {missing[0]}"
        )
    other = [name for name in other if name in files]
    code = [f"{name}: differs from the {PACKAGE.name} {__version__} that is installed here" for name in other]
    own = [(name, path) for name, path in files.items() if not name.startswith(f"{PACKAGE.name}/")]
    return facts, code + [line for name, path in own for line in _code(name, path)]


def _check_data(bundle: str, name: str, path: Path) -> str | None:
    suffix = path.suffix.lower()
    if suffix in COMPILED:
        raise InputError(f"{bundle}: {name} is compiled code, which nobody can read")
    inner = _inner_files(path) if suffix in WEIGHTS else []
    if inner is None or any(entry.compress_type != zipfile.ZIP_STORED for entry in inner):
        raise InputError(f"{bundle}: {name} is damaged, or compressed to fill the memory, as torch.save never does")
    if suffix in WEIGHTS:
        try:
            read_weights(path)
        except InputError as error:
            raise InputError(f"{bundle}: {str(error).replace(str(path), name)}") from error
        return f"{name}: {path.stat().st_size / 1e6:.1f} MB, read as tensors alone"
    if suffix in PICKLES or (suffix != ".ts" and _looks_pickled(path)):
        raise InputError(f"{bundle}: {name} is a pickle or may hold one, which can run code when it is loaded")
    return None


def _inner_files(path: Path) -> list[zipfile.ZipInfo] | None:
    """What lies in a file that is a zip file itself, None where that cannot be told."""
    if not zipfile.is_zipfile(path):
        return []
    try:
        with zipfile.ZipFile(path) as inner:
            return inner.infolist()
    except DAMAGE:
        return None


def _looks_pickled(path: Path) -> bool:
    inner = _inner_files(path)
    if inner is None or any(entry.filename.endswith((".pkl", ".npy")) for entry in inner):
        return True
    with path.open("rb") as file:
        start = file.read(2)
    return start[:1] == b"\x80" and start[1:] <= b"\x05"


def _code(name: str, path: Path) -> Iterator[str]:
    if name.lower().endswith((*CONFIGS, *SETTINGS)) and path.stat().st_size > MAX_CONFIG:
        yield f"{name}: too large to be read"
    elif name.lower().endswith(CONFIGS):
        yield from suspects(name, path.read_bytes())
    elif name.lower().endswith(SETTINGS):
        yield from _logging_suspects(name, path)
    elif name.lower().endswith(CODE):
        yield f"{name}: code of its own"
    elif path.stat().st_size and not PLAIN.fullmatch(name):
        yield f"{name}: of a kind that is not known to be plain"


def _logging_suspects(name: str, path: Path) -> Iterator[str]:
    """What Python would evaluate in a logging configuration, but for handlers that write to the screen."""
    parser = configparser.RawConfigParser()
    try:
        parser.read_string(path.read_text("utf-8"))
    except (configparser.Error, ValueError) as error:
        yield f"{name}: cannot be read ({str(error).splitlines()[0]})"
    for section in parser.sections():
        for key, value in parser.items(section):
            if key in LOGGING and not re.fullmatch(LOGGING[key], value):
                yield f"{name}: {section}: is evaluated: {value}"
