"""What the names of files and folders tell of patients: conventions of data sets, and words that name no patient."""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cache

from ..images.find import SPLIT, Image, first_file, is_series, split_part, stem, without_map_words
from ..utils.errors import InputError

LAYOUTS = {  # the patient is the first group that is not empty; the path begins in the folder of the data
    "BIDS": r"(?:^|[/_])(sub-[a-z0-9+]+)(?=[/_])",  # bids-specification.readthedocs.io: entities
    "ChestX-ray14": r"(?:^|/)(000\d{5})_\d{3}\.\w+$",  # Wang et al., 2017: patient and follow-up; else a date
    "MIMIC-CXR": r"(?:^|/)(p\d{8})/s\d+/",  # physionet.org/content/mimic-cxr-jpg
    "DeepLesion": r"(?:^|/)(00\d{4})_\d\d_\d\d[/_]\d+\.\w+$",  # Yan et al., 2018: patient, study, series
    "TCGA": r"(TCGA[-_][a-z0-9]{2}[-_][a-z0-9]{4})(?![a-z0-9])",  # docs.gdc.cancer.gov: barcode
    "ADNI": r"(?<!\d)(\d{3}_S_\d{4,5})(?!\d)",  # adni.loni.usc.edu: site, subject
    "OASIS": r"(OAS[12]_\d{4}|OAS3\d{4})(?!\d)",  # sites.wustl.edu/oasisbrains
    "UPENN-GBM, UCSF-PDGM": r"((?:UPENN-GBM-\d{5}|UCSF-PDGM-\d{4}))(?!\d)",  # cancerimagingarchive.net: _11 is a time
    "IXI": r"(IXI\d{3})-",  # brain-development.org/ixi-dataset
    "BraTS 2023": r"(BraTS-[a-z]+-\d{5})-\d{3}(?!\d)",  # synapse.org/brats2023: patient and time
    "CBIS-DDSM": r"(?<![a-z])(P_\d{5})_(?:LEFT|RIGHT)",  # cancerimagingarchive.net
    "INbreast": r"(?:^|/)\d+_([0-9a-f]{16})_MG_",  # Moreira et al., 2012
    "BreakHis": r"(?:^|/)SOB_[BM]_[a-z]+-(\d\d-\d+[a-z]*)-\d+-\d+\.\w+$",  # Spanhol et al., 2016
    "Kermany": r"(?:^|/)(?:((?:NORMAL2-)?IM-\d{4})(?:-\d{4})+|(?:CNV|DME|DRUSEN|NORMAL)-(\d+)-\d+)\.\w+$",  # 2018
    # its documentation, dataset_format: case and channel; below numbered folders rather frames of a film
    "nnU-Net": r"(?:^(?:[^/\d]*/)*|(?:^|/)images(?:tr|ts|va)/)([^/]*\d[^/]*)_000\d\.[^/]+$",
    "Kather": r"(CRC-Prim-HE-\d+)_",  # Kather et al., 2016: slide of a tile
    # CheXpert, MURA, ACDC, KiTS, Camelyon17, ...: a word for a person, and a number
    "patient": r"(?:^|[/_\-. ])((?:patient|participant|subject|person|subj|pat|pt|sub|case)[_\-. ]?\d+)(?!\d)",
}
_PATTERNS = {name: re.compile(pattern, re.IGNORECASE) for name, pattern in LAYOUTS.items()}

