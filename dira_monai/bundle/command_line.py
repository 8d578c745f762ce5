"""What of a command line ``python -m monai.bundle`` would not arrive as it is meant."""

import difflib
import inspect
import itertools
import json
import sys
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from fire.parser import DefaultParseValue
from monai.bundle import ConfigParser, ConfigWorkflow, ReferenceResolver, run
from monai.bundle.properties import TrainProperties
from monai.bundle.utils import DEFAULT_MLFLOW_SETTINGS

from ..utils.errors import InputError
from .packed_code import name_running_code

MEANT = {"null": "'$None', with the quotes", "None": "'$None', with the quotes", "false": "False"}
MONAI_OPTIONS = {*inspect.signature(run).parameters, *inspect.signature(ConfigWorkflow).parameters}
MONAI_OPTIONS |= {*DEFAULT_MLFLOW_SETTINGS["configs"]}
READ_BY_MONAI = {"initialize", "run", "finalize", "imports", "_meta_", *(p["id"] for p in TrainProperties.values())}
FORMER_VALUES = {"label_subset": "label_seed"}  # names of version 0.1
BUNDLE_COMMAND = ("monai", "bundle", "__main__.py")  # as the path of the running script ends


def check_command_line(words: Sequence[str] | None = None) -> None:
    """Refuse options and values on the command line that would not arrive as they are meant.

    Fire makes (true) strings of ``null`` and ``false`` and ``True`` of an option without a value, and MONAI leaves out
    an option whose value is ``None`` (as the expression ``$None`` it arrives) and one that the configuration does not
    know. Of an option or a further file it takes over ids that nothing reads. Where the configuration trains nothing,
    options that it does not know are let pass: it may be given all values of a training.

    Args:
        words: the command line; None: that of this process, if it is ``python -m monai.bundle``: words of other
            programs, such as the client of a federation, are not for MONAI. Where the bundle brings other code of this
            package than runs, one line says so first.

    Raises:
        InputError: names the option and what to write instead.
    """
    if words is None:
        words = sys.argv if Path(sys.argv[0]).parts[-3:] == BUNDLE_COMMAND else []
        if words:
            name_running_code(bundle_root())
    given = _options(words)
    for option, value in given:
        if value in MEANT:
            raise InputError(f"{option} {value}: write {MEANT[value]} instead, which MONAI takes over as it is")
    files = config_files(words)
    contents = [ConfigParser.load_config_file(file) for file in files]
    if any("train" in content for content in contents):
        text = json.dumps(contents, default=str)
        for file, content in zip(files[1:], contents[1:], strict=True):
            _refuse_unread(content, file, ConfigParser(contents[0]), text)
        values = ConfigParser.load_config_files(files)
        _refuse_unknown(given, values)
        names = [_name(option) for option, _ in given]
        _refuse_unread([name for name in names if "#" in name], "the command line", ConfigParser(values), text)
        _warn_of_former(names)


def _refuse_unread(names: Iterable[str], source: str, parser: ConfigParser, text: str) -> None:
    """Refuse ids that the configuration lacks and nothing in its text reads: misspelt, or of another version."""
    for name in names:
        key = ReferenceResolver.normalize_id(name.lstrip("+"))
        read = key in parser or f"@{key}" in text or key in READ_BY_MONAI or key.endswith(("_desc_", "_disabled_"))
        if not read and not is_argument(parser, key):
            raise InputError(f"{source}: {name} is no value of the configuration, and nothing reads it; correct it")


def _warn_of_former(names: Iterable[str]) -> None:
    """Say of values that have another name today what it is."""
    for name in FORMER_VALUES.keys() & {*names}:
        warnings.warn(f"{name} is now {FORMER_VALUES[name]}.", FutureWarning, stacklevel=2)


def is_argument(parser: ConfigParser, key: str) -> bool:
    """Whether the id belongs to something that is instantiated, which checks its arguments itself."""
    parent, _ = ReferenceResolver.split_id(key, last=True)
    found = parser.get(parent) if parent else None
    return isinstance(found, dict) and "_target_" in found


def config_files(words: Sequence[str]) -> list[str]:
    """The files of ``--config_file`` on a command line, as MONAI takes them: a list, or words joined by commas."""
    given = [DefaultParseValue(value) for option, value in _options(words) if _name(option) == "config_file"]
    if not given or isinstance(given[-1], list | tuple):
        return [str(file) for files in given[-1:] for file in files]
    return [str(given[-1])] if Path(str(given[-1])).is_file() else str(given[-1]).split(",")


def _options(words: Sequence[str]) -> list[tuple[str, str]]:
    """Each option with what stands behind it: its value, or another option where it has none."""
    parts = [part for word in words for part in (word.split("=", 1) if word.startswith("--") else [word])]
    return [(option, value) for option, value in itertools.pairwise([*parts, "--"]) if option.startswith("--")]


def _name(option: str) -> str:
    """The name of an option, in which Fire takes - for _."""
    return option.removeprefix("--").replace("-", "_")


def _refuse_unknown(given: Sequence[tuple[str, str]], values: dict[str, Any]) -> None:
    known = MONAI_OPTIONS | {_section(name) for name in values}
    for option, value in given:
        name = _name(option)
        if name and _section(name) not in known:
            close = difflib.get_close_matches(_section(name), known, 1)
            hint = f"did you mean --{close[0]}?" if close else "its values stand at the top of train.json"
            raise InputError(f"{option} is no value of the configuration, so MONAI would ignore it; {hint}")
        if name and value.startswith("--") and not isinstance(values.get(name, True), bool):
            raise InputError(f"{option} needs a value behind it")


def _section(name: str) -> str:
    """The part of a value's name that stands at the top of a configuration."""
    return name.lstrip("+").split("#")[0].split("::")[0]


def bundle_root() -> str:
    """Folder of the bundle that runs: that of ``--config_file`` on the command line, else the working directory.

    MONAI does not tell a config where it lies; with the working directory alone, a run from elsewhere would write its
    weights there, and two bundles would overwrite each other's.
    """
    files = config_files(sys.argv)
    if not files:
        return "."
    folder = Path(files[0]).resolve().parent
    return str(folder.parent if folder.name == "configs" else folder)
