"""Which patient an image belongs to."""

import posixpath
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from ..dicom.headers import read_header
from ..images.find import Image, first_file, is_series, stem
from ..utils.errors import InputError
from .checks import first_names
from .layouts import (
    case_of,
    count_prefix,
    is_channel,
    is_counter,
    is_date,
    is_year,
    may_be_visit,
    named_patient,
    names_no_patient,
    prefix_of,
    repeats_below,
    shape_of,
    site_of,
    without_groups,
    without_scans,
    without_splits,
    without_times,
)
from .tables import (
    FILE_COLUMNS,
    clean_name,
    composed,
    find_split_column,
    image_names,
    needless_folders,
    pick_column,
    read_table,
)

RULES = ("dicom", "name", "folder", "folders", "file", "case", "path")
PATIENT_COLUMNS = ("patient", "patient id", "patient group", "subject", "subject id", "participant id", "lesion id")
MIN_FOLDERS = 5  # fewer sub-folders, or more files in each of them, are rather groups than patients
MIN_NUMBER = 10_000  # from which on equal numbers are of the same patient
MAX_EXAMPLES = 5
MAX_GROUP = 20  # images of a folder of unlike names beyond which it is rather a group


def choose_rule(images: Sequence[Image]) -> str:
    """What tells patients apart: "dicom" for DICOM series, a rule of ``find_patients`` for other files, or both.

    Raises:
        InputError: if the names leave open what a patient is; names the likeliest answers.
    """
    others = [first_file(image) for image in images if not is_series(image)]
    if not others:
        return "dicom"
    rule = _simplest(others, _choose_by_names(others))
    return rule if len(others) == len(images) else f"dicom and {rule}"


def _choose_by_names(files: Sequence[str]) -> str:
    named = {named_patient(file) for file in files}
    if None not in named and len(named) > 1:
        _refuse_sites(files)
        if all(map(is_channel, files)) and (count := count_prefix({str(name) for name in named})):
            raise _doubt(files, f"prefix{count}", "name")
        return "name"
    folders, cases = _folders(files, words=False), [case_of(file) for file in files]
    if {"test", "retest"} <= {part.lower() for file in files for part in file.split("/")[:-1]}:
        raise _doubt(files, "case", "path")
    _refuse_times(files, [folder for folder in folders if folder])
    if None not in folders and len(set(folders)) > 1 and (rule := _judge_folders(files, folders, cases)):
        return rule
    last = {str(folder) for folder in _folders(files)}
    if "" in cases and len(last) > 1 and not all(map(names_no_patient, last)):
        return "folder"
    alone = _partition(cases) == _partition([_path_of(file) for file in files])
    rules = ["case"] if alone else _choose_names(files, cases)
    if len(rules) > 1:
        raise _doubt(files, *rules)
    (finest,) = rules
    if count := count_prefix(cases):
        raise _doubt(files, f"prefix{count}", _simplest(files, finest))
    return finest


def _choose_names(files: Sequence[str], cases: Sequence[str]) -> list[str]:
    """The rule path, or case where names in several folders are of the same patients, in modalities or other states.

    Counters, which begin anew in several folders, are not. Both are as likely where these may be visits, or where a
    part of the names is in several folders and their numbers are small.
    """
    folders: dict[tuple[str, ...], set[str]] = {}
    for file, case in zip(files, cases, strict=True):
        folders.setdefault(without_splits(without_scans(file.split("/")[:-1])), set()).add(case)
    crowd = Counter(chain.from_iterable(folders.values()))
    numbers = {case: [*map(int, re.findall(r"\d+", case))] for case in crowd if crowd[case] > 1}
    shared = {case for case in numbers if numbers[case]}
    groups = [names for names in folders.values() if names & shared]
    if not groups or any(map(is_counter, groups)):
        visits = groups and len({tuple(p for p in above if not may_be_visit(p)) for above in folders}) < len(folders)
        return ["case", "path"] if visits else ["path"]
    if any(names != groups[0] for names in groups) and min(max(numbers[case]) for case in shared) < MIN_NUMBER:
        return ["case", "path"]
    return ["case"]


def _refuse_sites(files: Sequence[str]) -> None:
    """Ask where several hospitals have patients of the same name."""
    names = find_patients(files, "", "name")
    if len({*zip(map(site_of, files), names, strict=True)}) > len({*names}):
        raise _doubt(files, "folders" if all(named_patient(posixpath.dirname(f)) for f in files) else "path", "name")


