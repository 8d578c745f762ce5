"""Datalists as text: one line, or a table."""

from collections.abc import Sequence
from pathlib import PurePosixPath

from ..images.find import Image, count_formats, first_file, is_series
from ..utils.tables import format_table
from .checks import LISTS, entries_of, first_names
from .patients import MAX_EXAMPLES, group_of, list_patients, patient_of
from .splits import count_classes

LOWEST_HU = -1024  # that a voxel of 12 bits holds
FAR = 0.5  # of the wanted number of patients
MAX_ROWS = 20  # of the table, and of what the commands list


def summarize_datalist(datalist: dict) -> str:
    """One line: how many images for training and validation, of how many patients, how many skipped and left out."""
    training, validation = datalist["training"], datalist["validation"]
    patients = {patient_of(entry) for entry in [*training, *validation]}
    counts = [
        f"{len(training)} training and {len(validation)} validation images of {len(patients)} "
        f"patients ({_rule(datalist, LISTS[:2])})",
        f"{len(datalist.get('skipped', []))} skipped",
        *_notes(datalist),
        *(f"{count} {_reason(words)} left out" for words, count in _excluded(datalist).items()),
    ]
    return ", ".join(counts)


def _reason(words: str) -> str:
    """Of a folder as it is, else a split."""
    return words if words.startswith("in ") else f"of split {words}"


def _notes(datalist: dict) -> list[str]:
    """What is said of files that are no image of the list, and of images that several patients or lists had."""
    kinds = {"label_maps": "label maps", "other_modalities": "files of other modalities"}
    maps = [f"{count} {words} left out" for name, words in kinds.items() if (count := datalist.get(name))]
    if count := datalist.get("named_as_maps"):
        maps.append(f"{count} named as label maps taken, since they hold gray values and no image has their name")
    formats = count_formats(datalist.get("other_formats", {}))
    copies = [" = ".join(names) for names in datalist.get("copies", [])]
    text = f"{len(copies)} images there several times ({first_names(copies)})"
    return maps + [formats] * bool(formats) + [text] * bool(copies) + _padded(datalist)


def _padded(datalist: dict) -> list[str]:
    """What is said of CT whose corners are filled with less than air, such as -2000 or -3024."""
    lows = [
        entry["range"][0] for entry in entries_of({key: datalist.get(key, []) for key in LISTS}) if "range" in entry
    ]
    lows = [low for low in lows if low < LOWEST_HU]
    cure = "an intensity_range of HU cuts it off, percentiles count it"
    return [f"{len(lows)} images go below {LOWEST_HU} (to {min(lows):g}), as CT is padded: {cure}"] if lows else []


def _rule(datalist: dict, lists: Sequence[str]) -> str:
    """What tells patients apart, and some of them."""
    names = list_patients(entries_of(datalist, lists))
    more = ", ..." if len(names) > MAX_EXAMPLES else ""
    return f"by {datalist.get('patient_rule', 'the list')}: {', '.join(names[:MAX_EXAMPLES])}{more}"


def _describe_draws(datalist: dict) -> list[str]:
    """What was drawn for each list, of how many patients, and what to do where that is far from the fraction."""
    drawn, lines = datalist.get("drawn", {}), []
    for key, part in drawn.items():  # test first
        left = {"training", key} | ({"validation"} if key == "test" and "validation" in drawn else set())
        count, pool = (
            len({group_of(entry) for entry in entries_of(datalist, sorted(names))}) for names in ([key], left)
        )
        wanted = max(1, pool * part)
        far = "; each is drawn by itself, another --seed draws others" if abs(count - wanted) > FAR * wanted else ""
        lines.append(f"{key} {count} of {pool} ({key}_fraction {part:g}{far})")
    return lines


def _excluded(datalist: dict) -> dict[str, int]:
    """How many images the user leaves out, by split or reason; ``left_out`` in lists of version 0.1."""
    return datalist.get("excluded", datalist.get("left_out", {}))


