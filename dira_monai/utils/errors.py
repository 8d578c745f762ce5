"""Errors a user can mend: one sentence that names the file, the rule and the value."""

import logging
import sys
import warnings
from types import TracebackType

# what MONAI 1.6 says of a GPU decoder wherever pydicom is installed, whatever is read; and what says it once more
NEEDLESS = "NvImgCodecPydicomReader: nvImageCodec decoder plugin did not register"
NEEDLESS_LOGGER = "monai.data.nvimgcodec_pydicom_plugin"


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


def silence_needless() -> None:
    """Silence what MONAI says that concerns no run, for bundles and commands; never on import."""
    warnings.filterwarnings("ignore", NEEDLESS, UserWarning)
    logging.getLogger(NEEDLESS_LOGGER).setLevel(logging.ERROR)


def install_error_hook() -> None:
    """Make the interpreter print an ``InputError`` as its one sentence instead of a stack trace, exit status 1.

    So it does with Ctrl-C, exit status 130. Every other error keeps its stack trace. Called by the bundles'
    ``initialize``, never on import.
    """
    silence_needless()

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        known = find_input_error(error)
        if issubclass(kind, KeyboardInterrupt):
            print("interrupted; a training goes on behind its last whole epoch with --resume True", file=sys.stderr)
        elif known is None:
            sys.__excepthook__(kind, error, trace)
        else:
            print(f"error: {known}", file=sys.stderr)

    sys.excepthook = hook