def _refuse_times(files: Sequence[str], folders: Sequence[str]) -> None:
    """Ask where folders and files differ in a last part only, as those of several times of a patient do."""
    if len(folders) < len(files) or not (count := count_prefix(folders)):
        return
    rule = f"prefix{count}"
    if _partition(find_patients(files, "", rule)) == _partition([prefix_of(folder, count) for folder in folders]):
        raise _doubt(files, rule, "folder")


def _choose_level(files: Sequence[str], folders: Sequence[str | None]) -> str:
    """The rule folder, or folders where those of patients begin anew below others."""
    above = [without_scans(file.split("/")[:-1]) for file in files]
    last = all(parts[-1:] == (folder,) for parts, folder in zip(above, folders, strict=True))
    if not last or not repeats_below(above):
        return "folder"
    if repeats_below([[*without_times(parts[:-1]), *parts[-1:]] for parts in above]):
        return "folders"
    if is_counter({*map(str, folders)}):  # the first of each day or year?
        raise _doubt(files, "folders", "folder")
    return "folder"


def _judge_folders(files: Sequence[str], folders: Sequence[str | None], cases: Sequence[str]) -> str:
    """Whether folders are patients: "folder", "folders", or "" where they are groups of patients."""
    rule = _choose_level(files, folders)
    names = {str(folder) for folder in folders}
    mean = len(files) / len({*find_patients(files, "", rule)})
    if not any(map(str.isdigit, "".join(cases))) and ("" in cases or _numbered(names)):
        stems = {stem(file) for file in files}
        if len(names) < len(stems) == len(files) and _numbered(stems):  # CT-0/study_1, CT-0/study_2, CT-1/study_3
            raise _doubt(files, rule, "file")
        return rule  # the names of files tell of no patient
    paths = _partition([_path_of(file) for file in files])
    if _partition(folders) == paths:
        return rule
    if _numbered(names):
        told = all(str(folder) in stem(file) for folder, file in zip(folders, files, strict=True))
        if told and any(len(name) > 1 for name in names):
            return rule
        return _judge_numbered(files, names, cases, rule, mean)
    if mean < MIN_FOLDERS and _partition(folders) != _partition(cases):
        raise _doubt(files, rule, *_choose_names(files, cases))
    return ""


def _judge_numbered(files: Sequence[str], names: Collection[str], cases: Sequence[str], rule: str, mean: float) -> str:
    """The rule, where numbered folders of that many files on average are patients and no grades or years."""
    grades = all(len(name) == 1 for name in names)  # as 0 to 4 are
    few = len(names) < MIN_FOLDERS or grades
    slices = rule == "folders" and mean <= MAX_GROUP
    if (few and not slices) or (len(names) <= 2 * MIN_FOLDERS and mean > MAX_GROUP):
        raise _doubt(files, rule, *_choose_names(files, cases))
    numbered = all(case.isdecimal() and int(case) < MIN_NUMBER for case in cases)  # which are slices
    times = all(is_year(name) or may_be_visit(name) for name in names)
    if times and len({*cases}) < len(cases) and not numbered:
        raise _doubt(files, rule, "case")
    return rule


def _partition(names: Sequence[Any]) -> list[int]:
    """For each name the place of the first that is equal: the same for the same patients by whatever names."""
    first: dict[Any, int] = {}
    return [first.setdefault(name, index) for index, name in enumerate(names)]


def _simplest(files: Sequence[str], rule: str) -> str:
    """The rule, or "file" or "folder" where they give the same patients by the same names."""
    wanted = find_patients(files, "", rule)
    if wanted == [stem(file) for file in files]:
        return "file"
    return "folder" if wanted == _folders(files) else rule


def _doubt(files: Sequence[str], *rules: str) -> InputError:
    """What to ask where two rules are as likely."""
    answers = []
    for rule in rules:
        patients: dict[str, list[str]] = {}
        for name, file in zip(find_patients(files, "", rule), files, strict=True):
            patients.setdefault(name, []).append(file)
        name, own = max(patients.items(), key=lambda item: len(item[1]))
        answers.append(f"{len(patients)} by --patient {rule} (such as {name}: {first_names(own)})")
    return InputError(
        f"the names of {len(files)} files do not tell who is a patient: {' or '.join(answers)}; "
        "give one of these options, or a CSV file with the columns file and patient by --patient."
    )