# one of several scans of a patient, of which each has label maps of its own: side, phase, device
_APART = r"l|r|left|right|before|after|arterial|venous|portal|delay(?:ed)?|[be]d|es|(?:pre|post)(?:[_-]?op)?|pet|mri?"
# one of several scans of a patient: modality, view, time, state of processing, part that dcm2niix writes
_SCAN = (
    rf"{_APART}|"
    r"flair|t1|t1w|t1c|t1ce|t1gd|t1n|t2|t2w|t2f|t2star|pdw?|mprage|space|stir|adc|dwi|dce|swi|bold|asl|mra|"
    r"cet1|hrt2|cta?|cbct|pt|suv|us|cxr|xr|frontal|lateral|ap|pa|[lr]?(?:cc|mlo)|axial|coronal|sagittal|ax|cor|sag|"
    r"sa|la|\dch|(?:ses|session|visit|study|series|exam|tp|time|timepoint|frame|phase|view|echo|run|day|week|month|"
    r"year|follow[_-]?up|fu)[_-]?\d*|[1-9]?\d[_ -]?(?:m|mo|months?|w|wk|weeks?|y|yr|years?)|(?:re)?scan|retest|"
    r"lat|bl|baseline|contrast|anat|func|perf|fmap|orig|pp|n4|bet|"
    r"(?:pre)?processed|registered|resampled|slice[_-]?\d+|z\d+|imaging|"
    r"(?:Eq|Tilt|Crop)_\d+|ROI\d+|e\d|ph|real|imaginary|MoCo"
)
# a folder that gathers patients: split, class, site, format, part of a download
_SPLIT = rf"{SPLIT}|dev|holdout"
_GROUP = (
    rf"(?:\w[.)] ?)?(?:{_SPLIT}|original|raw)(?:[_\-. ]?(?:dataset|set|data|images?|imgs?))?|"
    r"labell?ed|unlabell?ed|imgs?|images?(?:tr|ts|va)?|"
    r"jpegimages|data|datasets?|raw|files|inputs?|pngs?|jpe?gs?|dicom|nifti|nii|hgg|lgg|normal|abnormal|benign|"
    r"malignant|healthy|ill|diseased?|positive|negative|pos|neg|(?:non)?[-_]?covid[-_]?(?:19)?|pneumonia|cancer|tumou?r|controls?|cases|"
    r"patients|subjects|(?:batch|subset|fold|part|dis[ck]|site|cent(?:er|re)|hospital|group|set|chunk|grade|class|"
    r"stage|level|images)[_\-. ]*\d*|(?:.*[_\-. ])?images?[_\-. ]?part[_\-. ]*\d+"
)
_IMAGE_WORDS = re.compile(r"_0000$|[_\-.](?:image|img|data)$|^(?:volume|image|img)[_-]?(?=\d+$)", re.IGNORECASE)
_GAP = r"[_\-. ]+"
_ENDINGS = re.compile(rf"(?:{_GAP}(?:{_SCAN})|(?<=\d)(?:O[DS]|(?-i:[LR])))+$", re.IGNORECASE)
_DEVICE = re.compile(r"(?<=[_\-.])(?:ct|mri?|pet)[_\-.](?=\d)", re.IGNORECASE)  # topcow_ct_001 beside topcow_mr_001
_IMAGES = re.compile(  # what a split is of: x_images_part1, Set_120cases, Data, but no Image_7, P7_images
    r"(?:\D*[_\-. ])?(?:(?:data)?set|data|images?|imgs?)(?:[_\-. ]*(?:(?:part|batch)[_\-. ]*\d+|\d+cases))?",
    re.IGNORECASE,
)
_OWN_MAPS = re.compile(
    rf"(?:^|(?<=[_\-. ])|(?<=\d))(?:{_APART}|o[ds]|ct|"
    r"(?:ses|session|visit|tp|time|timepoint|frame|phase|day|week|month|year)[_-]?\d+)(?=[_\-. ]|$)",
    re.IGNORECASE,
)
_DATE = re.compile(r"(?:19|20)\d\d([-_.]?)(?:0[1-9]|1[0-2])\1(?:0[1-9]|[12]\d|3[01])(?!\d)")
_DAY_OF = re.compile(  # 20240101_P001, but no 20240101_IMG7, which is a picture of that day
    rf"{_DATE.pattern}[_\-. ]+(?!(?:img|image|im|pic|photo|dsc|scan|slice|frame|ct|mr|us|xr|z)\d)"
    r"(?=[a-z]{1,4}\d+(?:[_\-. ]|$))",
    re.IGNORECASE,
)
_VISIT = re.compile(r"(?:[dmtvwy]|wk)[_-]?\d{1,3}", re.IGNORECASE)
_SITE = re.compile(r"(?:site|cent(?:er|re)|hospital|clinic|institut(?:e|ion))[_\-. ]*\w{1,3}", re.IGNORECASE)
_SCANS_ONLY = re.compile(rf"(?:{_SCAN})(?:{_GAP}(?:{_SCAN}))*", re.IGNORECASE)
_WORDS_ONLY = re.compile(rf"(?:{_SCAN}|{_GROUP})(?:{_GAP}(?:{_SCAN}|{_GROUP}))*", re.IGNORECASE)
_CODE = re.compile(r"(?<![a-z0-9])(?=[a-z]*\d+[a-z]+\d)[a-z0-9]{6,}(?![a-z0-9])", re.IGNORECASE)  # 131368cc17e44240
_PART_ENDS = re.compile(r"(?<=\d)(?=[a-z]$)|[_\-. ()]+", re.IGNORECASE)


