"""The commands ``python -m dira_monai pack``, ``verify`` and ``unpack``; the last two need neither torch nor MONAI."""

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from ..bundle.run_json import find_record
from ..sharing.archive import (
    LARGE,
    MANIFEST,
    NAME,
    PACKAGE,
    bundle_files,
    check_manifest,
    extracted,
    find_bundle,
    list_files,
    write_archive,
)
from ..sharing.audit import check_files
from ..utils.errors import InputError
from ..utils.files import sha256
from ..utils.tables import count_of

NOT_SHOWN = "other plain values at the top of a config are not shown, and may name any file to read or write"


def pack(bundle: str, output: str, *, include: str = "") -> Iterator[str]:
    """Write a bundle's configs, docs, weights and the code that they name to a zip file that runs alone.

    Left out is what runs leave behind: outputs, logs and checkpoints. The network that the configs name is built, to
    see whether the weights are of it. Of a training, give the folder of its outputs: the bundle in there is packed
    under the name of that folder.

    Args:
        bundle: its folder, or output_dir of a training.
        output: zip file to write; the same bundle gives the same bytes.
        include: further files of it, such as models/objective.pt, with commas between them.
    """
    from ..sharing.checks import check_values, check_weights  # here, since it imports MONAI

    name = Path(bundle).resolve().name
    root = find_bundle(bundle)
    if Path(output).suffix != ".zip" or not re.fullmatch(NAME, name):
        raise InputError(
            f"{name} to {output}: the file must end with .zip, the folder's name hold letters and ._- only"
        )
    files, left_out = bundle_files(root, [word.strip() for word in include.split(",") if word.strip()])
    facts, code = check_files(name, files)
    check_weights(files)
    check_values(files, find_record(root / "models/model.pt"))
    sums = write_archive(files, name, output)
    yield from (*facts, *_show(code), *(f"left out: {path}" for path in left_out))
    if "models/model.pt" not in files:
        yield "without weights: there is no models/model.pt"
    for key in (key for key, path in files.items() if path.stat().st_size > LARGE):
        yield f"for large_files.yml of the Model Zoo: path: {key}, hash_type: sha256, hash_val: {sums[key]}"
    own = f", with the code of {PACKAGE.name}" if f"{PACKAGE.name}/__init__.py" in files else ""
    yield f"{output}: {len(files)} files{own}, sha256 {sha256(output)}"


def verify(archive: str, *, max_gb: float = 10) -> Iterator[str]:
    """Check an archive, or the folder of a bundle, and show its code that no bundle of this package has; run nothing.

    Args:
        archive: zip file or folder.
        max_gb: refuse an archive that unpacks to more, 10^9 bytes.
    """
    if Path(archive).is_dir():
        facts, code = _audit(Path(archive).resolve(), complete=False)
    else:
        with extracted(archive, None, max_gb) as root:
            facts, code = _audit(root, complete=True)
        facts.append(f"{archive}: sha256 {sha256(archive)}")
    yield from (*facts, *_show(code))
    yield f"{archive}: {_count(code)} of code to read before it is run; {NOT_SHOWN}"


def unpack(archive: str, folder: str, *, trust: bool = False, max_gb: float = 10) -> Iterator[str]:
    """Unpack an archive into its folder below another one, once it was checked; nothing of it is run.

    Args:
        archive: zip file.
        folder: the bundle's folder is made in there, and must not be there yet.
        trust: unpack also where verify shows code.
        max_gb: refuse an archive that unpacks to more, 10^9 bytes.
    """
    there = next(path for path in (Path(folder), *Path(folder).parents) if os.path.lexists(path))
    with extracted(archive, there, max_gb) as root:
        facts, code = _audit(root, complete=True)
        place = Path(folder, root.name)
        if os.path.lexists(place):
            raise InputError(f"{place}: is there already; delete it or name another folder")
        if code and trust is not True:
            print(*facts, *_show(code), sep="\n")  # an error ends the command before it prints what it yields
            raise InputError(f"{archive}: {_count(code)} of code above; if you trust what they run, say --trust True")
        place.parent.mkdir(parents=True, exist_ok=True)
        root.rename(place)
    yield from (*facts, *_show(code), f"{place}: unpacked")


def _audit(root: Path, complete: bool) -> tuple[list[str], dict[str, list[str]]]:
    """What to say of a bundle's folder, and by file the code in it that is not known."""
    files = list_files(root)
    listed = check_manifest(root.name, files, complete)
    agree = f"{listed} files agree with {MANIFEST}" if listed else f"no {MANIFEST}: damage to the files would not show"
    facts, code = check_files(root.name, files)
    return [f"{root.name}: {agree}", *facts], code


def _show(code: Mapping[str, list[str]]) -> list[str]:
    """Lines for the screen, in full, which nothing in them can move or overwrite."""
    lines = [line for name, rows in code.items() for line in (f"{name}:", *(f"    {row}" for row in rows))]
    return ["".join(c if c.isprintable() else ascii(c)[1:-1] for c in line) for line in lines]


def _count(code: Mapping[str, list[str]]) -> str:
    return count_of(sum(map(len, code.values())), "row")
