"""Errors a user can mend: one sentence that names the file, the rule and the value."""

import sys
import warnings
from types import TracebackType

# MONAI 1.6 says so of a GPU decoder wherever pydicom is installed, whatever is read
NEEDLESS = "NvImgCodecPydicomReader: nvImageCodec decoder plugin did not register"


class InputError(ValueError):
    """Something that the user gave cannot be used; the message is one plain sentence that says what and why."""


def check_integers(least: int, **values: object) -> None:
    """Nothing, where values are integers of at least ``least``.

    Raises:
        InputError: for the first one that is not; bools are refused too.
    """
    for name, value in values.items():
        if type(value) is not int or value < least:
            raise InputError(f"{name} must be a whole number from {least}, got {value!r}.")


def find_input_error(error: BaseException | None) -> InputError | None:
    """The ``InputError`` at the root of a chain of exceptions, or None where there is none.

    MONAI's config parser wraps every error in a ``RuntimeError`` for each expression it came through.
    """
    while error is not None:
        if isinstance(error, InputError):
            return error
        error = error.__cause__ or error.__context__
    return None


def install_error_hook() -> None:
    """Make the interpreter print an ``InputError`` as its one sentence instead of a stack trace, exit status 1.

    So it does with Ctrl-C, exit status 130. Every other error keeps its stack trace. A warning of MONAI that concerns
    no run is silenced. Called by the bundles' ``initialize``, never on import.
    """
    warnings.filterwarnings("ignore", NEEDLESS, UserWarning)

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        known = find_input_error(error)
        if issubclass(kind, KeyboardInterrupt):
            print("interrupted; a training goes on behind its last whole epoch with --resume True", file=sys.stderr)
        elif known is None:
            sys.__excepthook__(kind, error, trace)
        else:
            print(f"error: {known}", file=sys.stderr)

    sys.excepthook = hook
