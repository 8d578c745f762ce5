"""The commands: ``python -m dira_monai COMMAND``; ``--help`` lists them.

Fire runs a command before it complains of words that are left over. A command therefore is a generator of the lines it
prints, started when all words are understood: a mistyped option ends the program before anything is done.
"""

import functools
from collections.abc import Callable, Iterator


class _Lines:
    """What a command prints; it runs when fire asks for the text, and has no member that a stray word could name."""

    def __init__(self, lines: Iterator[str]) -> None:
        self._lines = lines

    def __str__(self) -> str:
        return "\n".join(self._lines)


def _later(command: Callable[..., Iterator[str]]) -> Callable[..., _Lines]:
    @functools.wraps(command)
    def deferred(*args: object, **kwargs: object) -> _Lines:
        return _Lines(command(*args, **kwargs))

    return deferred
