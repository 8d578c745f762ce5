"""Run the commands of README and docs as they are written, in a folder of their own.

    PYTHONPATH=tests/helpers python tests/docs/run_docs.py OUT [PAGE ...]

``OUT/work`` gets a copy of the bundles whose trainings are short, and synthetic scans under the names that the pages
use (DIR, scan.png, boxes.csv, ...); ``OUT/log`` gets what each block of commands wrote. The READMEs train the bundles,
and each page of docs begins with what they left. Long runs on real scans are cut short, and skipped where DIRA_DATA
names no folder of them. What needs a network, other machines or an environment of its own is named with the test or the
make target that runs it. The notebooks of docs are run from top to bottom.
Needs 16 GB, of which the log stays. Ends with status 1 if a block fails; then ``OUT/work``
stays too.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import nibabel as nib
import numpy as np
import SimpleITK
import torch
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from pages import ASSIGNMENT, PAGES, ROOT, blocks
from PIL import Image
from reference import filled, layout
from scan_files import write_series

from dira_monai.utils.files import sha256

DATA = Path(os.environ.get("DIRA_DATA", ROOT.parent / "shared/data")).resolve()
SHORT = {
    "max_epochs": 1,
    "epoch_length": 1,
    "batch_size": 4,
    "val_samples": 4,
    "queue_size": 8,
    "validation_fraction": 0.34,
    "test_fraction": 0.25,
    "warmup_epochs": 0,
}
SIZES = {2: (64, 64), 3: (32, 32, 16)}
REPLACED = {
    r"(--(?:max_epochs|epoch_length|label_subsets)) \d+": r"\1 1",
    r"(dira_monai plan) SET\b": r"\1 DIR",
    r"(dira_monai plan DIR.*)--output": r"\1--overrides '{{max_epochs: 1, epoch_length: 1, val_samples: 4}}' --output",
    r"(dira_monai plan LABELED.*)--output": r"\1--overrides '{{max_epochs: 1, epoch_length: 1}}' --output",
    r"(--nproc_per_node)=4": r"\1=2",
    r'(--stage_epochs) "\[.*?\]"': r'\1 "[0, 0, 1]"',
    r"\bLABELMAP\b": "LABELMAP.nii.gz",
    r"\bIMAGES\.\.\.": "scan.nii.gz",
    r"\bSERIES\.\.\.": "SERIES",
    r"(?<=\")RUN/bundle": "RUN/output/bundle",
    r"/path(?=/dira)|/PATH|(?<=file://)DIR": "{out}",
    r"(?ms)(^cd .*--dataset_dir) DIR": r"\1 {out}/DIR",
    r"\bNAME\b": "dira_pretrain_3d",
    r"(dira_monai infer) (BUNDLE|RUN)\b": r"\1 RUN1/output",
    r"(?m)^(python -m dira_monai) scores RUN1/output": r"\1 evaluate RUN1/output\n\1 scores RUN1/output",
    r"(?m)^torchrun (?=--nnodes)": "srun torchrun ",
    r"(--nnodes\S+ --nproc_per_node)=8": r"\1=1",
    r"(?<==)HOST0:": "127.0.0.1:",
    r"(federation.py DIR .*)": r"\1 --share 1 --label_fraction 1 --rounds 1 --random 1 --classes none nodule",
    r"(benchmarks/throughput.py)(?! --only)": r"\1 --only views step",
    r"(benchmarks/throughput.py .*)": r"\1 --seconds 0.1 --rounds 1 --batch_size 2 --gigabytes 0.02",
}
HOSTS = """
SLURM_NNODES=2 SLURM_JOB_ID=1 SLURM_JOB_NODELIST=HOSTS
scontrol() { echo 127.0.0.1; }
srun() { "$@" & "$@" && wait $!; }
"""  # for Slurm's: this machine is both hosts
ELSEWHERE = {
    r"git clone|(\S*/)?pip install|hf auth|python3.11 -m venv": "make .venv/installed and make label-test set up so",
    r"make ": "a make target",
    r"(run|tuned|result) = dira_monai|dira_monai.evaluate|print.result": "docs/first_steps.ipynb, on phantoms",
    r"dira-monai ": "tests/test_wheel.py and tests/workflows, with short trainings",
    r"deploy/bin/": "make deploy-test",
    r"label/bin/python|(mkdir|cp) .*app/|curl ": "make label-test",
    r".*(huggingface|push_to_hf_hub|verify zoo/)": "tests/sharing/test_archive_elsewhere.py, without the network",
    r".*verify_metadata": "tests/bundles/test_zoo.py, with a copy of the schema",
    r".*(visual-words bundles|--words_dir)": "tests/apps/test_visual_words.py, with fewer words",
    r".*--layout nnunet|nnUNetv2_train": "tests/weights/test_nnunet.py, with networks and files of nnU-Net",
    r".*--teacher ": "tests/bundles/test_overlays.py, with a tiny teacher",
    r".*benchmarks/(compare|gpu|tables).py": "make bench, and tests/docs/test_speed_benchmarks.py",
    r".*throughput.py --device cuda": "the line before it, without a GPU",
    r"systemd-run": "the line before it, without a limit of memory",
}
BUNDLES = {"pretraining": "dira_pretrain_3d", "zoo": "dira_pretrain_2d", "finetuning": "dira_finetune_segmentation_3d"}


# synthetic scans


def write_scan(file, values):
    """PNG of 8 bits, or NIfTI with voxels of 1.5 mm."""
    file.parent.mkdir(parents=True, exist_ok=True)
    if values.ndim == 2:
        Image.fromarray(values.astype(np.uint8)).save(file)
    else:
        nib.save(nib.Nifti1Image(values.astype(np.int16), np.diag([1.5, 1.5, 1.5, 1])), file)


def write_scans(folder, dims, classes):
    """Sixteen patients: a ball in noise in each image, its label map, a table of classes; boxes of the test images.

    Images and label maps lie there twice: in ``images`` and ``labels``, and as MONAI Label leaves them in ``studies``.
    """
    rng = np.random.default_rng(0)
    grid = np.stack(np.meshgrid(*[np.arange(n) - n / 2 for n in (72, 72, 32)[:dims]], indexing="ij"))
    labels, boxes = ["file,label,patient,split"], ["file,finding,x,y,w,h"]
    for case in range(16):
        name = f"case{case}.{'png' if dims == 2 else 'nii.gz'}"
        split = "train" if case < 10 else "val" if case < 12 else "test"
        ball = (grid**2).sum(0) < (8 + 6 * (case % 2)) ** 2
        gray = 120 + 60 * ball + rng.normal(0, 10, ball.shape)
        labels.append(f"{name},{classes[case % 2]},{case},{split}")
        maps = ["labels", "studies/labels/final"]
        if split == "test":
            boxes.append(f"{name},{classes[case % 2]},24,24,24,24")
            maps.append("boxed")
        for images in ("images", "studies"):
            write_scan(folder / images / name, gray if dims == 2 else 8 * gray - 1000)
        for place in maps:
            write_scan(folder / place / name, 255 * ball if dims == 2 else ball)
    (folder / "labels.csv").write_text("\n".join(labels) + "\n")
    (folder / "boxes.csv").write_text("\n".join(boxes) + "\n")


def write_dicom(folder):
    """A series, and label maps of one and of two organs on its voxels."""
    stored = np.random.default_rng(0).integers(900, 1200, (8, 16, 16)).astype(np.int16)
    write_series(folder / "series", stored, FrameOfReferenceUID="1.2.5")
    image = SimpleITK.ReadImage(SimpleITK.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder / "series")))
    for organs in (1, 2):
        labels = SimpleITK.GetImageFromArray(sum((stored > 1000 + 100 * i).astype(np.uint8) for i in range(organs)))
        labels.CopyInformation(image)
        SimpleITK.WriteImage(labels, str(folder / f"organs{organs}.nii.gz"))


# the folder in which the commands run


def shorten(config):
    """Few steps of small patches, where the config has numbers for them."""
    values = json.loads(config.read_text())
    size = list(SIZES[2 if "2d" in config.parts[-3] else 3])
    short = SHORT | {"patch_size": size, "image_size": size}
    values |= {key: short[key] for key in short if isinstance(values.get(key), int | float | list)}
    config.write_text(json.dumps(values, indent=4))


def prepare(out):
    """The bundles with short trainings, files under the names of the pages, and real scans where there are any."""
    ignore = shutil.ignore_patterns("models", "output", "__pycache__")
    shutil.copytree(ROOT / "bundles", out / "bundles", ignore=ignore)
    for config in out.glob("bundles/*/configs/*.json"):
        shorten(config)
    write_dicom(out / "data")
    torch.save({"state_dict": filled(layout("models_genesis_unet3d_keys.json"), 1)}, out / "FILE")
    large = {"path": "models/large.pt", "url": (out / "FILE").as_uri(), "hash_val": sha256(out / "FILE")}
    listed = {"large_files": [large | {"hash_type": "sha256"}]}
    (out / "bundles" / BUNDLES["zoo"] / "large_files.json").write_text(json.dumps(listed))
    for name in ("BUNDLE", "RUN", "dira_pretrain_3d"):
        link(out / name, out / "bundles/dira_pretrain_3d")
    link(out / "benchmarks", ROOT / "benchmarks")
    link(out / "MODELS", out / "bundles/dira_pretrain_3d/models")
    for name in ("RUN1", "RUN2"):
        link(out / name, out / "bundles/dira_finetune_segmentation_3d")
    for folder in DATA.iterdir() if DATA.is_dir() else ():
        link(out / folder.name, folder)


def link(path, target):
    path.unlink(missing_ok=True)
    path.symlink_to(target)


def place_scans(out, folder, text, dims):
    """Scans of the kind that the commands are about, in ``folder`` under the names that the pages use.

    They lie in ``out`` too, where the lists of earlier blocks may have found them.
    """
    named = re.search(r"class_names[\W]*\[(.*?)\]", text)
    classes = re.findall(r"\w+", named[1]) if named else ["none", "nodule"]
    scans = out / "data" / "-".join((f"{dims}d", *classes))
    if not scans.exists():
        write_scans(scans, dims, classes)
    labeled = re.search("labeled|finetune|class_names|localize|DIR/|benchmarks|RUN1", text) and "LABELED" not in text
    places = {
        "DIR": scans if labeled else scans / "images",
        "LABELED": scans,
        "SCANS": scans / "studies",
        "MASKS": scans / "boxed",
        "boxes.csv": scans / "boxes.csv",
        ("scan.png", "scan.nii.gz")[dims - 2]: next((scans / "images").iterdir()),
        "SERIES": out / "data/series",
        "LABELMAP.nii.gz": out / f"data/organs{len(classes) - 1}.nii.gz",
    }
    links = {place / name: target for place in {out, folder} for name, target in places.items()}
    for path, target in links.items():
        link(path, target)
    return list(links)


def workplace(out, page, text):
    """Folder in which the page wants its commands to run: the root, or that of a bundle."""
    if page.parts[-4:-3] == ("bundles",):
        return out / "bundles" / page.parts[-3]
    inside = re.search(r"(?<![/\w])configs/|bundle_path", text) and "cd " not in text
    return out / "bundles" / BUNDLES[page.stem] if inside else out


# running


def script(text, out):
    """The lines to run here, with short trainings, and those that another test runs, with its name."""
    run, left = [], {}
    for line in re.sub(r"\\\n\s*", " ", text).splitlines():
        reason = next((why for pattern, why in ELSEWHERE.items() if re.match(pattern, line)), None)
        if reason:
            left[line] = reason
        else:
            run.append(line)
    short = "\n".join(run)
    for pattern, replacement in REPLACED.items():
        short = re.sub(pattern, replacement.format(out=out), short)
    return short, left


def execute(language, text, folder, log):
    """Exit status of the block, run as a whole by bash or Python; what it writes goes to the log."""
    words = ["bash", "-eo", "pipefail", "-c"] if language == "bash" else [sys.executable, "-c"]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "OMP_NUM_THREADS": "1", "TMPDIR": str(log.parents[1] / "temporary")}
    environment["PYTHONDONTWRITEBYTECODE"] = "1"  # compiled code would be refused in a folder that is verified
    with log.open("w") as file:
        file.write(f"{text}\n\n")
        file.flush()
        try:
            return subprocess.run(
                [*words, text],
                cwd=folder,
                env=environment,
                stdout=file,
                stderr=subprocess.STDOUT,
                timeout=900,
                check=False,
            ).returncode
        except subprocess.TimeoutExpired as error:
            file.write(f"\n{error}\n")
            return 124


def pieces(page):
    """Blocks of the page and, of its text, the whole commands of the package: language, line and text of each."""
    yield from blocks(page)
    for number, line in enumerate(page.read_text().splitlines(), 1):
        for code in re.findall(r"`(python -m dira_monai [a-z-]+ [^`]+)`", line):
            yield "bash", number, code


def run_page(out, page, logs):
    """Number of blocks that failed."""
    failed = 0
    name = str(page.relative_to(ROOT))
    variables = ""
    if page.stem == "results" and not DATA.is_dir():
        print(f"        {name}: needs the real scans that DIRA_DATA names")
        return 0
    for language, number, text in pieces(page):
        folder = workplace(out, page, text)
        flat = re.search("2d|benchmarks/", re.sub(r"#.*", "", f"{folder} {text}"))
        places = place_scans(out, folder, text, 2 if flat else 3)
        short, left = script(text, out)
        for line, why in left.items():
            print(f"        {name}:{number}: {line[:60]}: {why}", flush=True)
        if not short.strip():
            continue
        started = time.monotonic()
        log = logs / f"{name.replace('/', '_')}-{number}.txt"
        status = execute(language, variables + HOSTS + short if language == "bash" else short, folder, log)
        for file in (*places, *out.glob("bundles/*/models/*.ts")):  # no part of a bundle that is shared
            file.unlink(missing_ok=True)
        print(f"{'ok  ' if status == 0 else 'FAIL'} {time.monotonic() - started:4.0f} s {name}:{number}", flush=True)
        failed += status != 0
        variables += "".join(f"{line}\n" for line in short.splitlines() if ASSIGNMENT.fullmatch(line))
    return failed


def run_notebook(file, logs, temporary):
    """1 if a cell fails, else 0; the notebook with what its cells gave goes to the log."""
    notebook = nbformat.read(file, as_version=4)
    started = time.monotonic()
    failed = 0
    try:
        NotebookClient(notebook, timeout=900).execute(env=os.environ | {"TMPDIR": str(temporary)})
    except CellExecutionError as error:
        print(error)
        failed = 1
    nbformat.write(notebook, logs / file.name)
    print(f"{'FAIL' if failed else 'ok  '} {time.monotonic() - started:4.0f} s {file.relative_to(ROOT)}", flush=True)
    return failed


def order(page):
    """README first, then pre-training before the bundles that take its weights, then docs."""
    starts = ("README.md", "bundles/dira_pretrain", "bundles/", "docs/")
    return next(i for i, start in enumerate(starts) if str(page.relative_to(ROOT)).startswith(start))


def begin_with(work, trained):
    """Make ``work`` what it was when this was called first, of which ``trained`` keeps a copy.

    Without the STORE of another page: it may have other settings.
    """
    if not trained.exists():
        shutil.copytree(work, trained, symlinks=True, ignore=shutil.ignore_patterns("STORE"))
    shutil.rmtree(work)
    shutil.copytree(trained, work, symlinks=True)


def main(out, *names):
    work, trained, logs, temporary = (Path(out).resolve() / name for name in ("work", "trained", "log", "temporary"))
    logs.mkdir(parents=True)
    temporary.mkdir()
    prepare(work)
    failed = 0
    for page in sorted(PAGES, key=order):
        if not names or str(page.relative_to(ROOT)) in names:
            if page.parent == ROOT / "docs":
                begin_with(work, trained)
            failed += run_page(work, page, logs)
    for file in sorted((ROOT / "docs").glob("*.ipynb")):
        if not names or str(file.relative_to(ROOT)) in names:
            failed += run_notebook(file, logs, temporary)
    for folder in (trained, temporary, *(() if failed else (work,))):
        shutil.rmtree(folder, ignore_errors=True)
    print(f"{failed} blocks failed; what each wrote is in {logs}")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
