"""Which names and expressions of a config are plain: they only compute or read, as parts of known packages do."""

import ast
import builtins
import re
import unicodedata
from functools import cache
from pkgutil import resolve_name
from types import ModuleType
from typing import Any

from monai.bundle import ReferenceResolver
from monai.bundle.config_item import ComponentLocator

_PARTS = (
    r"ignite\.metrics|torch\.(nn|optim)"
    r"|monai\.(data|engines|handlers|inferers|losses|metrics|networks|optimizers|transforms|visualize)"
)


TARGET = re.compile(rf"dira_monai(\.reader)?\.\w+|torch\.utils\.data\.\w+|({_PARTS})(\.\w+)+")


CHAIN = {  # what an expression may say after the name of a module
    "dira_monai": r"\.\w+",
    "datetime": r"\.(date|datetime|time|timedelta|timezone)(\.\w+)?",
    "glob": r"\.glob",
    "itk": r"\.GDCMSeriesFileNames\.New",
    "importlib": r"(?!)",  # only asked whether a package is there
    "ignite": r"\.metrics(\.\w+)+",
    "json": r"\.(load|loads|dumps)",
    "math": r"\.\w+",
    "monai": rf"\.utils\.set_determinism|{_PARTS.split('monai')[-1]}(\.\w+)+",
    "np": r"(\.random|\.linalg)?\.\w+",
    "os": r"\.path\.(abspath|basename|dirname|exists|isdir|isfile|join|realpath|splitext)|\.environ\.get|\.sep",
    "pathlib": r"(?!)",  # only made: what takes the class itself may move files by its functions
    "re": r"\.(escape|findall|fullmatch|match|search|split|sub)",
    "sys": r"\.(argv|exit|platform)",
    "torch": r"((\.(backends|nn|optim)(\.\w+)*)?|\.utils\.data)\.\w+"
    r"|\.cuda\.(is_available|device_count|current_device|set_device)"
    r"|\.distributed\.(is_available|is_initialized|get_rank|get_world_size|(init|destroy)_process_group|barrier)",
}


PACKAGES = ("dira_monai", "ignite", "monai", "numpy", "torch")


READS_ONLY = ("json.load", "json.loads")


SAFE = {"weights_only": True, "allow_pickle": False}  # arguments with the value by which a file runs no code


SUSPECT = re.compile(  # names that reach files, pickles, servers, processes, other code or the inside of Python
    r"_(?!_getitem__$).*|(ag|cr|gi|tb)_.*|f_(back|builtins|globals|locals)"
    r"|load(?!_(decathlon_datalist|pretrained|state_dict)$).*"
    r"|(chmod|download|dump|elastic|exec|extract|from_?file|hardlink|hf_hub|import|launch|lchmod|link_to|mem_?map|mkdir"
    r"|move|open|pickle|popen|posix_|read_pickle|remove|rename|rm|run_|save|spawn|symlink|to_?file|touch|unlink|write).*"
    r"|\w*(Perceptual|[Dd]ata_?[Pp]ipe|Script|TorchIO|TorchVision|CuCIM)\w*"
    r"|(?i:clear_?ml|neptune|polyaxon|visdom|wandb)\w*|CSV\w*Dataset|DataSource|ThroughputBenchmark|compile(_kwargs)?"
    r"|convert_to_(onnx|torchscript|trt)|trt_.*|from_pretrained|LMDB\w*|fromregex|genfromtxt|recfrom\w*"
    r"|apps|builtins|bundle|copy|copy_into|cpp_extension|ctypes|ctypeslib|f2py|hub|importlib|inspect|instantiate|jit"
    r"|locate|ops|os|optional_import|package|replace|rpc|serialization|shutil|socket|subprocess|sys|system|test|types"
)


COMPONENT_ONLY = re.compile(  # what they call, read, write or send depends on arguments that only a component shows
    r"(Load|Save)Image\w*|\w*(Evaluator|PersistentDataset|Trainer|Writer)|(NumpyReader|Logfile|ClassificationSaver|CSV|MLF[lL]ow)\w*"
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
    hasattr,
    int,
    isinstance,
    len,
    list,
}


BUILTINS |= {map, max, min, range, reversed, round, set, slice, sorted, str, sum, tuple, zip}


REFERENCES = ReferenceResolver._vars  # the name under which MONAI's expressions find what they refer to


def plain_target(path: str) -> bool:
    """Whether what a ``_target_`` names is known: with its module, or as one of MONAI's own names."""
    paths = [path]
    if "." not in path:  # MONAI searches its own modules for such a name
        modules = _locator().get_component_module_name(path) or []
        paths = [f"{module}.{path}" for module in ([modules] if isinstance(modules, str) else modules)]
    return bool(paths) and all(TARGET.fullmatch(p) and not _suspect(p) and _at_home(p) for p in paths)


@cache
def _locator() -> ComponentLocator:
    return ComponentLocator()


def _suspect(path: str) -> bool:
    return any(SUSPECT.fullmatch(part) for part in path.split(".")[1:])


@cache
def _at_home(path: str) -> bool:
    """Whether a name is a function, class or value of the known packages, no module and nothing that they import."""
    try:
        found = resolve_name(path)
    except (ImportError, AttributeError, ValueError):
        return False
    parts = path.split(".")
    if not all(_own_name(".".join(parts[:count])) for count in range(1, len(parts))):
        return False
    home = str(getattr(found, "__module__", None) or path)
    lent = isinstance(found, ModuleType) or home.startswith("monai.utils.module")  # which stands for missing packages
    return not lent and home.split(".")[0] in PACKAGES


