"""What a bundle's configs would run, told without running any of it.

A config is a program: MONAI calls whatever ``_target_`` names and evaluates every string that begins with ``$``. This
module knows what is plain: parts of MONAI, torch, ignite and this package, and expressions that only compute. All else
is told with its file and place, for a person to read. It is an aid to reading, no sandbox.
"""

import ast
import builtins
import json
import re
from collections.abc import Iterator
from functools import cache
from typing import Any

from monai.bundle.config_item import ComponentLocator
from monai.utils import optional_import

_PARTS = (
    r"dira_monai|ignite\.(engine|handlers|metrics)|torch\.(nn|optim|utils\.data)"
    r"|monai\.(data|engines|handlers|inferers|losses|metrics|networks|optimizers|transforms|visualize)"
)
TARGET = re.compile(rf"({_PARTS})(\.\w+)+")
CHAIN = {  # what an expression may say after the name of a module
    "dira_monai": r"(\.\w+)+",
    "datetime": r"(\.\w+)+",
    "glob": r"\.glob",
    "ignite": r"\.(engine|handlers|metrics|utils)(\.\w+)+",
    "json": r"\.(load|loads|dumps)",
    "math": r"\.\w+",
    "monai": rf"\.utils\.set_determinism|{_PARTS.split('monai')[-1]}(\.\w+)+",
    "np": r"(\.random|\.linalg)?\.\w+",
    "os": r"\.path\.(abspath|basename|dirname|exists|isdir|isfile|join|splitext)|\.environ(\.get)?",
    "pathlib": r"\.Path",
    "re": r"\.(compile|escape|findall|fullmatch|match|search|split|sub)",
    "sys": r"\.(argv|exit)",
    "torch": r"((\.(backends|cuda|nn|optim|utils\.data)(\.\w+)*)?|\.distributed)\.\w+",
}
READS_ONLY = ("json.load", "json.loads")
SUSPECT = re.compile(  # attributes that reach files, processes, other code or the inside of Python
    r"_(?!_getitem__$).*|load(?!_(decathlon_datalist|pretrained|state_dict)$).*"
    r"|(chmod|download|dump|elastic|exec|from_?file|hardlink|import|launch|mem_?map|mkdir|open|pickle|popen|remove|rename"
    r"|rm|run_|save|spawn|symlink|to_?file|touch|unlink|write).*|apps|builtins|bundle|cpp_extension|ctypes|ctypeslib|f2py|hub|importlib|inspect|jit|locate|ops|os"
    r"|optional_import|package|rpc|serialization|shutil|socket|subprocess|sys|system|types"
)
BUILTINS: set[Any] = {
    abs,
    all,
    any,
    bool,
    dict,
    enumerate,
    filter,
    float,
    frozenset,
    int,
    isinstance,
    len,
    list,
    map,
    max,
    min,
}
BUILTINS |= {range, reversed, round, set, slice, sorted, str, sum, tuple, zip}
REFERENCE = "reference_"
IMPORTED = re.compile(r"[@%][\w#:]*\bimports\b")  # a reference to a module, whose every function is at hand


def suspects(name: str, content: bytes) -> Iterator[str]:
    """What of a config (JSON, or YAML) is not plain: its file, its place in there, and what it says.

    Args:
        name: of the file.
        content: of the file.
    """
    try:
        for place, key, value in _strings("", "", _parse(name, content)):
            reason = _judge(key, value)
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


def _strings(place: str, key: str, value: Any) -> Iterator[tuple[str, str, str]]:
    """Every string with its place and the last part of the place that is a name."""
    if isinstance(value, str):
        yield place, key, value
    elif isinstance(value, dict):
        for inner, content in value.items():  # an overlay names a place in its key: train#trainer#_target_
            yield from _strings(f"{place}#{inner}".lstrip("#"), re.split("#|::", str(inner))[-1], content)
    elif isinstance(value, list):
        for number, content in enumerate(value):
            yield from _strings(f"{place}#{number}", key, content)
    elif key == "_target_":
        yield place, key, str(value)


