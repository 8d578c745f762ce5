"""The commands: ``python -m dira_monai COMMAND``; ``--help`` lists them.

Fire runs a command before it complains of words that are left over. A command therefore is a generator of the lines it
prints, started when all words are understood: a mistyped option ends the program before anything is done.
"""

import sys

import fire

from .cli.apps import localize, probe, scores, seg, visual_words
from .cli.archives import pack, unpack, verify
from .cli.data import datalist, labeled, phantom, prepare
from .cli.deferred import _later
from .cli.weights import export_weights, import_weights
from .utils.errors import InputError


def main() -> None:
    """Run the command line; what the user can mend ends with one sentence and status 1."""
    try:
        fire.Fire(
            {
                "datalist": datalist,
                "labeled": _later(labeled),
                "labelled": _later(labeled),  # its name in version 0.1
                "phantom": phantom,
                "prepare": prepare,
                "localize": localize,
                "probe": _later(probe),
                "visual-words": _later(visual_words),
                "scores": scores,
                "seg": _later(seg),
                "import-weights": import_weights,
                "export-weights": export_weights,
                "pack": _later(pack),
                "verify": _later(verify),
                "unpack": _later(unpack),
            },
            name="dira_monai",
        )
    except InputError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
