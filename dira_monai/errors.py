"""Errors a user can mend: one sentence that names the file, the rule and the value."""

import difflib
import inspect
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
    """Refuse options and values on the command line that would not arrive as they are meant.

    Fire makes (true) strings of ``null`` and ``false`` and ``True`` of an option without a value, and MONAI leaves out
    an option whose value is ``None`` (as the expression ``$None`` it arrives) and one that the configuration does not
    know.

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
    if "--config_file" in parts:
        _refuse_unknown_options(parts)


def _refuse_unknown_options(parts: Sequence[str]) -> None:
    """Refuse an option that is neither in the configuration files nor MONAI's own, or lacks its value."""
    from fire.parser import DefaultParseValue  # here, since only the command line of a bundle needs them
    from monai.bundle import ConfigParser, ConfigWorkflow, run
    from monai.bundle.utils import DEFAULT_MLFLOW_SETTINGS

    values = ConfigParser.load_config_files(DefaultParseValue(parts[parts.index("--config_file") + 1]))
    if "train" not in values:
        return  # inference may be given all values of the training
    own = {*inspect.signature(run).parameters, *inspect.signature(ConfigWorkflow).parameters}
    known = {
        *(key.lstrip("+").split("#")[0].split("::")[0] for key in values),
        *own,
        *DEFAULT_MLFLOW_SETTINGS["configs"],
    }
    for option, following in itertools.pairwise([*parts, "--"]):
        name = option.removeprefix("--").removeprefix("+").replace("-", "_")
        top = name.split("#")[0].split("::")[0]
        if not option.startswith("--") or not top:
            continue
        if top not in known:
            close = difflib.get_close_matches(top, known, 1)
            hint = f"did you mean --{close[0]}?" if close else "its values stand at the top of train.json"
            raise InputError(f"{option} is no value of the configuration, so MONAI would ignore it; {hint}")
        if following.startswith("--") and not isinstance(values.get(name, True), bool):
            raise InputError(f"{option} needs a value behind it")


def plain_errors() -> None:
    """Make the interpreter print an ``InputError`` as its one sentence instead of a stack trace, exit status 1.

    So it does with Ctrl-C, exit status 130. Every other error keeps its stack trace. Called by the bundles'
    ``initialize``, never on import.
    """

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        known = find_input_error(error)
        if issubclass(kind, KeyboardInterrupt):
            print("interrupted; a training goes on behind its last whole epoch with --resume True", file=sys.stderr)
        elif known is None:
            sys.__excepthook__(kind, error, trace)
        else:
            print(f"error: {known}", file=sys.stderr)

    sys.excepthook = hook