def find_patients(images: Sequence[Image], directory: str | Path, rule: str) -> list[str]:
    """The patient of each image.

    Args:
        images: relative to ``directory``, as ``find_images`` lists them.
        directory: the folder of the images.
        rule: "dicom" takes the PatientID (the study where it is empty), "name" what ``named_patient`` finds, "folder"
            the first folder below the one that all images share which is no word as train or T1, "folders" all folders
            but those of modalities and the like, as ``AMD/1``, "file" the file name without suffixes, "case" that
            without modality and the like, "path" the folders and the case, "prefix2" the first two parts of the case;
            "dicom and ..." the latter for what is no DICOM.

    Raises:
        InputError: if the rule is unknown or does not fit an image, or PatientIDs differ in case alone.
    """
    if rule.startswith("dicom and "):
        return by_kind(images, rule, lambda part, own_rule: find_patients(part, directory, own_rule))
    if rule not in RULES and not re.fullmatch(r"prefix[1-9]", rule):
        raise InputError(f"patient must be auto, {', '.join(RULES)}, prefix1, prefix2 or a CSV file, got {rule!r}.")
    if rule == "dicom":
        names = [_dicom_patient(image, directory) for image in images]
        _refuse_cases(directory, names, "say who is who by a CSV file with the columns file and patient, --patient")
        return names
    found = _folders(images) if rule == "folder" else [_by_name(first_file(image), rule) for image in images]
    if None in found:
        name = first_file(images[found.index(None)])
        reason = "lies in no folder of its own" if rule in ("folder", "folders") else "has no patient in its name"
        raise InputError(f"{name} {reason}, so the patient rule {rule} does not fit.")
    return [str(name) for name in found]


def _by_name(file: str, rule: str) -> str | None:
    if rule == "name":
        return named_patient(file)
    if rule == "path":
        return _path_of(file)
    if rule == "folders":
        return "/".join(without_scans(without_groups(file.split("/")[:-1]))) or None
    case = case_of(file) or stem(file)
    return stem(file) if rule == "file" else case if rule == "case" else prefix_of(case, int(rule[-1]))


def _path_of(file: str) -> str:
    return "/".join((*without_scans(file.split("/")[:-1]), case_of(file) or stem(file)))


def by_kind(images: Sequence[Image], rule: str, find: Callable[[list[Image], str], list[str]]) -> list[str]:
    """Patients by a rule "dicom and ...", which ``find`` gets with the images of its kind."""
    files = [image for image in images if not is_series(image)]
    series = [image for image in images if is_series(image)]
    known: dict[str, str] = {}
    for part, own_rule in ((files, rule.removeprefix("dicom and ")), (series, "dicom")):
        known |= zip(map(first_file, part), find(part, own_rule), strict=True)
    return [known[first_file(image)] for image in images]


def _dicom_patient(image: Image, directory: str | Path) -> str:
    if not is_series(image):
        raise InputError(f"{first_file(image)} is no DICOM file, so the patient rule dicom does not fit.")
    header = read_header(Path(directory, first_file(image)))
    return header.patient if header is not None and header.patient else first_file(image)


def _folders(images: Sequence[Image], words: bool = True) -> list[str | None]:
    """Of each image the first folder below the shared one that may be a patient, or with ``words`` the first of all.

    Levels of words without numbers, and of days, are passed where all images have a folder further down, or a numbered
    one at that place because theirs is a word for a group (AMD/1 beside NORMAL/1).
    """
    above = [first_file(image).split("/")[:-1] for image in images]
    shared = len(posixpath.commonprefix([min(above), max(above)])) if above else 0
    below = [folders[shared:] for folders in above]
    parts = [[part for part in own if not names_no_patient(part)] for own in below]
    while (level := {own[0] for own in parts if len(own) > 1}) and (_are_times(parts) or not _numbered(level)):
        if not all(_numbered(own) for own in parts if len(own) < 2):
            break
        parts = [own[1:] or own for own in parts]
    ends = {shape_of(own[0]) for own in parts if len(own) == 1}  # 0 of Utrecht/0, and so 100 of Amsterdam/GE3T/100
    starts = [next((n for n, part in enumerate(own) if shape_of(part) in ends), 0) for own in parts]
    parts = [own[start:] for own, start in zip(parts, starts, strict=True)]
    if words:
        parts = [own or list(whole) for own, whole in zip(parts, below, strict=True)]
    return [own[0] if own else None for own in parts]


