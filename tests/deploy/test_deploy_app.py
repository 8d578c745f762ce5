"""The bundle of a run in a MONAI Deploy application, DICOM series in, DICOM segmentation out: ``make deploy-test``."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("monai.deploy.core", reason="monai-deploy-app-sdk is not installed here; make deploy-test has it")

import highdicom as hd
import nibabel as nib
import pydicom
from deploy import app
from finetune_bundle import overrides, train, write_data
from monai.deploy.core import Fragment
from monai.deploy.operators.dicom_data_loader_operator import DICOMDataLoaderOperator
from monai.deploy.operators.dicom_series_selector_operator import DICOMSeriesSelectorOperator
from monai.deploy.operators.dicom_series_to_volume_operator import DICOMSeriesToVolumeOperator
from pages import ROOT, commands
from scan_files import bare, write_series

from dira_monai.apps.infer import infer
from dira_monai.utils.errors import InputError

RUN = "bundles/dira_finetune_segmentation_3d/output"  # as the page has it
STUDY = {
    "FrameOfReferenceUID": "1.2.9",
    "StudyID": "1",
    "StudyDate": "20260101",
    "StudyTime": "120000",
    "SliceThickness": 2.5,
} | dict.fromkeys(["PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber", "ReferringPhysicianName"], "")
UNSIGNED = {"PixelRepresentation": 0, "BitsStored": 12, "HighBit": 11}
SLOPES = [1, 0.25, 0.5, 1, 0.25, 0.5, 1, 0.25]


def phantom(first_above_0=False):
    """Stored values of 8 slices of 36 x 40 pixels, HU + 1024: a ball in noise."""
    grid = np.stack(np.meshgrid(np.arange(8), np.arange(36), np.arange(40), indexing="ij"))
    steps = np.array([2.5, 0.5, 0.75])  # mm, as scan_files writes them
    distance = np.linalg.norm((grid - np.array([4, 20, 16]).reshape(3, 1, 1, 1)).T * steps, axis=-1).T
    hu = 900 * (distance < 7) + 400 * (distance < 4) - 400 + np.random.default_rng(0).normal(0, 80, distance.shape)
    if first_above_0:
        hu[0] = abs(hu[0]) + 1
    return (hu.clip(-1024, 2000) + 1024).astype(np.int16)


def write_ct(folder):
    """Values of the scanner and of the stock operator, of which the first slice chooses uint16."""
    write_series(folder, phantom(True), **STUDY)
    return phantom(True) - 1024.0, (phantom(True) - 1024.0) % 65536


def write_inverted(folder):
    """MONOCHROME1, which the stock operator leaves as it is stored."""
    stored = (4095 - phantom()).astype(np.int16)
    write_series(folder, stored, **STUDY, **UNSIGNED, PhotometricInterpretation="MONOCHROME1")
    return phantom() - 1024.0, stored - 1024.0


def write_pet(folder):
    """A slope for each slice, of which the first chooses whole numbers in the stock operator."""
    for path, slope in zip(write_series(folder, phantom(), **STUDY), SLOPES, strict=True):
        data = pydicom.dcmread(path)
        data.Modality, data.RescaleSlope, data.RescaleIntercept = "PT", slope, 0
        data.save_as(path)
    values = phantom() * np.reshape(SLOPES, (8, 1, 1))
    return values, np.floor(values)


SERIES = {"CT": write_ct, "MONOCHROME1": write_inverted, "PET": write_pet}


@pytest.fixture
def rules(monkeypatch):
    """Any modality is selected."""
    monkeypatch.setattr(app, "RULES", app.RULES.replace('"CT"', '"CT|PT"'))
    return app.RULES


def select(folder):
    """The series of a folder as the loader and the selector hand it on."""
    fragment = Fragment()
    studies = DICOMDataLoaderOperator(fragment, input_folder=folder, name="load").load_data_to_studies(folder)
    chosen = DICOMSeriesSelectorOperator(fragment, rules=app.RULES, all_matched=True, name="select")
    return chosen.filter(chosen._load_rules(), studies, True)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Output folder of a short training, whose bundle has model.ts by the command of the page."""
    folder, kind = tmp_path_factory.mktemp("run"), ("segmentation", 3)
    scans = {3: write_data(folder / "scans", 3, 8)}
    train(kind, overrides(kind, scans, folder, learning_rate=0.01, max_epochs=4, epoch_length=4))
    (words,) = [words for words, whole in commands(ROOT / "docs/deploy.md") if whole and "ckpt_export" in words]
    words = [sys.executable, *(word.replace(RUN, str(folder / "out")) for word in words[1:])]
    subprocess.run(words, check=True, cwd=folder, env=os.environ | {"PYTHONPATH": ""})
    return folder / "out"


def run_app(trained, series, output):
    """The segmentation that the application writes."""
    output.mkdir()
    model = trained / "bundle/models/model.ts"
    app.SegmentationApp([sys.executable, "app", "-i", str(series), "-m", str(model), "-o", str(output)]).run()
    (file,) = output.iterdir()
    return hd.seg.segread(file)


def with_reader(bundle, folder):
    """A copy as of a training by this package's reader: MONAI's own gives a PET the number type of its first slice."""
    shutil.copytree(bundle, folder, ignore=shutil.ignore_patterns("run.json"))
    config = folder / "configs/inference.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"reader": "dira_monai.ScanReader"}))
    return folder


