"""How fire gets a command: run at the end of the command line, with text where the signature says text."""

import ast
import functools
import inspect
import operator
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, get_args, get_origin

from fire import decorators
from fire.parser import DefaultParseValue

from ..bundle.header_values import HEADER
from ..bundle.values import take_mapping, take_text, take_words
from ..utils.errors import InputError
from ..utils.files import check_writable, user_path
from ..utils.rules import COUNT_OR_0, NUMBER, SWITCH, TEXT, Rule

decorators.FIRE_METADATA = "_fire_metadata"  # else --help of a command lists fire's own attribute as a group


class _Lines:
    """What a command prints; it runs when fire asks for the text, and has no member that a stray word could name."""

    def __init__(self, lines: Iterator[str]) -> None:
        self._lines = lines

    def __str__(self) -> str:
        return "\n".join(self._lines)


def deferred(command: Callable[..., Iterator[str]]) -> Callable[..., _Lines]:
    """The command for fire, which runs it before it complains of words that are left over.

    So nothing is done before all words are understood: a mistyped option ends the program at once, and so does a value
    that breaks the rule of its type or of an option in ``HEADER``, and an output that cannot be written.
    Arguments of the type ``str``, perhaps or a path, and lists and objects of them, are taken as they are written,
    where fire would make a number of 2024_01, and nothing of what stands behind a #; further ones by ``parse_value``.

    Args:
        command: generator of the lines that it prints.
    """
    signature = inspect.signature(command)
    parameters = signature.parameters.values()
    further = next((p.name for p in parameters if p.kind is p.VAR_KEYWORD), "")

    def lines(*args: object, **kwargs: object) -> Iterator[str]:
        given = signature.bind(*args, **kwargs).arguments
        for name, value in given.items():
            _check_argument(signature.parameters[name], value)
        yield from command(*args, **kwargs | parse_values(given.get(further, {})))

    @functools.wraps(command)
    def wrapper(*args: object, **kwargs: object) -> _Lines:
        return _Lines(lines(*args, **kwargs))

    others = [p for p in parameters if p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    named = {p.name: _parser_of(p.annotation) for p in parameters if p not in others}
    wrapper = decorators.SetParseFns(**named)(wrapper)
    return decorators.SetParseFn(str)(wrapper) if others else wrapper


OBJECT = Rule("an object such as {'name': 'value'}", lambda v, dims: isinstance(v, Mapping))
RULES = {bool: SWITCH, int: COUNT_OR_0, float: NUMBER, str: TEXT, dict: OBJECT, Mapping: OBJECT}


def _check_argument(parameter: inspect.Parameter, value: Any) -> None:
    """Refuse a value that breaks the rule of an argument's type, or of an option, and an output that is not writable.

    Raises:
        InputError: names the argument, what it must be and what it is.
    """
    name, kinds = parameter.name, _kinds_of(parameter.annotation)
    if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD) or (value is None and NoneType in kinds):
        return
    origins = {get_origin(kind) or kind for kind in kinds - {Path, NoneType}}
    is_option = parameter.kind is parameter.KEYWORD_ONLY  # seg's label_map is a file, which only shares the name
    rule = HEADER[name].rule if is_option and name in HEADER else None
    if rule is None and origins <= RULES.keys():
        rule = functools.reduce(operator.or_, (RULES[kind] for kind in RULES if kind in origins))
    if rule is not None and not rule.fits(value, 0):
        raise InputError(f"--{name} must be {rule.told}, got {value!r}.")
    if name in ("output", "output_dir") and value is not None:
        path = user_path(value)
        check_writable(path.parent if path.suffix or path.is_file() else path)


def _kinds_of(annotation: Any) -> set[Any]:
    """The types that an argument may have."""
    return {*get_args(annotation)} if isinstance(annotation, UnionType) else {annotation}


def _parser_of(kind: object) -> Callable[[str], Any]:
    """What makes an argument of this type of a word: text for ``str``, perhaps or a path or None, or lists of it."""
    kinds = _kinds_of(kind)
    if kinds - {Path, NoneType} == {str}:
        return str
    if Sequence[str] in kinds:
        return take_words
    of_texts = (get_origin(part) is Mapping and get_args(part)[1] in (str, str | None) for part in kinds)
    return take_mapping if any(of_texts) else DefaultParseValue


def parse_values(words: Mapping[str, str]) -> dict[str, Any]:
    """The values of ``**values`` of a command, for which fire gives words."""
    return {name: parse_value(name, str(word)) for name, word in words.items()}


def parse_value(name: str, word: str) -> Any:
    """A value by its name: text as ``take_text`` has it, anything else as fire has it."""
    try:
        return take_text(name, word)
    except KeyError:
        return DefaultParseValue(word)


def outline(module: str, name: str) -> Callable:
    """Signature and docstring of a function, read from its file: importing it would take the seconds of torch.

    Args:
        module: below this package, such as ``apps.probing.probe``.
        name: of the function.
    """
    file = (Path(__file__).parents[1] / module.replace(".", "/")).with_suffix(".py")
    nodes = ast.parse(file.read_text("utf-8")).body
    (function,) = (node for node in nodes if isinstance(node, ast.FunctionDef) and node.name == name)
    function.body, function.returns = function.body[:1], None  # the docstring
    names = {"Any": Any, "Mapping": Mapping, "Path": Path, "Sequence": Sequence}  # of its annotations
    exec(compile(ast.Module([function], []), str(file), "exec"), names)
    return names[name]


def takes_options_of(source: Callable) -> Callable[[Callable], Callable]:
    """A decorator for a command that takes the keyword arguments of ``source``, described as there.

    Fire reads names and defaults in the signature, and descriptions in the docstring, where those of ``source``
    take the place of the line ``**options:``. Where the last argument has another name, the command takes further
    values, and the options come before it. Of a name that the command has too, its own stands.
    """
    keywords = [p for p in inspect.signature(source).parameters.values() if p.kind is p.KEYWORD_ONLY]
    described = dict(re.findall(r"^ {4}(\w+): (.+(?:\n {8}.+)*)", inspect.getdoc(source) or "", re.MULTILINE))

    def decorate(command: Callable) -> Callable:
        own = inspect.signature(command)
        *given, further = own.parameters.values()
        added = [p for p in keywords if p.name not in own.parameters]
        kept, place = [further], f"(?= {{4}}{further.name}: )"  # before its line
        if further.name == "options":
            kept, place = [], r" {4}\*\*options: .*\n?"
        command.__signature__ = own.replace(parameters=[*given, *added, *kept])  # type: ignore[attr-defined]
        lines = "".join(f"    {p.name}: {described[p.name]}\n" for p in added)
        command.__doc__ = re.sub(f"(?m)^{place}", lambda _: lines, inspect.getdoc(command) or "")
        return command

    return decorate
