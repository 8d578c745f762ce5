"""The bundles that come with the package: found, and copied out."""

import shutil
from pathlib import Path

from ..utils.errors import InputError
from ..utils.files import user_path

PACKAGE = Path(__file__).parents[1]
FILES = ("LICENSE", "configs/*", "docs/*", "models/.gitkeep")  # of each; setup.cfg has the same for the wheel


def bundle_folders() -> dict[str, Path]:
    """Folders of the bundles by their names: inside of an installed package, beside it in a checkout.

    Raises:
        InputError: if there are none, as where a packed bundle brings this package along.
    """
    for home in (PACKAGE / "_bundles", PACKAGE.parent / "bundles"):
        if found := {path.parents[1].name: path.parents[1] for path in sorted(home.glob("dira_*/configs/train.json"))}:
            return found
    raise InputError(f"{PACKAGE} has no bundles beside it; install dira-monai, or run from a checkout of it")


def bundles(folder: str | Path) -> list[Path]:
    """Copy all bundles, without weights or outputs, to a folder; the folders that were made.

    Raises:
        InputError: if one of them is there already, or cannot be written; nothing is overwritten.
    """
    shipped = bundle_folders()
    copies = {name: user_path(folder) / name for name in shipped}
    if there := next((copy for copy in copies.values() if copy.exists()), None):
        raise InputError(f"{there}: is there already; delete it or name another folder")
    for name, copy in copies.items():
        files = [path for pattern in FILES for path in shipped[name].glob(pattern)]
        try:
            for file in files:
                target = copy / file.relative_to(shipped[name])
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, target)
        except OSError as error:
            raise InputError(f"{copy}: cannot be written ({error})") from error
    return list(copies.values())