def on_grid(seg, image):
    """Class numbers of a segmentation on the voxels of an image, each pixel by its position in mm."""
    labels, inverse = np.zeros(image.shape, np.uint8), np.linalg.inv(image.affine)
    shared = seg.SharedFunctionalGroupsSequence[0]
    along = np.reshape(shared.PlaneOrientationSequence[0].ImageOrientationPatient, (2, 3)).astype(float)
    between_rows, between_columns = map(float, shared.PixelMeasuresSequence[0].PixelSpacing)
    rows, columns = np.mgrid[: seg.Rows, : seg.Columns]
    for group, pixels in zip(seg.PerFrameFunctionalGroupsSequence, seg.pixel_array, strict=True):
        origin = np.array(group.PlanePositionSequence[0].ImagePositionPatient, float)
        steps = columns[..., None] * between_columns * along[0] + rows[..., None] * between_rows * along[1]
        ras = (origin + steps) * [-1, -1, 1]
        voxels = ras @ inverse[:3, :3].T + inverse[:3, 3]
        np.testing.assert_allclose(voxels, voxels.round(), atol=1e-3)
        places = tuple(voxels.round().astype(int)[pixels > 0].T)
        assert not labels[places].any()  # segments do not overlap
        labels[places] = group.SegmentIdentificationSequence[0].ReferencedSegmentNumber
    return labels


@pytest.mark.parametrize("name", SERIES)
def test_the_segmentation_has_the_voxels_of_infer(name, trained, rules, tmp_path):
    SERIES[name](tmp_path / "series")
    seg = run_app(trained, tmp_path / "series", tmp_path / "results")
    bundle = with_reader(trained / "bundle", tmp_path / "other") if name == "PET" else trained
    table = infer(bundle, [tmp_path / "series"], output_dir=str(tmp_path / "own"), device="cpu")
    image = nib.load(table.output_dir / table.rows[0].output)
    expected = np.asarray(image.dataobj)
    assert image.shape == (40, 36, 8)
    assert len(np.unique(expected)) > 1  # else any place would do
    np.testing.assert_array_equal(on_grid(seg, image), expected)
    sources = {pydicom.dcmread(file).SOPInstanceUID for file in (tmp_path / "series").iterdir()}
    referenced = seg.ReferencedSeriesSequence[0].ReferencedInstanceSequence
    assert {item.ReferencedSOPInstanceUID for item in referenced} <= sources
    assert [item.SegmentLabel for item in seg.SegmentSequence] == ["blob", "core"]


@pytest.mark.parametrize("name", SERIES)
def test_values_and_places_are_those_of_the_scanner_where_those_of_the_stock_operator_are_not(name, rules, tmp_path):
    expected, wrong = SERIES[name](tmp_path / "series")
    affine = np.array([[-0.75, 0, 0, 10], [0, -0.5, 0, -20], [0, 0, 2.5, 5], [0, 0, 0, 1]])  # columns, rows, slices
    ours = app.read_selected(select(tmp_path / "series"))
    np.testing.assert_array_equal(ours.asnumpy(), expected.T)
    np.testing.assert_allclose(ours.metadata()["affine"], affine, atol=1e-6)
    stock = DICOMSeriesToVolumeOperator(Fragment(), name="stock").convert_to_image(select(tmp_path / "series"))
    assert (wrong != expected).any()
    np.testing.assert_array_equal(stock.asnumpy(), wrong)
    np.testing.assert_allclose(np.diag(stock.metadata()["affine"]), [-0.5, -0.75, 2.5, 1])  # rows and columns exchanged


def test_slices_of_the_selected_series_end_in_the_order_of_the_volume(tmp_path):
    write_ct(tmp_path / "series")
    chosen = select(tmp_path / "series")
    app.read_selected(chosen)
    slices = chosen[0].selected_series[0].series.get_sop_instances()
    depths = [item.get_native_sop_instance().ImagePositionPatient[2] for item in slices]
    assert depths == [5 + 2.5 * number for number in range(8)]


def write_two(folder):
    write_series(folder, phantom(), **STUDY, series="1.1")
    write_series(folder, phantom(), **STUDY, series="1.2")


def write_part(folder):
    """One slice without preamble, which the loader leaves out."""
    last = write_series(folder, phantom(), **STUDY)[-1]
    bare(last, last.with_name("bare"))


REFUSED = {
    "two series": (write_two, "expected one series that fits the rules, got 2"),
    "slice without preamble": (write_part, r"expected one volume of 7 slices, got volumes of \[8\]"),
    "one slice": (lambda folder: write_series(folder, phantom()[:1], **STUDY), "expected slices of one channel"),
    "uneven": (
        lambda folder: write_series(folder, phantom(), [0, 2, 4, 6, 9, 12, 15, 18], **STUDY),
        "uneven slice gaps of 2 to 3 mm",
    ),
    "tilted": (
        lambda folder: write_series(folder, phantom(), shift=(0, -0.25, 0), **STUDY),
        "expected an upright series, got: ",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_whole_upright_series_is_refused(name, tmp_path):
    write, words = REFUSED[name]
    write(tmp_path / "series")
    with pytest.raises((ValueError, InputError), match=words):
        app.read_selected(select(tmp_path / "series"))


def test_a_refusal_ends_the_application_without_a_segmentation(trained, tmp_path):
    write_two(tmp_path / "series")
    with pytest.raises(ValueError, match="expected one series that fits the rules, got 2"):
        run_app(trained, tmp_path / "series", tmp_path / "results")
    assert list((tmp_path / "results").iterdir()) == []


@pytest.mark.parametrize("reader", ["NibabelReader", {"_target_": "ITKReader", "reverse_indexing": True}])
def test_a_bundle_with_another_reader_is_refused(reader):
    with pytest.raises(ValueError, match=r"expected a bundle with the reader null or dira_monai\.ScanReader, got"):
        app.check_reader(reader)
