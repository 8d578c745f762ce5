"""What of a bundle is code, and whether its weights are only numbers; nothing of it is run."""

import configparser
import json
import re
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser
from monai.utils import optional_import

from ..utils.errors import InputError
from ..utils.version import __version__
from ..weights.files import read_weights
from .archive import DAMAGE, PACKAGE, package_difference
from .audit_expressions import SAFE, judge_expression, plain_import, plain_target

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