@cache  # as below: names are asked for several times, and lists may hold 100,000s
def named_patient(path: str) -> str | None:
    """The patient that a path names by the first of the ``LAYOUTS`` that fits; None: none, or two, as patient7/pt_1."""
    for pattern in _PATTERNS.values():
        if found := [next(filter(None, match.groups())) for match in pattern.finditer(path)]:
            return _DEVICE.sub("", found[-1]) if len({name.lower() for name in found}) == 1 else None
    return None


@cache
def case_of(path: str) -> str:
    """The file name without suffixes, day, modality, view and the like; empty where nothing else is in it."""
    name = _DAY_OF.sub("", stem(path))
    return "" if _SCANS_ONLY.fullmatch(name) else _DEVICE.sub("", _ENDINGS.sub("", name))


@cache
def names_no_patient(folder: str) -> bool:
    """Whether a folder is a word for scans of one patient or for a group of patients."""
    split, rest = split_part(folder)
    return bool(_WORDS_ONLY.fullmatch(folder) or (split and _IMAGES.fullmatch(rest)))


def is_channel(file: str) -> bool:
    """Whether its name has nnU-Net's case and channel, where a case may be one slice of a patient."""
    return bool(_PATTERNS["nnU-Net"].search(file))


def is_date(name: str) -> bool:
    """Whether it is a day such as ``2024-03-01`` or ``20240301``."""
    return bool(_DATE.fullmatch(name))


def is_year(name: str) -> bool:
    """Whether it may be a year, 1900 to 2099."""
    return bool(re.fullmatch(r"(?:19|20)\d\d", name))


def may_be_visit(name: str) -> bool:
    """Whether it may be a time of patients: a letter or two of day, week, month, year, visit and a number, ``M06``."""
    return bool(_VISIT.fullmatch(name))


def without_times(folders: Sequence[str]) -> list[str]:
    """The folders but days, years and what may be a visit."""
    return [folder for folder in folders if not (is_date(folder) or is_year(folder) or may_be_visit(folder))]


def site_of(file: str) -> str:
    """The folder in a path that names a hospital by a number or letter, ``Center_01``; "" where there is none."""
    return next((part for part in file.split("/")[:-1] if _SITE.fullmatch(part)), "")


def is_counter(names: Collection[str]) -> bool:
    """Whether names count from 0 or 1, at most every second number missing, and so may name others elsewhere."""
    found = [re.fullmatch(r"(\D*)(\d+).*", name) for name in names]
    numbers = {int(name[2]) for name in found if name}
    alike = all(found) and len({name[1] for name in found if name}) == 1
    return alike and min(numbers) < 2 and max(numbers) <= 2 * len(numbers)


