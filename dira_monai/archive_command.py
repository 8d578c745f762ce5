"""The commands ``python -m dira_monai pack``, ``verify`` and ``unpack``."""

import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from fire.decorators import SetParseFns

from .errors import InputError
from .files import sha256

WIDTH = 500  # characters that are shown of a line
CONFIGS = ("configs/train.json", "configs/inference.json")
# by which images are prepared for the weights, and what they give is understood
VALUES = ("in_channels", "class_names", "multi_label", "image_size", "intensity_range", "spacing", "axcodes")


@SetParseFns(str, str, bundle=str, output=str, include=str)
def pack(bundle: str, output: str, *, include: str = "") -> Iterator[str]:
    """Write a bundle's configs, docs, weights and the code that they name to a zip file that runs alone.

    Left out is what runs leave behind: outputs, logs and checkpoints. The network that the configs name is built, to
    see whether the weights are of it, and their values are compared with those of the training in output/run.json.

    Args:
        bundle: its folder.
        output: zip file to write; the same bundle gives the same bytes.
        include: further files of it, such as models/objective.pt, with commas between them.
    """
    from .archive import LARGE, NAME, PACKAGE, bundle_files, write_archive  # here, as others need none of it
    from .code_check import check_files

    name = Path(bundle).resolve().name
    if Path(output).suffix != ".zip" or not re.fullmatch(NAME, name):
        raise InputError(
            f"{name} to {output}: the file must end with .zip, the folder's name hold letters and ._- only"
        )
    files, left_out = bundle_files(bundle, [word.strip() for word in include.split(",") if word.strip()])
    facts, code = check_files(name, files)
    _check_weights(files)
    _check_values(files, Path(bundle, "output/run.json"))
    sums = write_archive(files, name, output)
    yield from (*facts, *_shown(code), *(f"left out: {path}" for path in left_out))
    if "models/model.pt" not in files:
        yield "without weights: there is no models/model.pt"
    for key in (key for key, path in files.items() if path.stat().st_size > LARGE):
        yield f"for large_files.yml of the Model Zoo: path: {key}, hash_type: sha256, hash_val: {sums[key]}"
    own = f", with the code of {PACKAGE.name}" if f"{PACKAGE.name}/__init__.py" in files else ""
    yield f"{output}: {len(files)} files{own}, sha256 {sha256(output)}"


@SetParseFns(str, archive=str)
def verify(archive: str, *, max_gb: float = 10) -> Iterator[str]:
    """Check an archive, or the folder of a bundle, and tell what code it would run; nothing of it is run.

    Args:
        archive: zip file or folder.
        max_gb: refuse an archive that unpacks to more, 10^9 bytes.
    """
    from .archive import extracted

    if Path(archive).is_dir():
        facts, code = _judge(Path(archive).resolve(), complete=False)
    else:
        with extracted(archive, None, max_gb) as root:
            facts, code = _judge(root, complete=True)
        facts.append(f"{archive}: sha256 {sha256(archive)}")
    yield from (*facts, *_shown(code))
    yield f"{archive}: {_count(code)} to look at before it is run" if code else f"{archive}: the configs are plain"


@SetParseFns(str, str, archive=str, folder=str)
def unpack(archive: str, folder: str, *, trust: bool = False, max_gb: float = 10) -> Iterator[str]:
    """Unpack an archive into its folder below another one, once it was checked; nothing of it is run.

    Args:
        archive: zip file.
        folder: the bundle's folder is made in there, and must not be there yet.
        trust: unpack also where verify tells of code that is not plain.
        max_gb: refuse an archive that unpacks to more, 10^9 bytes.
    """
    from .archive import extracted

    with _folder(folder), extracted(archive, folder, max_gb) as root:
        facts, code = _judge(root, complete=True)
        place = Path(folder, root.name)
        if os.path.lexists(place):
            raise InputError(f"{place}: is there already; delete it or name another folder")
        if code and trust is not True:
            print(*facts, *_shown(code), sep="\n")  # an error ends the command before it prints what it yields
            raise InputError(f"{archive}: {_count(code)} above may run code; if you trust it, say --trust True")
        root.rename(place)
    yield from (*facts, *_shown(code), f"{place}: unpacked")


@contextmanager
def _folder(folder: str) -> Iterator[None]:
    """A folder, made where it is not there; what was made of it and stays empty goes again."""
    new = [path for path in (Path(folder), *Path(folder).parents) if not os.path.lexists(path)]
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder}: cannot be made ({error})") from error
    try:
        yield
    finally:
        with suppress(OSError):  # it is not empty
            for path in new:
                path.rmdir()


def _check_weights(files: Mapping[str, Path]) -> None:
    """Refuse weights of another network than the configs name: ``monai.bundle.load`` skips what does not fit."""
    from monai.bundle import ConfigParser

    from .classifier import build_value
    from .weight_files import read_weights, unwrap

    if "models/model.pt" not in files:
        return
    path = files["models/model.pt"]
    weights = unwrap(read_weights(path), path)[0]
    for config in [files[key] for key in CONFIGS if key in files]:
        parser = ConfigParser()
        parser.read_config(config)
        if "network_def" not in parser:
            continue
        network = build_value(parser, "network_def", config, "pack").state_dict()
        both = [name for name in network.keys() & weights.keys() if network[name].shape == weights[name].shape]
        wrong = [name for name in network | weights if name not in both]
        if wrong:
            raise InputError(
                f"{path}: is not of the network_def in {config}: {len(wrong)} of {len(network)} "
                f"tensors do not fit, first {wrong[0]}; write the values of the training into that file"
            )


def _check_values(files: Mapping[str, Path], record: Path) -> None:
    """Refuse configs that prepare images or name classes otherwise than the training of the weights did."""
    from .provenance import read_starts

    starts = read_starts(record)
    if "models/model.pt" not in files or not starts:
        return
    trained = starts[-1].get("config") or {}
    for path in [files[key] for key in CONFIGS if key in files]:
        values = json.loads(path.read_text(encoding="utf-8"))
        for name in VALUES:
            both = [None if v == "$None" else v for v in (values.get(name, "$"), trained.get(name, "$"))]
            given = [v for v in both if not str(v).startswith("$")]
            if len(given) == 2 and given[0] != given[1]:  # an expression has the value of its config
                raise InputError(
                    f"{path}: {name} is {given[0]!r} where it was {given[1]!r} in the training, by {record}; "
                    "write the values of the training into that file"
                )


def _judge(root: Path, complete: bool) -> tuple[list[str], list[str]]:
    """What to say of a bundle's folder, and what of it runs that is not plain."""
    from .archive import MANIFEST, check_manifest, list_files
    from .code_check import check_files

    files = list_files(root)
    listed = check_manifest(root.name, files, complete)
    agree = f"{listed} files agree with {MANIFEST}" if listed else f"no {MANIFEST}: damage to the files would not show"
    facts, code = check_files(root.name, files)
    return [f"{root.name}: {agree}", *facts], code


def _shown(code: list[str]) -> list[str]:
    """Lines for the screen, which nothing in them can move or overwrite."""
    lines = ["".join(c if c.isprintable() else ascii(c)[1:-1] for c in line) for line in code]
    return [f"look at {line[:WIDTH]}{'' if len(line) <= WIDTH else f' ... ({len(line)} characters)'}" for line in lines]


def _count(code: list[str]) -> str:
    return f"{len(code)} {'thing' if len(code) == 1 else 'things'}"
