"""The values of a bundle's configuration: those by which images are prepared and classes are named; texts in any."""

import re
import shlex
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any

from ..utils.errors import InputError

CLASS_VALUES = ("class_names", "multi_label")
TEXT_VALUES = ("pretrained", "start_from", "labels", "patient", "exclude_patients_of", "image")
TEXT_ENDINGS = ("_dir", "_file", "_path", "_list", "_column", "_root")
QUOTED = r"""'[^']*'|"[^"]*"|"""


@dataclass(frozen=True)
class ImageValues:
    """How a bundle prepares images, by the names of its configuration."""

    spatial_dims: int  # 2 or 3
    in_channels: int  # channels of the network
    patch_size: Any  # voxels of a view, which changes no prepared image
    image_size: Any  # voxels that images are resized to; None keeps their size
    spacing: Any  # mm that images are resampled to; None keeps theirs
    axcodes: Any  # orientation, such as RAS; None keeps theirs
    intensity_range: Any  # that becomes [0, 1]


IMAGE_VALUES = tuple(field.name for field in fields(ImageValues))
NETWORK_VALUES = IMAGE_VALUES[:2]  # that a datalist is made for
PREPARED_VALUES = tuple(name for name in IMAGE_VALUES if name != "patch_size")  # that prepared images depend on


def list_texts(value: Any) -> Iterator[str]:
    """Every text in a value, also in lists and objects, however deep."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping | list | tuple):
        for part in value.values() if isinstance(value, Mapping) else value:
            yield from list_texts(part)


def take_text(name: str, word: str) -> Any:
    """What a word of a command line means where a value is a path or a name, or consists of such; else the word.

    Quotes around a word are taken away, and ``None`` is None.

    Args:
        name: of the value.
        word: as it was typed.

    Raises:
        KeyError: if the value is of another kind.
    """
    name = re.split("#|::", name)[-1]
    if name == "class_names":
        return take_words(word)
    if name == "label_map":
        return take_mapping(word)
    if name in TEXT_VALUES or name.endswith(TEXT_ENDINGS):
        return _plain(word)
    raise KeyError(name)


def take_words(text: str) -> Any:
    """The texts of a list as it is typed, such as ``[COVID-19, left lung, '1,5 T']``; a single word as it is."""
    inner = re.fullmatch(r"\s*[\[(](.*)[\])]\s*", text, re.DOTALL)
    if inner is None and "," not in text:
        return text
    words = re.findall(rf"\s*({QUOTED}[^,]*?)\s*(?:,|$)", inner[1] if inner else text)
    return [_unquoted(word) for word in (words[:-1] if words and not words[-1] else words)]


def take_mapping(text: str) -> Any:
    """The texts of an object as it is typed, such as ``{COVID-19: other, poor: None}``; else the word."""
    inner = re.fullmatch(r"\s*\{(.*)\}\s*", text, re.DOTALL)
    part = rf"\s*({QUOTED}[^:,]*?)\s*:\s*({QUOTED}[^,]*?)\s*(?:,|$)"
    if inner is None or not re.fullmatch(rf"(?:{part})*\s*", inner[1]):
        return _plain(text)
    return {_unquoted(word): _plain(name) for word, name in re.findall(part, inner[1])}


def type_words(words: Iterable[str]) -> str:
    """A list of texts as ``take_words`` takes it."""
    return f"[{', '.join(_in_quotes(word) if ',' in word else word for word in words)}]"


def _in_quotes(word: str) -> str:
    return f'"{word}"' if "'" in word else f"'{word}'"


def type_word(word: object) -> str:
    """A word as it is typed in a shell, where there is need in quotes."""
    text = str(word)
    return shlex.quote(text) if shlex.quote(text) == text or re.search(r'["$`\\!]', text) else f'"{text}"'


def _plain(word: str) -> str | None:
    return None if word == "None" else _unquoted(word)


def _unquoted(word: str) -> str:
    return word[1:-1] if len(word) > 1 and word[0] == word[-1] and word[0] in "\"'" else word


def check_hash(name: str, value: Any) -> None:
    """Refuse a path with ``#``, of which MONAI makes ``::`` in every text of a configuration.

    Raises:
        InputError: names the value.
    """
    if "#" in str(value) and "/" in str(value) and not str(value).startswith("$"):
        raise InputError(f"{name} {value}: MONAI makes :: of # in paths, so it would lie elsewhere; rename the folder.")
