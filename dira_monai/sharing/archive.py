"""A bundle's folder as one zip file that runs alone, and the way back, which trusts nothing in it."""

import filecmp
import hashlib
import io
import re
import shutil
import stat
import struct
import tempfile
import unicodedata
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from ..bundle.shipped import PACKAGE
from ..utils.errors import InputError
from ..utils.files import atomic_write, sha256

MANIFEST = "SHA256SUMS"
METADATA = "configs/metadata.json"
LARGE = 25_000_000  # bytes; the Model Zoo lists larger files apart
KEPT = (  # nothing else of a bundle's folder goes into its archive: runs leave names of patients there
    r"LICENSE|README\.md|large_files\.(json|ya?ml)|configs/[^/]+\.(json|ya?ml|conf)|docs/.+|scripts/.+\.py"
    r"|models/(model\.pt|encoder\.pt|model\.ts|model\.onnx)"
)
NAME = r"\w[\w.-]*"  # of a bundle
MAX_FILES = 10_000
MAX_PART = 2**24  # bytes that are read at once; the directory of MAX_FILES entries has a fraction of it
DAMAGE = (OSError, EOFError, ValueError, OverflowError, RuntimeError, zipfile.BadZipFile, zlib.error, struct.error)
ALIKE = "is a name that not every system reads alike"
_RESERVED = re.compile(
    r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9\u00b9\u00b2\u00b3]) *(\..*)?", re.I
)  # of Windows
_LEFT_OUT = (f"{PACKAGE.name}/_bundles/", f"{PACKAGE.name}/weights/stored/")
_HIDDEN = re.compile(r"(^|/)(\.|__pycache__/)")


def bundle_files(bundle: str | Path, include: Sequence[str] = ()) -> tuple[dict[str, Path], list[str]]:
    """Files of a bundle's archive by their names in the bundle, with the code that its configs name; what is left out.

    Args:
        bundle: folder with configs/metadata.json.
        include: further files of it, relative to it.

    Raises:
        InputError: if it is no bundle, holds a link or another ``dira_monai`` than the one that runs, or misses a file
            of ``include``.
    """
    found = {name: path for name, path in list_files(bundle).items() if not _HIDDEN.search(name)}
    missing = [name for name in include if name not in found]
    if missing:
        raise InputError(f"{Path(bundle) / missing[0]}: no such file, but include names it")
    if package_difference(found):
        raise InputError(f"{Path(bundle) / PACKAGE.name}: is other code than the one that packs; delete it first")
    kept = {name: path for name, path in found.items() if re.fullmatch(KEPT, name) or name in include}
    left_out = [name for name in found if name not in kept and not name.startswith(f"{PACKAGE.name}/")]
    configs = [path for name, path in kept.items() if name.startswith("configs/") and name != METADATA]
    if any(re.search(rb"\bdira_monai\b", path.read_bytes()) for path in configs):
        kept |= package_files()
    return kept, left_out


def find_bundle(folder: str | Path) -> Path:
    """The folder of the bundle: of the outputs of a training that in there, else the folder itself.

    Raises:
        InputError: if the training has left none.
    """
    folder = Path(folder)
    if not (folder / "run.json").is_file():
        return folder
    if not (folder / "bundle" / METADATA).is_file():
        raise InputError(f"{folder}: its training has left no bundle; the log of the training says why")
    return folder / "bundle"


def list_files(bundle: str | Path) -> dict[str, Path]:
    """All files of a bundle's folder by their names in it.

    Raises:
        InputError: if it has no configs/metadata.json, or holds a link.
    """
    bundle = Path(bundle).resolve()
    if not (bundle / METADATA).is_file():
        raise InputError(f"{bundle}: is no bundle, which has {METADATA}")
    paths = {path.relative_to(bundle).as_posix(): path for path in sorted(bundle.rglob("*"))}
    for name, path in paths.items():
        if path.is_symlink():
            raise InputError(f"{bundle.name}: {name} is a link; put the file itself there")
    return {name: path for name, path in paths.items() if not path.is_dir()}


def package_files() -> dict[str, Path]:
    """Files of this package but its bundles and weights, by their names in a bundle, which has weights of its own."""
    files = {path.relative_to(PACKAGE.parent).as_posix(): path for path in sorted(PACKAGE.rglob("*")) if path.is_file()}
    return {name: path for name, path in files.items() if not (_HIDDEN.search(name) or name.startswith(_LEFT_OUT))}


