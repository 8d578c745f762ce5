"""Where things live: imports run one way through the folders, and a folder stays small."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "dira_monai"
FLOORS = (  # each folder and module imports from those above it only
    "utils",
    "phantoms",
    "networks losses transforms dicom bundle visualize metrics",
    "objectives optimizers weights images",
    "datalists engines sharing",
    "data",
    "handlers apps",
    "workflows",
    "cli __init__ reader",  # reader: an alias for archives of version 0.1
    "__main__",
)
FLOOR = {name: floor for floor, names in enumerate(FLOORS) for name in names.split()}


def own_imports(path):
    """Each import of the package's own: line, and the path of what is imported below the package."""
    here = path.relative_to(PACKAGE).parts[:-1]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = [*here[: len(here) + 1 - node.level], *(node.module or "").split(".")]
            for alias in node.names:
                yield node.lineno, tuple(part for part in [*base, alias.name] if part)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module]
            yield from ((node.lineno, ("__init__",)) for name in names if name.split(".")[0] == "dira_monai")


def runs_one_way(source, target):
    """Whether a module may import another one; both are paths below the package."""
    if source[0] == "apps" == target[0]:
        return source[1] == target[1]
    return source[0] == target[0] or FLOOR.get(target[0], len(FLOORS)) < FLOOR[source[0]]


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_run_one_way(path):
    source = path.relative_to(PACKAGE).with_suffix("").parts
    wrong = [f"{line}: {'.'.join(target)}" for line, target in own_imports(path) if not runs_one_way(source, target)]
    assert wrong == []


def test_a_folder_holds_at_most_16_modules():
    folders = {path.parent for path in PACKAGE.rglob("*.py")}
    counts = {str(folder.relative_to(PACKAGE)): len(list(folder.glob("[!_]*.py"))) for folder in folders}
    assert {folder: count for folder, count in counts.items() if count > 16} == {}


def test_the_rule_can_fail():
    assert not runs_one_way(("utils", "files"), ("networks", "heads", "mlp"))
    assert not runs_one_way(("losses", "contrastive"), ("networks", "heads", "mlp"))
    assert not runs_one_way(("objectives", "moco"), ("engines", "trainer", "DiRATrainer"))
    assert not runs_one_way(("apps", "probing", "probe"), ("apps", "localization", "boxes"))
    assert not runs_one_way(("cli", "apps"), ("__init__",))
    assert not runs_one_way(("cli", "apps"), ("__version__",))
    assert runs_one_way(("apps", "probing", "probe"), ("apps", "probing", "features", "encode"))
    assert runs_one_way(("engines", "trainer"), ("networks", "heads", "mlp"))