def repeats_below(folders: Sequence[Sequence[str]]) -> bool:
    """Whether last folders repeat below others that are no words for a split, as 1 of ``AMD/1`` and ``NORMAL/1``."""
    paths = {*map(without_splits, folders)}
    return len({parts[-1] for parts in paths if parts}) < len(paths)


def without_splits(folders: Sequence[str]) -> tuple[str, ...]:
    """The folders that are no word for a split."""
    return tuple(folder for folder in folders if not re.fullmatch(_SPLIT, folder, re.IGNORECASE))


def without_groups(folders: Sequence[str]) -> Sequence[str]:
    """The folders up to the last that may be a patient, ``Center_01/P7`` of ``Center_01/P7/Raw``; or all."""
    last = max((place for place, folder in enumerate(folders, 1) if not names_no_patient(folder)), default=None)
    return folders[:last]


def without_scans(folders: Sequence[str]) -> tuple[str, ...]:
    """The folders that are no word for one of several scans of a patient."""
    return tuple(folder for folder in folders if not _is_scan(folder))


@cache
def _is_scan(folder: str) -> bool:
    return bool(_SCANS_ONLY.fullmatch(folder))


def prefix_of(case: str, count: int) -> str:
    """The first ``count`` parts of a name, between which ``_ - . ( )``, a blank or a last letter stand."""
    ends = [found.start() for found in _PART_ENDS.finditer(case) if 0 < found.start() <= found.end() < len(case)]
    return case[: ends[count - 1]] if len(ends) >= count else case


def count_prefix(cases: Collection[str]) -> int:
    """How many parts of the names may be a patient of several images; 0: no doubt that each name is one.

    These are the fewest parts that several names share, and that differ from those of others by a number or code alone.
    """
    if all(map(is_date, cases)):
        return 0
    for count in (1, 2, 3):
        shared = Counter(prefix_of(case, count) for case in set(cases))
        forms = {start: shape_of(_CODE.sub("#", start)) for start in shared}
        shapes = Counter(forms.values())
        patients = [start for start in shared if shared[start] > 1 and not names_no_patient(start)]
        if any(forms[start] != start and shapes[forms[start]] > 1 for start in patients):
            return count
    return 0


def shape_of(name: str) -> str:
    """A name with a sign in place of each number."""
    return re.sub(r"\d+", "#", name)


def match_names(keys: Sequence[str], maps: Sequence[tuple[str, str]]) -> list[list[str]]:
    """The label maps that each image may have, by the first of ``_TIERS`` in which there is any.

    Where there is none, those of which the name begins with that of the image, as ``IDRiD_01_MA`` of ``IDRiD_01``; and
    where no image has any, those named as the folder of the image, or further below it where it is alone there, else
    those that are alike from the first digit on, as ``liver-seg001`` and ``liver-orig001``.

    Args:
        keys: names of the images, with their folders.
        maps: the same of each label map, and its file.
    """
    choices: list[list[str]] = [[] for _ in keys]
    for name in _TIERS:
        _match_nearest(keys, maps, choices, name)
    for alone in (False, True):  # in the same folder, then anywhere
        _match_starts(keys, maps, choices, alone)
    if not any(choices):
        _match_nearest([*map(_folder_of, keys)], maps, choices, _stem_of)
        crowd = Counter(map(_folder_of, keys))
        own = [_folder_of(key) if "/" in key and crowd[_folder_of(key)] == 1 else key for key in keys]
        folders = {*own}
        _match_nearest(own, [(_folder_within(key, folders), file) for key, file in maps], choices, str)
    if not any(choices):
        _match_nearest(keys, maps, choices, _from_number)
    return choices