def package_difference(files: Mapping[str, Path]) -> list[str]:
    """Names of files by which a bundle's ``dira_monai`` differs from the one that runs; none where it has none."""
    ours = package_files()
    theirs = {name: path for name, path in files.items() if name.startswith(f"{PACKAGE.name}/")}
    theirs = {name: path for name, path in theirs.items() if not name.startswith(_LEFT_OUT)}
    names = sorted(ours.keys() | theirs.keys()) if theirs else []
    return [n for n in names if n not in ours or n not in theirs or not filecmp.cmp(ours[n], theirs[n], shallow=False)]


def write_archive(files: Mapping[str, Path], name: str, output: str | Path) -> dict[str, str]:
    """Write files to a zip file, below one folder, with a manifest; same files, same bytes. Their SHA-256 by name.

    Nothing is compressed: weights gain nothing by it, and so the bytes depend on no library's version.

    Args:
        files: by their names in the folder.
        name: of the folder.
        output: file to write.

    Raises:
        InputError: if a file cannot be read or the archive cannot be written.
    """
    for key in files:
        if problem := _name_problem(key):
            raise InputError(f"{files[key]}: {problem}; name it otherwise")
    sums = {}
    with atomic_write(output) as target, zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        for key, path in sorted(files.items()):
            digest = hashlib.sha256()  # of what is written: the file may change meanwhile
            with archive.open(_entry(f"{name}/{key}", path.stat().st_size), "w") as inside, path.open("rb") as source:
                while block := source.read(1 << 20):
                    inside.write(block)
                    digest.update(block)
            sums[key] = digest.hexdigest()
        manifest = "".join(f"{digest}  {key}\n" for key, digest in sums.items()).encode()
        archive.writestr(_entry(f"{name}/{MANIFEST}", len(manifest)), manifest)
    return sums


def _entry(name: str, size: int) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
    entry.create_system, entry.external_attr, entry.file_size = 3, (stat.S_IFREG | 0o644) << 16, size
    return entry


@contextmanager
def opened_zip(path: str | Path) -> Iterator[zipfile.ZipFile]:
    """A zip file that is read in parts of at most ``MAX_PART``, whatever sizes its directory tells.

    Raises:
        ValueError: if a part is larger.
    """
    with _SmallReads(path) as file, zipfile.ZipFile(file) as opened:
        yield opened


class _SmallReads(io.FileIO):
    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > MAX_PART:
            raise ValueError(f"its directory has {size} bytes, more than {MAX_PART}")
        return super().read(size)


@contextmanager
def extracted(archive: str | Path, folder: str | Path | None = None, max_gb: float = 10) -> Iterator[Path]:
    """The bundle of an archive below a temporary folder, which goes when the block ends.

    Args:
        archive: zip file.
        folder: where the temporary folder is made, None: where the system has them.
        max_gb: refuse to unpack more than this, 10^9 bytes.

    Raises:
        InputError: if ``max_gb`` is no number above 0, if the folder cannot be written to, or if the archive is no zip
            file or damaged, has other than one top folder, or holds a path that leaves it, a link, a name twice, an
            encrypted file, or more than ``max_gb`` or ``MAX_FILES`` allow.
    """
    if not isinstance(max_gb, int | float) or max_gb <= 0:
        raise InputError(f"max_gb must be a number above 0, got {max_gb!r}")
    try:
        temporary = tempfile.TemporaryDirectory(dir=folder, prefix=".unpack-")
    except OSError as error:
        raise InputError(f"{folder}: cannot be written to ({error})") from error
    with temporary as place:
        try:
            with opened_zip(archive) as opened:
                top = _check_entries(opened.infolist(), archive, max_gb)
                for entry in opened.infolist():
                    path = Path(place, entry.filename)
                    if not entry.is_dir():
                        path.parent.mkdir(parents=True, exist_ok=True)
                        with opened.open(entry) as source, path.open("wb") as target:
                            shutil.copyfileobj(source, target, 1 << 20)
        except InputError:
            raise
        except (*DAMAGE, MemoryError) as error:
            raise InputError(f"{archive}: cannot be unpacked ({error})") from error
        yield Path(place, top)


