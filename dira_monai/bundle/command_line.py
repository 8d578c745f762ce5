"""What of a command line ``python -m monai.bundle`` would not arrive as it is meant."""

import inspect
import itertools
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fire.parser import DefaultParseValue
from monai.bundle import ConfigParser, ConfigWorkflow, run
from monai.bundle.utils import DEFAULT_MLFLOW_SETTINGS

from ..utils.errors import InputError
from .header import check_run
from .header_values import HEADER
from .options import check_options, refuse_plus
from .packed_code import name_running_code
from .running_config import running_config, running_options
from .values import check_hash, take_text

MEANT = {"null": "'$None', with the quotes", "None": "'$None', with the quotes", "false": "False"}
MONAI_OPTIONS = {*inspect.signature(run).parameters, *inspect.signature(ConfigWorkflow).parameters}
MONAI_OPTIONS |= {*DEFAULT_MLFLOW_SETTINGS["configs"]}
BUNDLE_COMMAND = ("monai", "bundle", "__main__.py")  # as the path of the running script ends


def check_command_line(words: Sequence[str] | None = None) -> None:
    """Refuse options and values on the command line that would not arrive as they are meant, and those out of range.

    Fire makes (true) strings of ``null`` and ``false``, ``True`` of an option without a value, a number of 2024_10, a
    tuple of a,b and nothing of what stands behind a #; and MONAI leaves out
    an option whose value is ``None`` (as the expression ``$None`` it arrives) and one that the configuration does not
    know. Of an option or a further file it takes over ids that nothing reads. A configuration
    that trains nothing may be given all values of a training.

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
    refuse_plus(_name(option) for option, _ in given)
    for option, value in given:
        if value in MEANT:
            raise InputError(f"{option} {value}: write {MEANT[value]} instead, which MONAI takes over as it is")
        _check_text(option, value)
        if _name(option) in ("dataset_dir", "output_dir", "ckpt_dir", "pretrained"):
            check_hash(option, Path(value.strip("'\"")).absolute())
    if words:
        check_hash("the bundle's folder", Path(bundle_root()).absolute())
    words_of = {_name(option): value.startswith("--") or value for option, value in given if option != "--"}
    files, options = running_options() or (config_files(words), words_of)
    if files:
        _check_known(files, options)
    check_run(running_config() or {})


def _check_known(files: Sequence[str], options: Mapping[str, Any]) -> None:
    """Refuse options that the files do not know; where they train nothing, those of a training are let pass."""
    if any("train" in ConfigParser.load_config_file(file) for file in files):
        check_options(options, files, MONAI_OPTIONS)
    else:
        plain = {name: value for name, value in options.items() if "#" not in name}
        check_options(plain, files, MONAI_OPTIONS | HEADER.keys())


def _check_text(option: str, value: str) -> None:
    """Refuse a word that arrives as something else than the text that it is, by how it is to be typed."""
    if _name(option) == "config_file":  # of which MONAI takes a list as well
        return
    arrives = DefaultParseValue(value)
    try:
        meant = take_text(_name(option), value)
    except KeyError:
        cut = "#" in value and arrives != value and arrives == DefaultParseValue(value.split("#")[0])
        meant = value if cut else arrives
    if meant != arrives and not value.startswith(("$", "--")):
        quoted = repr(meant) if '"' in repr(meant) else f'"{meant!r}"'
        raise InputError(f"{option} {value}: arrives as {arrives!r}; write {option} {quoted}")


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