def describe_datalist(datalist: dict) -> str:
    """A text table: one row a format and folder of images, or one row an image where there are at most 20 of them."""
    entries = [(entry, key) for key in ("training", "validation") for entry in datalist[key]]
    if len(entries) <= MAX_ROWS:
        head = ["image", "split", "patient", "shape", "spacing mm", "intensity"]
        rows = [[_label(entry["image"]), key, entry["patient"], *_spans([entry])] for entry, key in entries]
    else:
        head = ["format", "folder", "images", "shape", "spacing mm", "intensity"]
        folders = {_folder(entry["image"]) for entry, _ in entries}
        groups: dict[tuple[str, str], list[dict]] = {}
        for entry, _ in entries:
            folder = _folder(entry["image"]) if len(folders) <= MAX_ROWS else f"{len(folders)} folders"
            groups.setdefault((_format(entry["image"]), folder), []).append(entry)
        rows = [[*group, str(len(groups[group])), *_spans(groups[group])] for group in sorted(groups)]
    return format_table([head, *rows])


def _label(image: Image) -> str:
    return image if isinstance(image, str) else image[0] + (f" ({len(image)} files)" if len(image) > 1 else "")


def _folder(image: Image) -> str:
    return str(PurePosixPath(first_file(image)).parent)


def _format(image: Image) -> str:
    suffix = "DICOM" if is_series(image) else PurePosixPath(first_file(image).removesuffix(".gz")).suffix[1:].upper()
    return {"NII": "NIfTI", "JPG": "JPEG"}.get(suffix, suffix)


def _spans(entries: Sequence[dict]) -> list[str]:
    """Shape, spacing and intensity of some images, each number as ``low-high`` where they differ."""
    shapes = [entry["shape"] for entry in entries]
    spacings = [entry["spacing"] for entry in entries if entry["spacing"]]
    ranges = [entry["range"] for entry in entries]
    intensity = f"{min(low for low, _ in ranges):g} to {max(high for _, high in ranges):g}"
    return [span(shapes), span(spacings) if spacings else "-", intensity]


def span(rows: Sequence[Sequence[float]]) -> str:
    """Numbers of each axis as ``low`` or, where they differ, ``low-high``, joined by ``x``."""
    axes = [(f"{min(axis):.4g}", f"{max(axis):.4g}") for axis in zip(*rows, strict=True)]
    return " x ".join(low if low == high else f"{low}-{high}" for low, high in axes)


MAX_REASONS = 3  # that are shown of what was skipped


def describe_labeled(datalist: dict) -> str:
    """A text table of images, patients and images with each class in each list, and what was drawn and left out."""
    lists = {key: datalist[key] for key in LISTS}
    patients = {key: {patient_of(entry) for entry in lists[key]} for key in LISTS}
    counts = count_classes(datalist)
    rows = [
        ["", *LISTS],
        ["images", *(str(len(lists[key])) for key in LISTS)],
        ["patients", *(str(len(patients[key])) for key in LISTS)],
    ]
    for number, name in enumerate(datalist["class_names"]):
        rows.append([f"  {name}", *(str(known[number]) if (known := counts[key]) else "?" for key in LISTS)])
    skipped = datalist.get("skipped", [])
    lines = [format_table(rows), f"{len(skipped)} skipped, patients {_rule(datalist, LISTS)}"]
    lines += [f"skipped: {entry['reason']}" for entry in skipped[:MAX_REASONS]]
    lines += [f"skipped: ... and {len(skipped) - MAX_REASONS} more"] if len(skipped) > MAX_REASONS else []
    if drawn := _describe_draws(datalist):
        lines.append(f"drawn from the training patients: {', '.join(drawn)}")
    lines += [note] if (note := datalist.get("label_note")) else []
    lines += _notes(datalist)
    lines += [f"left out: {count} {reason}" for reason, count in _excluded(datalist).items()]
    return "\n".join(lines)
