"""Errors a user can mend: one sentence that names the file, the rule and the value."""

import logging
import re
import sys
import tempfile
import traceback
import warnings
from types import TracebackType

# what MONAI 1.6 says of a GPU decoder wherever pydicom is installed, whatever is read; and what says it once more
NEEDLESS = "NvImgCodecPydicomReader: nvImageCodec decoder plugin did not register"
NEEDLESS_LOGGER = "monai.data.nvimgcodec_pydicom_plugin"


class InputError(ValueError):
    """Something that the user gave cannot be used; the message is one plain sentence that says what and why.

    Of an error in a worker torch's data loader makes a new one, whose text is the whole trace: its last line is kept.
    """

    def __init__(self, *words: object) -> None:
        if words and str(words[0]).startswith("Caught InputError in "):
            words = (str(words[0]).rstrip().rpartition("InputError: ")[2],)
        super().__init__(*words)


def check_integers(least: int, **values: object) -> None:
    """Nothing, where values are integers of at least ``least``.

    Raises:
        InputError: for the first one that is not; bools are refused too.
    """
    for name, value in values.items():
        if type(value) is not int or value < least:
            raise InputError(f"{name} must be a whole number from {least}, got {value!r}.")


def find_input_error(error: BaseException | None) -> InputError | None:
    """The ``InputError`` in a chain of exceptions, or one that tells of a killed worker of a data loader; else None.

    MONAI's config parser wraps every error in a ``RuntimeError`` for each expression it came through.
    """
    while error is not None:
        if isinstance(error, InputError):
            return error
        if killed := re.search(r"worker \(pid.* (killed by signal: [\w ]+|exited unexpectedly)", str(error)):
            return InputError(
                f"a process that loads images was ended by the system ({killed[1]}), as happens where the memory or "
                "/dev/shm is full; give fewer --num_workers or a smaller --batch_size."
            )
        error = error.__cause__ or error.__context__
    return None


def find_cause(error: BaseException) -> str:
    """The first line of what lies at the root of an exception, or its kind where it has no text."""
    known = find_input_error(error)
    cause = known or _root(error)
    lines = [line for line in str(cause).splitlines() if line.strip()]
    of_worker = lines and lines[0].endswith("in DataLoader worker process 0.")
    return (lines or [type(cause).__name__])[-1 if of_worker else 0].rstrip(".")


def _root(error: BaseException) -> BaseException:
    return error if error.__cause__ is None else _root(error.__cause__)


def to_sentence(error: BaseException) -> str:
    """What a user reads of an error: an ``InputError`` as it is, of any other its cause and the file of its trace."""
    if known := find_input_error(error):
        return str(known)
    with tempfile.NamedTemporaryFile("w", prefix="dira_monai_", suffix=".log", encoding="utf-8", delete=False) as log:
        log.write("".join(traceback.format_exception(error)))
    return f"{type(_root(error)).__name__}: {find_cause(error)}; where it came from is in {log.name}"


def silence_needless() -> None:
    """Silence what MONAI says that concerns no run, where its readers are made; never on import."""
    warnings.filterwarnings("ignore", NEEDLESS, UserWarning)
    logging.getLogger(NEEDLESS_LOGGER).setLevel(logging.ERROR)


def install_error_hook() -> None:
    """Make the interpreter print an ``InputError`` as its one sentence instead of a stack trace, exit status 1.

    So it does with Ctrl-C, exit status 130. Of every other error it prints the cause and the file of the stack trace.
    Called by the bundles' ``initialize``, never on import.
    """
    silence_needless()

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if issubclass(kind, KeyboardInterrupt):
            print("interrupted; a training goes on behind its last whole epoch with --resume True", file=sys.stderr)
        else:
            print(f"error: {to_sentence(error)}", file=sys.stderr)

    sys.excepthook = hook