def _judge(key: str, value: str) -> str | None:
    if re.match(r"\$\s*(import|from)\b", value):
        return None if key == "imports" and _plain_import(value[1:].strip()) else "imports"
    if IMPORTED.search(value):
        return "takes a module"
    if value.startswith("$"):
        return "is called" if key == "_target_" else judge_expression(value[1:])
    if value.startswith("%") and re.search(r"\.(json|ya?ml)\b", value, re.IGNORECASE):
        return "is read as a config"
    called = key == "_target_" or (key in ("reader", "writer") and "." in value)
    return "is called" if called and not _plain_target(value) else None


def _plain_target(path: str) -> bool:
    paths = [path]
    if "." not in path:  # MONAI searches its own modules for such a name
        modules = _locator().get_component_module_name(path) or []
        paths = [f"{module}.{path}" for module in ([modules] if isinstance(modules, str) else modules)]
    known = bool(paths) and all(TARGET.fullmatch(p) for p in paths)
    return known and not any(SUSPECT.fullmatch(part) for part in path.split("."))


@cache
def _locator() -> ComponentLocator:
    return ComponentLocator()


def judge_expression(text: str) -> str | None:
    """Why an expression of a config (without its ``$``) is not plain, or None where it only computes."""
    text = re.sub(r"@[#:]*\w*(?:(?:#|::)\w+)*", REFERENCE, text).strip()
    try:
        tree = ast.parse(text, mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return "cannot be parsed"
    reader = _Reader(tree)
    return f"uses {', '.join(dict.fromkeys(reader.found))}" if reader.found else None


def _plain_import(text: str) -> bool:
    """Whether a statement imports a known module as a whole, under its own name."""
    try:
        statements = ast.parse(text).body
    except (SyntaxError, ValueError):
        return False
    aliases = [alias for statement in statements if isinstance(statement, ast.Import) for alias in statement.names]
    known = [
        (a.name.split(".")[0] in CHAIN and a.asname is None) or (a.name, a.asname) == ("numpy", "np") for a in aliases
    ]
    return all(isinstance(statement, ast.Import) for statement in statements) and all(known)


class _Reader(ast.NodeVisitor):
    """Collects the names of an expression that are not known to be plain."""

    def __init__(self, tree: ast.Expression) -> None:
        bound = {n.arg for n in ast.walk(tree) if isinstance(n, ast.arg)}
        bound |= {n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
        self.known = bound | {function.__name__ for function in BUILTINS} | {REFERENCE}
        # a name that is bound in one lambda would hide the builtin in all the rest of the expression
        self.found = sorted(name for name in bound if name in CHAIN or hasattr(builtins, name))
        self.visit(tree)

    def visit_Name(self, node: ast.Name) -> None:
        if node.id not in self.known:
            self.found.append(node.id)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        path = ast.unparse(node)
        root = path.split(".")[0]
        if root in CHAIN and re.fullmatch(r"[\w.]+", path):
            rest = path.removeprefix(root)
            plain = re.fullmatch(CHAIN[root], rest) and not any(SUSPECT.fullmatch(p) for p in rest[1:].split("."))
            if not plain and path not in READS_ONLY:
                self.found.append(path)
            return
        if SUSPECT.fullmatch(node.attr):
            self.found.append(node.attr)
        self.visit(node.value)

    def visit_Call(self, node: ast.Call) -> None:
        name = node.func.id if isinstance(node.func, ast.Name) else ""
        first = ast.unparse(node.args[0]) if node.args else ""
        reads = name == "open" and len(node.args) == 1 and not node.keywords and not first.startswith("*")
        picks = name == "getattr" and first == "torch.optim"
        if not (reads or picks):
            self.visit(node.func)
        for child in (*node.args, *node.keywords):
            self.visit(child)