def _own_name(path: str) -> bool:
    """Whether a module has this name: under another one, modules reach all that they import."""
    found = resolve_name(path)
    return not isinstance(found, ModuleType) or found.__name__ == path


def plain_import(text: str) -> bool:
    """Whether a statement imports a known module as a whole, under its own name."""
    try:
        statements = ast.parse(text).body
    except (SyntaxError, ValueError):
        return False
    aliases = [alias for statement in statements if isinstance(statement, ast.Import) for alias in statement.names]
    known = all(
        (a.name.split(".")[0] in CHAIN and a.asname is None and "._" not in a.name)
        or (a.name, a.asname) == ("numpy", "np")
        for a in aliases
    )
    return known and all(isinstance(statement, ast.Import) for statement in statements)


def judge_expression(text: str) -> str | None:
    """Why an expression of a config (without its ``$``) is not plain, or None where it only computes."""
    if REFERENCES in unicodedata.normalize("NFKC", text):  # as Python reads names
        return f"uses {REFERENCES}"
    text = f"${text}"  # what is judged is what MONAI evaluates, which replaces also in strings, and makes :: of #
    text = ReferenceResolver.update_refs_pattern(text, ReferenceResolver.match_refs_pattern(text))[1:]
    try:
        tree = ast.parse(text.strip(), mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return "cannot be parsed"
    reader = _Reader(tree)
    return f"uses {', '.join(dict.fromkeys(reader.found))}" if reader.found else None


class _Reader(ast.NodeVisitor):
    """Collects the names of an expression that are not known to be plain."""

    def __init__(self, tree: ast.Expression) -> None:
        bound = {n.arg for n in ast.walk(tree) if isinstance(n, ast.arg)}
        bound |= {n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
        self.known = bound | {function.__name__ for function in BUILTINS} | {REFERENCES}
        # a name that is bound in one lambda would hide the builtin in all the rest of the expression
        self.found = sorted(name for name in bound if name in CHAIN or hasattr(builtins, name))
        self.visit(tree)

    def visit_Name(self, node: ast.Name) -> None:
        if node.id not in self.known:
            self.found.append(node.id)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        path = ast.unparse(node)
        if not isinstance(node.ctx, ast.Load):  # set by a loop
            self.found.append(path)
        root = path.split(".")[0]
        if root in CHAIN and re.fullmatch(r"[\w.]+", path):
            if not _plain_chain(root, path):
                self.found.append(path)
            return
        if SUSPECT.fullmatch(node.attr) or COMPONENT_ONLY.fullmatch(node.attr):
            self.found.append(node.attr)
        self.visit(node.value)

    def visit_Subscript(self, node: ast.Subscript) -> None:
        if not isinstance(node.ctx, ast.Load):
            self.found.append(ast.unparse(node))
        if ast.unparse(node.value) != "os.environ":  # of which one value is read
            self.visit(node.value)
        self.visit(node.slice)

    def visit_keyword(self, node: ast.keyword) -> None:
        if node.arg in SAFE and ast.unparse(node.value) != str(SAFE[node.arg]):
            self.found.append(ast.unparse(node))
        self.visit(node.value)

    def visit_Call(self, node: ast.Call) -> None:
        for child in (_judged_part(node), *node.args, *node.keywords):
            if child:
                self.visit(child)


def _plain_chain(root: str, path: str) -> bool:
    if path in READS_ONLY:
        return True
    known = re.fullmatch(CHAIN[root], path.removeprefix(root)) and not _suspect(path)
    if not known or any(COMPONENT_ONLY.fullmatch(part) for part in path.split(".")):
        return False
    full = re.sub("^np", "numpy", path)
    return full.split(".")[0] not in PACKAGES or _at_home(full)


def _judged_part(call: ast.Call) -> ast.expr | None:
    """The part of what is called that is still to be judged: none or less of it where the arguments make it plain."""
    func = call.func
    words = ["" if isinstance(argument, ast.Starred) else ast.unparse(argument) for argument in call.args]
    name = ast.unparse(func)
    reads = name == "open" and len(words) == 1 and words[0] and not call.keywords
    found = name == "importlib.util.find_spec" and len(words) == 1 and re.fullmatch(r"'\w+'", words[0])
    tensors = name == "torch.load" and "weights_only=True" in map(ast.unparse, call.keywords)
    given = {keyword.arg for keyword in call.keywords}
    chosen = re.fullmatch(rf"getattr\(torch\.optim, {REFERENCES}\['[\w:]+'\]\)", name)
    optimizer = chosen and "lr" in given  # which nothing else there takes
    if reads or found or tensors or optimizer or name == "pathlib.Path":
        return None
    if name == "torch.distributed.init_process_group" and (len(words) > 1 or given - {"timeout"}):
        return ast.Name(f"{name} with an address")
    if isinstance(func, ast.Attribute):
        of_text = func.attr == "replace" and len(words) >= 2 and all(words)  # that of a path takes one
        of_dictionary = func.attr == "copy" and not words and not call.keywords
        place = func.value
        table = isinstance(place, ast.BinOp) and re.search(r" / '[\w-]+\.csv'$", ast.unparse(place))
        if of_text or of_dictionary or (func.attr == "write_text" and table):
            return place
    return func