def _match_nearest(
    keys: Sequence[str], maps: Sequence[tuple[str, str]], choices: Sequence[list[str]], name: Callable[[str], str]
) -> None:
    """Add label maps of the same name to images that have none so far: of several those that share most folders."""
    claimed, crowd = {file for choice in choices for file in choice}, Counter(map(name, keys))
    named = {file: key for key, file in maps}
    images, others = defaultdict[str, dict[int, set[str]]](dict), defaultdict[str, dict[str, set[str]]](dict)
    for index, key in enumerate(keys):
        if not choices[index] and (name is not _folder_of or crowd[name(key)] == 1):
            images[name(key)][index] = {*key.split("/")[:-1]}
    for key, file in maps:
        if file not in claimed:
            others[name(key)][file] = {*key.split("/")[:-1]}
    for same, own in images.items():
        if rivals := others.get(same):
            for index, files in _find_nearest(own, rivals).items():
                choices[index] += [file for file in files if not _are_apart(keys[index], named[file])]


def _are_apart(image: str, label_map: str) -> bool:
    """Whether the names of both say a side, time, phase or device, and another one: 12_L and 12_R."""
    one, other = ({word.lower() for word in _OWN_MAPS.findall(stem(key + ".x"))} for key in (image, label_map))
    return bool(one and other and one != other)


def _find_nearest(images: Mapping[int, set[str]], maps: Mapping[str, set[str]]) -> dict[int, list[str]]:
    """The label maps of each image that share most folders with it, and for which no other image shares more."""
    everywhere, holders = set.intersection(*images.values(), *maps.values()), defaultdict[str, list[str]](list)
    for file, folders in maps.items():
        for folder in folders - everywhere:
            holders[folder].append(file)
    shared = {i: Counter(file for folder in images[i] & holders.keys() for file in holders[folder]) for i in images}
    most = Counter[str]()
    for counts in shared.values():
        most |= counts  # the larger of both
    alone = [file for file in maps if file not in most]
    nearest = {}
    for index, counts in shared.items():
        top = max(counts.values(), default=0)
        nearest[index] = sorted(file for file in counts if counts[file] == top == most[file]) if top else alone
    return nearest


def _match_starts(
    keys: Sequence[str], maps: Sequence[tuple[str, str]], choices: Sequence[list[str]], alone: bool
) -> None:
    """Add label maps of which the name begins with that of one image alone, which has none so far."""
    claimed = {file for choice in choices for file in choice}
    starts, begun = starts_of(keys, alone), defaultdict[str, list[tuple[str, str]]](list)
    crowd = Counter(start for own in starts for start in own)
    for key, file in maps:
        start = begins_with(_stem_of(key) if alone else _short(key), crowd)
        if crowd[start] == 1 and file not in claimed:
            begun[start].append((key, file))
    for image, own, choice in zip(keys, starts, choices, strict=True):
        found = [] if choice else [pair for start in own for pair in begun[start]]
        choice += [file for key, file in found if not _are_apart(image, key)]


def find_longer(files: Sequence[str]) -> set[str]:
    """Files named as one beside them and a further word of no scan: ``case1_kidney`` beside ``case1``."""
    beside: dict[str, set[str]] = defaultdict(set)
    for file in files:
        beside[_folder_of(file)].add(stem(file))
    starts = {file: begins_with(stem(file), beside[_folder_of(file)]) for file in files}
    return {
        file
        for file, start in starts.items()
        if start and case_of(file) != start and not stem(file)[len(start) :].strip("_-. ").isdecimal()
    }


def starts_of(keys: Sequence[str], alone: bool = True) -> list[set[str]]:
    """What names of label maps begin with: the name of each image, and its case where no other image is of it.

    Args:
        keys: names of the images, with their folders.
        alone: without folders.
    """
    name, case = (_stem_of, _case_alone) if alone else (_short, _case_of)
    crowd = Counter(map(case, keys))
    return [{name(key)} | ({case(key)} if crowd[case(key)] == 1 else set()) for key in keys]