def _are_times(parts: Sequence[Sequence[str]]) -> bool:
    """Whether the first folders are days, or years of which some hold the same folders of one form, such as P007.

    A patient's number may look like a year or, without signs between, a day: these need folders that several hold.
    What may be a visit, V1, or a patient of that number, needs at least as many folders below, of which none may be.
    """
    below: dict[str, set[str]] = {}
    for own in parts:
        below.setdefault(own[0] if own else "", set()).update(own[1:2])
    repeated = len(set[str]().union(*below.values())) < sum(map(len, below.values()))
    if all(map(is_date, below)):
        return repeated or not all(map(str.isdecimal, below))
    forms, sets = {shape_of(name) for names in below.values() for name in names}, {*map(frozenset, below.values())}
    if not repeated or len(forms) != 1 or "#" not in min(forms):
        return False
    if all(map(may_be_visit, below)):
        persons = frozenset[str]().union(*sets)
        return len(persons) >= len(below) and not any(map(may_be_visit, persons))
    return all(map(is_year, below)) and len(sets) > 1


def _numbered(names: Collection[str]) -> bool:
    """Whether at least half of the names hold a digit."""
    return 2 * sum(any(map(str.isdigit, name)) for name in names) >= max(len(names), 1)


def patient_of(entry: Mapping[str, Any]) -> str:
    """The patient of an entry of a datalist; without one, the image is a patient of its own."""
    return str(entry["patient"]) if "patient" in entry else first_file(entry["image"])


def group_of(entry: Mapping[str, Any]) -> str:
    """The patients who share an image with that of an entry, which stay in one list; by default the patient."""
    return str(entry["group"]) if "group" in entry else patient_of(entry)


def list_patients(entries: Iterable[Mapping[str, Any]]) -> list[str]:
    """The patients of the entries, sorted."""
    return sorted({patient_of(entry) for entry in entries})


def read_patient_table(
    table: str | Path, images: Sequence[Image], patient_column: str | None = None, file_column: str | None = None
) -> list[tuple[str, str]]:
    """Patient and split of each image from a CSV file; empty where there is no row, or no column ``split``.

    A row names an image by one of its ``image_names``, perhaps behind ``needless_folders``. Columns are by default the
    first of ``PATIENT_COLUMNS`` and of ``FILE_COLUMNS`` that is there, see ``find_column``.

    Raises:
        InputError: if the file is missing or has no such columns, if a file has two patients or splits, if a row
            without a path fits files of several folders, or as ``clean_patients`` does.
    """
    columns, cells = read_table(table, "patient table")
    patient = pick_column(table, columns, "patient_column", patient_column, PATIENT_COLUMNS)
    file = pick_column(table, columns, "file_column", file_column, FILE_COLUMNS)
    split = find_split_column(columns, cells)
    people = clean_patients(table, [row[patient] for row in cells])
    cut = needless_folders([row[file] for row in cells], [{name for image in images for name in image_names(image)}])
    rows: dict[str, tuple[str, str]] = {}
    for row, person in zip(cells, people, strict=True):
        name, found = clean_name(row[file])[cut:], (person, row.get(split, ""))
        if rows.setdefault(name, found) != found:
            raise InputError(f"{table} gives {name} two patients or splits: {rows[name]} and {found}.")
    named = [next((name for name in image_names(image) if name in rows), "") for image in images]
    places: dict[str, str] = {}
    for name, image in zip(named, images, strict=True):
        place = "/".join(without_scans(first_file(image).split("/")[:-1]))
        if name and "/" not in name and (other := places.setdefault(name, place)) != place:
            raise InputError(f"{table} names {name}, which lies in {other} and in {place}; write its path instead.")
    return [rows.get(name, ("", "")) for name in named]


def clean_patients(table: str | Path, names: Sequence[str]) -> list[str]:
    """Patients as a table names them, ``composed``, whole numbers without the ``.0`` that pandas adds to such columns.

    ``nan``, which pandas writes of a missing one as text, is no patient: "".

    Raises:
        InputError: if two names differ in case or leading zeros alone: they may be one patient, in two lists.
    """
    names = ["" if name.lower() == "nan" else composed(name) for name in names]
    cleaned = [name.removesuffix(".0") if name.removesuffix(".0").isdecimal() else name for name in names]
    _refuse_cases(table, cleaned, "write one")
    return cleaned


def _refuse_cases(place: str | Path, names: Sequence[str], cure: str) -> None:
    known: dict[str, str] = {}
    for name in names:
        number = name.isdecimal()
        if (other := known.setdefault(name.lstrip("0") or "0" if number else name.casefold(), name)) != name:
            what = "leading zeros" if number else "case"
            raise InputError(f"{place} has the patients {other} and {name}, which differ in {what} alone; {cure}.")