def _check_entries(entries: Sequence[zipfile.ZipInfo], archive: str | Path, max_gb: float) -> str:
    if len(entries) > MAX_FILES:
        raise InputError(f"{archive}: must hold at most {MAX_FILES} files, got {len(entries)}")
    size = sum(entry.file_size for entry in entries)  # zipfile reads no more than an entry declares
    if size > max_gb * 1e9:
        raise InputError(f"{archive}: must unpack to at most {max_gb:g} GB, got {size / 1e9:.3g}; --max_gb allows more")
    if entries and min(entry.header_offset for entry in entries):  # cut off, it seems to be the weights' own zip file
        raise InputError(f"{archive}: cannot be unpacked (it does not begin with its first file)")
    for entry in entries:
        if problem := _problem(entry):
            raise InputError(f"{archive}: {entry.orig_filename!r} {problem}")
    if twice := _find_twin(entries):
        raise InputError(f"{archive}: {twice!r} is there twice")
    return _top_folder(entries, archive)


def _find_twin(entries: Sequence[zipfile.ZipInfo]) -> str | None:
    """A name that is there twice, or in a folder whose name is, for file systems that take A and a for one."""
    spelled: dict[str, str] = {}
    files: set[str] = set()
    for entry in entries:
        name = entry.filename.removesuffix("/")
        for part in (name, *map(str, PurePosixPath(name).parents)):
            if spelled.setdefault(unicodedata.normalize("NFC", part).casefold(), part) != part:
                return entry.filename
        if not entry.is_dir():
            if name in files:
                return entry.filename
            files.add(name)
    return None


def _top_folder(entries: Sequence[zipfile.ZipInfo], archive: str | Path) -> str:
    tops = sorted({entry.filename.split("/")[0] for entry in entries})
    one = len(tops) == 1 and all("/" in entry.filename for entry in entries)
    if not one or not re.fullmatch(NAME, tops[0]):
        raise InputError(
            f"{archive}: must hold one folder, named as the bundle, got {', '.join(tops[:3]) or 'nothing'}"
        )
    return tops[0]


def _problem(entry: zipfile.ZipInfo) -> str | None:
    if problem := _name_problem(entry.orig_filename.removesuffix("/")):
        return problem
    if entry.filename != entry.orig_filename:
        return ALIKE
    if stat.S_IFMT(entry.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "is a link or device"
    if entry.flag_bits & 1:
        return "is encrypted"
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return "is compressed in a way other than deflate"
    return None


def _name_problem(name: str) -> str | None:
    parts = name.split("/")
    if any(part in ("", ".", "..") or re.search(r'[\\:*?"<>|]', part) or not part.isprintable() for part in parts):
        return "is a path that may leave its folder"
    return ALIKE if any(part.endswith((".", " ")) or _RESERVED.fullmatch(part) for part in parts) else None


def check_manifest(name: str, files: Mapping[str, Path], complete: bool) -> int | None:
    """Compare a bundle's files with its manifest: how many it lists, or None where there is no manifest.

    Args:
        name: of the bundle.
        files: by their names in it.
        complete: refuse files that the manifest does not list.

    Raises:
        InputError: if a file is missing, altered or not listed.
    """
    if MANIFEST not in files:
        return None
    if files[MANIFEST].stat().st_size > MAX_PART:
        raise InputError(f"{name}: {MANIFEST} must have at most {MAX_PART} bytes")
    lines = files[MANIFEST].read_text("utf-8", errors="replace").splitlines()
    rows = [row for line in lines if (row := re.fullmatch(r"([0-9a-f]{64})  (.+)", line)) and line.isprintable()]
    sums = {row[2]: row[1] for row in rows}
    wrong = [f"{key} is missing" for key in sums if key not in files]
    wrong += [f"{key} was altered" for key, digest in sums.items() if key in files and sha256(files[key]) != digest]
    wrong += [f"{key} is not listed" for key in files if complete and key not in sums and key != MANIFEST]
    if wrong or len(sums) != len(lines):
        raise InputError(f"{name}: does not agree with its {MANIFEST}: {', '.join(wrong[:3]) or 'a line is malformed'}")
    return len(sums)
