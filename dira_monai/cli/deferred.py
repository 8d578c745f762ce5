"""How fire gets a command: run at the end of the command line, with text where the signature says text."""

import functools
import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, get_args

from fire import decorators
from fire.parser import DefaultParseValue

decorators.FIRE_METADATA = "_fire_metadata"  # else --help of a command lists fire's own attribute as a group


class _Lines:
    """What a command prints; it runs when fire asks for the text, and has no member that a stray word could name."""

    def __init__(self, lines: Iterator[str]) -> None:
        self._lines = lines

    def __str__(self) -> str:
        return "\n".join(self._lines)


def deferred(command: Callable[..., Iterator[str]]) -> Callable[..., _Lines]:
    """The command for fire, which runs it before it complains of words that are left over.

    So nothing is done before all words are understood: a mistyped option ends the program at once. Arguments of the
    type ``str``, perhaps or a path, are taken as they are written, where fire would make a number of 2024_01.

    Args:
        command: generator of the lines that it prints.
    """

    @functools.wraps(command)
    def wrapper(*args: object, **kwargs: object) -> _Lines:
        return _Lines(command(*args, **kwargs))

    parameters = inspect.signature(command).parameters.values()
    others = [p for p in parameters if p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    named = {p.name: str if _is_text(p.annotation) else DefaultParseValue for p in parameters if p not in others}
    wrapper = decorators.SetParseFns(**named)(wrapper)
    return decorators.SetParseFn(str)(wrapper) if others else wrapper


def _is_text(kind: object) -> bool:
    """Whether an argument of this type is ``str``, perhaps or a path or None."""
    return kind is str or (isinstance(kind, UnionType) and set(get_args(kind)) - {Path, NoneType} == {str})


def parse_values(words: Mapping[str, str]) -> dict[str, Any]:
    """The values of ``**values`` of a command, for which fire gives words; a folder is one, whatever its name."""
    return {name: word if name.endswith("_dir") else DefaultParseValue(str(word)) for name, word in words.items()}


def takes_options_of(source: Callable) -> Callable[[Callable], Callable]:
    """A decorator for a command whose ``**options`` are the keyword arguments of ``source``, described as there.

    Fire reads names and defaults in the signature, and descriptions in the docstring.
    """
    added = [p for p in inspect.signature(source).parameters.values() if p.kind is p.KEYWORD_ONLY]
    described = dict(re.findall(r"^ {4}(\w+): (.+(?:\n {8}.+)*)", inspect.getdoc(source) or "", re.MULTILINE))

    def decorate(command: Callable) -> Callable:
        own = inspect.signature(command)
        *given, _ = own.parameters.values()
        command.__signature__ = own.replace(parameters=[*given, *added])  # type: ignore[attr-defined]
        lines = "\n    ".join(f"{p.name}: {described[p.name]}" for p in added)
        command.__doc__ = re.sub(r"\*\*options: .*", lambda _: lines, inspect.getdoc(command) or "")
        return command

    return decorate
