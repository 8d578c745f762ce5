"""Values given to a configuration by name: what would be ignored, or would not arrive as meant, is refused."""

import json
import warnings
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser, ReferenceResolver
from monai.bundle.properties import TrainProperties

from ..utils.errors import InputError
from ..utils.rules import suggest
from .values import list_texts

WORDS = {"null": "None", "false": "False", "true": "True"}
READ_BY_MONAI = {"initialize", "run", "finalize", "imports", "_meta_", *(p["id"] for p in TrainProperties.values())}
FORMER_VALUES = {"label_subset": "label_seed"}  # names of version 0.1


def check_options(
    given: Mapping[str, Any], files: Sequence[str | Path], others: Collection[str], source: str = "the options"
) -> None:
    """Refuse values that a configuration does not have, in options or in its further files, and names without a value.

    Args:
        given: values by their ids, such as ``network_def#features``; True stands where there is no value as well.
        files: of the configuration, the later overriding.
        others: further names that may be given.
        source: where the values come from, for errors.

    Raises:
        InputError: names the option and the nearest known one.
    """
    refuse_plus(given)
    contents = [ConfigParser.load_config_file(str(file)) for file in files]
    text = json.dumps(contents, default=str)
    for file, content in zip(files[1:], contents[1:], strict=True):
        _refuse_unread(content, str(file), ConfigParser(contents[0]), text)
    values = ConfigParser.load_config_files([str(file) for file in files])
    _refuse_unknown(given, values, {*others} | {_section(name) for name in values})
    _refuse_unread([name for name in given if "#" in name], source, ConfigParser(values), text)
    for name in FORMER_VALUES.keys() & given.keys():
        warnings.warn(f"{name} is now {FORMER_VALUES[name]}.", FutureWarning, stacklevel=2)


def refuse_plus(names: Iterable[str]) -> None:
    """Refuse a name such as ``+train#handlers``, with which MONAI adds to a value in files, and nowhere else."""
    for name in names:
        if name.startswith("+"):
            raise InputError(f"--{name} would be ignored: + adds in files only; give the whole value by --{name[1:]}")


def check_words(given: Mapping[str, Any]) -> None:
    """Refuse words of other languages, which would arrive as texts; only a class in a list may have such a name.

    Raises:
        InputError: names the option, and the word of Python for it.
    """
    for name, value in given.items():
        names_of_classes = name == "class_names" and not isinstance(value, str)
        for word in () if names_of_classes else list_texts(value):
            if word in WORDS:
                raise InputError(f"--{name} {value}: write {WORDS[word]} instead of {word}")


def is_argument(parser: ConfigParser, key: str) -> bool:
    """Whether the id belongs to something that is instantiated, which checks its arguments itself."""
    parent, _ = ReferenceResolver.split_id(key, last=True)
    found = parser.get(parent) if parent else None
    return isinstance(found, dict) and "_target_" in found


def _refuse_unread(names: Iterable[str], source: str, parser: ConfigParser, text: str) -> None:
    """Refuse ids that the configuration lacks and nothing in its text reads: misspelt, or of another version."""
    for name in names:
        key = ReferenceResolver.normalize_id(name.lstrip("+"))
        read = key in parser or f"@{key}" in text or key in READ_BY_MONAI or key.endswith(("_desc_", "_disabled_"))
        if not read and not is_argument(parser, key):
            hint = suggest(name, {*parser.get()}) or "correct it"
            raise InputError(f"{source}: {name} is no value of the configuration, and nothing reads it; {hint}")


def _refuse_unknown(given: Mapping[str, Any], values: Mapping[str, Any], known: Collection[str]) -> None:
    for name, value in given.items():
        if _section(name) not in known:
            hint = suggest(_section(name), known) or "its values stand at the top of train.json"
            raise InputError(f"--{name} is no value of the configuration; {hint}")
        if value is True and not isinstance(values.get(name, True), bool):
            raise InputError(f"--{name} needs a value behind it")


def _section(name: str) -> str:
    """The part of a value's name that stands at the top of a configuration."""
    return name.lstrip("+").split("#")[0].split("::")[0]