def begins_with(name: str, starts: Collection[str]) -> str:
    """The longest of the starts that a name begins with, before a sign between words; "" if none."""
    ends = [found.start() for found in re.finditer(_GAP, name) if 0 < found.start() < found.end() < len(name)]
    return next((name[:end] for end in reversed(ends) if name[:end] in starts), "")


def split_names(names: str | Sequence[object] | None) -> list[str]:
    """Names that a command line gives as ``flair,t1`` or a list."""
    return [str(name).strip() for name in (names.split(",") if isinstance(names, str) else names or [])]


def join_modalities(
    images: Sequence[Image], modalities: Sequence[str]
) -> tuple[list[Image], list[tuple[Image, str]], int]:
    """Images of one file a modality, in its order; files that miss others, with the reason; the number of all others.

    Files belong together where their paths are the same but for the modality, a word of the file name or of a folder,
    or both, as ``pre/FLAIR``.

    Raises:
        InputError: if one is a DICOM series.
    """
    words = {name: re.compile(rf"(?<![a-z0-9]){re.escape(name)}(?![a-z0-9])", re.IGNORECASE) for name in modalities}
    any_word = re.compile("|".join(word.pattern for word in words.values()), re.IGNORECASE)
    cases: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for file in map(first_file, images):
        folder, name = file[: file.rindex(stem(file))], stem(file)
        named = [word for word in modalities if words[word].search(folder + name if "/" in word else name)]
        if named := named or [word for word in modalities if words[word].search(folder)]:
            folder = any_word.sub("*", folder)  # dwi/x_adc is of dwi/x_dwi, and T2/x of T1/x
            word = words[named[0]]
            cases[word.sub("*", folder + name) if "/" in named[0] else folder + word.sub("*", name)][named[0]].append(
                file
            )
    joined, broken = list[Image](), list[tuple[Image, str]]()
    for case in cases.values():
        files = [file for own in case.values() for file in own]
        if series := [file for file in files if is_series(file)]:
            raise InputError(
                f"modalities joins files, and {series[0]} begins a DICOM series; convert series to NIfTI, such as by "
                "dcm2niix, and resample those of a case to one grid."
            )
        if [len(case[name]) for name in modalities] == [1] * len(modalities):
            joined.append([case[name][0] for name in modalities])
        else:
            counts = ", ".join(f"{len(case[name])} of {name}" for name in modalities)
            broken += [(file, f"{file} needs one file of each modality beside it, found {counts}.") for file in files]
    return joined, broken, len(images) - sum(len(own) for case in cases.values() for own in case.values())


def _short(key: str) -> str:
    """Without the words of label maps, of images and nnU-Net's channel 0."""
    above, _, name = key.rpartition("/")
    return f"{above}/{_IMAGE_WORDS.sub('', without_map_words(name))}"


def _stem_of(key: str) -> str:
    return _short(key).rpartition("/")[2] or key


def _from_number(key: str) -> str:
    """From the first digit of the name on, or the key where there is none."""
    return re.sub(r"^\D+", "", key.rpartition("/")[2]) or key


def _case_of(key: str) -> str:
    above, _, name = _short(key).rpartition("/")
    return f"{above}/{case_of(name + '.x') if name else ''}"


def _case_without_scans(key: str) -> str:
    above, _, case = _case_of(key).rpartition("/")
    return "/".join((*without_scans(above.split("/")), case))


def _case_alone(key: str) -> str:
    return _case_of(key).rpartition("/")[2] or key


def _folder_of(key: str) -> str:
    return key.rpartition("/")[0]


def _folder_within(key: str, folders: Collection[str]) -> str:
    """The nearest of the folders that a key lies below, or the key."""
    ends = [found.start() for found in re.finditer("/", key)]
    return next((key[:end] for end in reversed(ends) if key[:end] in folders), key)


_TIERS: tuple[Callable[[str], str], ...] = (  # what partners share
    *(str, _short, _stem_of, _case_of, _case_without_scans, _case_alone, _folder_of),
)
