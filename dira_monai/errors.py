"""Errors a user can mend: one sentence that names the file, the rule and the value."""

import itertools
import sys
from collections.abc import Sequence
from types import TracebackType

MEANT = {"null": "'$None', with the quotes", "None": "'$None', with the quotes", "false": "False"}


class InputError(ValueError):
    """Something that the user gave cannot be used; the message is one plain sentence that says what and why."""


def find_input_error(error: BaseException | None) -> InputError | None:
    """The ``InputError`` at the root of a chain of exceptions, or None where there is none.

    MONAI's config parser wraps every error in a ``RuntimeError`` for each expression it came through.
    """
    while error is not None:
        if isinstance(error, InputError):
            return error
        error = error.__cause__ or error.__context__
    return None


def refuse_json_words(words: Sequence[str] | None = None) -> None:
    """Refuse values on the command line that would not arrive as they are meant.

    Fire makes (true) strings of ``null`` and ``false``, and MONAI leaves out an option whose value is ``None``; as the
    expression ``$None`` it arrives.

    Args:
        words: the command line; None: that of this process, if it is ``python -m monai.bundle``: words of other
            programs, such as the client of a federation, are not for MONAI.

    Raises:
        InputError: names the option and what to write instead.
    """
    if words is None:
        words = sys.argv if sys.modules["__main__"].__package__ == "monai.bundle" else []
    parts = [part for word in words for part in (word.split("=", 1) if word.startswith("--") else [word])]
    for option, value in itertools.pairwise(parts):
        if option.startswith("--") and value in MEANT:
            raise InputError(f"{option} {value}: write {MEANT[value]} instead, which MONAI takes over as it is")


def plain_errors() -> None:
    """Make the interpreter print an ``InputError`` as its one sentence instead of a stack trace, exit status 1.

    Every other error keeps its stack trace. Called by the bundles' ``initialize``, never on import.
    """

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        known = find_input_error(error)
        if known is None:
            sys.__excepthook__(kind, error, trace)
        else:
            print(f"error: {known}", file=sys.stderr)

    sys.excepthook = hook
