"""The commands: ``python -m dira_monai COMMAND``; ``--help`` lists them.

Only the module of the command on the command line is imported, and what it runs only when it runs, so that ``scores``,
``verify``, ``unpack`` and every ``--help`` start without torch and MONAI.
"""

import ast
import atexit
import gc
import importlib
import sys
from collections.abc import Callable
from pathlib import Path

import fire

from .cli.deferred import deferred
from .utils.closed_output import tolerate_closed_output
from .utils.errors import silence_needless, to_sentence

COMMANDS = {  # the module of each, below cli
    "pretrain": "workflows",
    "finetune": "workflows",
    "evaluate": "workflows",
    "embed": "workflows",
    "study": "study",
    "bundles": "workflows",
    "datalist": "data",
    "labeled": "data",
    "merge-masks": "apps",
    "phantom": "data",
    "prepare": "data",
    "infer": "infer",
    "plan": "plan",
    "localize": "apps",
    "probe": "apps",
    "visual-words": "apps",
    "scores": "scores",
    "seg": "apps",
    "import-weights": "weights",
    "export-weights": "weights",
    "pack": "archives",
    "verify": "archives",
    "unpack": "archives",
}
FORMER = {"labelled": "labeled"}  # names of version 0.1


def load_command(word: str) -> Callable:
    """The function of a command as fire runs it."""
    name = FORMER.get(word, word)
    module = importlib.import_module(f".cli.{COMMANDS[name]}", __package__)
    return deferred(getattr(module, name.replace("-", "_")))


def list_commands() -> dict[str, Callable]:
    """For the list of commands: each with the first line of its docstring, read without importing it."""
    lines: dict[str, str] = {}
    for module in set(COMMANDS.values()):
        lines |= _first_lines(Path(__file__).parent / "cli" / f"{module}.py")
    return {word: _stub(lines[word.replace("-", "_")]) for word in COMMANDS}


def _first_lines(file: Path) -> dict[str, str]:
    """First line of the docstring of each function of a module."""
    functions = [node for node in ast.parse(file.read_text("utf-8")).body if isinstance(node, ast.FunctionDef)]
    return {node.name: (ast.get_docstring(node) or "").split("\n")[0] for node in functions}


def _stub(line: str) -> Callable:
    def command() -> None: ...

    command.__doc__ = line
    return command


def main() -> None:
    """Run the command line; an error ends with one sentence and status 1."""
    silence_needless()
    atexit.register(gc.freeze)  # else Python searches all that MONAI has imported for cycles, which takes seconds
    word = sys.argv[1] if len(sys.argv) > 1 else ""
    known = word in COMMANDS or word in FORMER
    # a command with **values would take --help for one of them
    words = [word, "--", "--help"] if "--help" in sys.argv[2:] else sys.argv[1:]
    try:
        with tolerate_closed_output():
            fire.Fire({word: load_command(word)} if known else list_commands(), words, name="dira_monai")
    except Exception as error:  # whatever a command raises
        sys.exit(f"error: {to_sentence(error)}")


if __name__ == "__main__":
    main()
