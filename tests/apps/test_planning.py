"""The plan: each rule against its formula, and trainings by the plan of a folder, without a warning."""

import json
import logging
import math
import re
import warnings
from functools import partial

import finetune_bundle
import numpy as np
import pretrain_bundle
import pytest
import torch

from dira_monai.apps.planning import images, plan, planner, schedule
from dira_monai.apps.planning.facts import DataFacts, DeviceFacts, NetworkFacts
from dira_monai.phantoms import chest
from dira_monai.utils.errors import InputError

NETWORK = NetworkFacts(factor=(16, 16, 16), unit=(16, 16, 16), least=32, bytes_per_voxel=8000)
# docs/troubleshooting.md
SAID_BY_MONAI = ("parsing config_file", "Not all config files are in", "nvImageCodec")
CPU = DeviceFacts("cpu", 16 * 2**30)


def facts(shapes, spacings=None, ranges=((0, 100),), pictures=False, training=10):
    spacings = None if spacings is None else np.array(spacings, float)
    return DataFacts(np.array(shapes), spacings, np.array(ranges, float), training, 2, pictures, {})


@pytest.mark.parametrize(
    ("shape", "ranges", "expected"),
    [
        ((64, 64, 64), [[-1024, 1500], [-2000, 3071], [-1000, 400]], [-1000, 1000]),  # HU
        ((64, 64, 64), [[0, 900], [0, 2500]], "$None"),  # MR
        ((64, 64, 64), [[0, 255], [0, 255]], "$None"),  # MR of 8 bits
        ((64, 64), [[0, 255], [3, 240]], [0, 255]),  # pictures
        ((64, 64), [[0, 4095], [12, 4080]], [0, 4095]),  # X-rays of 12 bits
        ((64, 64), [[0, 4095], [0, 900]], "$None"),  # without a common unit
        ((64, 64), [[0, 1], [0, 1]], [0, 1]),  # too dark for [0, 255]
    ],
)
def test_intensities_follow_from_the_values(shape, ranges, expected):
    assert images.choose_intensity_range(facts([shape] * len(ranges), ranges=ranges)).value == expected


@pytest.mark.parametrize(
    ("spacings", "expected"),
    [
        ([[1, 1, 2], [1.01, 1, 2.02]], "$None"),
        ([[1, 1, 1], [1, 1, 1.2], [2, 2, 2]], [1, 1, 1.2]),  # the median
        ([[1, 1, 5 + n] for n in range(11)], [1, 1, 6]),  # the tenth percentile of 5 to 15 on a coarse axis
        (None, "$None"),
    ],
)
def test_spacing_is_the_median_where_voxels_differ(spacings, expected):
    data = facts([(64, 64, 64)] * len(spacings or [0]), spacings)
    assert images.choose_spacing(data).value == expected


@pytest.mark.parametrize(
    ("shapes", "expected"),
    [
        ([(512, 512, 40)], [80, 96, 16]),  # 64 * 64 * 32 voxels are the limit; 96 * 96 * 16 are more
        ([(40, 50, 35)], [32, 48, 32]),  # within the volume
        ([(20, 20, 20)], [32, 16, 16]),  # the network needs 32 along one axis
        ([(160, 160, 160)] * 9 + [(30, 160, 160)], [48, 48, 48]),  # one outlier does not count
    ],
)
def test_a_patch_fits_into_the_images_and_the_limit(shapes, expected):
    assert images.choose_patch(np.array(shapes), [64, 64, 32], 16, NETWORK, CPU).value == expected


def test_a_gpu_has_larger_patches_as_far_as_a_batch_fits():
    shapes, published = np.array([(512, 512, 512)]), [64, 64, 64]
    for gigabytes in (4, 40, 400):
        device = DeviceFacts("cuda:0", gigabytes * 2**30)
        patch = images.choose_patch(shapes, published, 2, NETWORK, device).value
        fits = (0.8 * device.memory - 2**30) / (8000 * 2)
        assert math.prod(patch) <= min(8 * 64**3, max(64**3, fits))
        assert gigabytes < 400 or patch == [128, 128, 128]


def test_a_region_is_no_larger_than_the_images():
    shapes = np.array([(100, 60, 40), (120, 60, 40)])
    assert images.choose_region(shapes, [48, 48, 32], [1.5, 1.5, 1.5]).value == [72, 60, 40]


def test_pictures_fill_the_region_with_their_shorter_side():
    data = facts([(300, 200), (256, 256)])
    square = NetworkFacts((32, 32), (32, 32), 32, 8000)
    assert images.choose_square(data, [224, 224], square).value == [192, 192]
    assert images.choose_square_region(data, [192, 192], [8 / 7, 8 / 7]).value == [200, 200]
    assert images.choose_longest_side(data, [200, 200]).value == 300  # so 300 x 200 stays as it is


@pytest.mark.parametrize(
    ("shape", "published", "expected"),
    [((35, 50, 35), [64, 64, 64], [32, 48, 32]), ((300, 300, 300), [64, 64, 64], [64, 64, 64])],
)
def test_whole_images_keep_their_proportions(shape, published, expected):
    assert images.choose_whole_size(np.array([shape]), published, NETWORK).value == expected


@pytest.mark.parametrize(
    ("published", "voxels", "count", "memory", "expected"),
    [
        (16, (1000, 1000), 1000, 2**40, (16, 1)),
        (16, (1000, 1000), 20, 2**40, (8, 1)),  # half of 20, a power of two
        (16, (1000, 250), 1000, 2**40, (64, 1)),  # as many voxels
        (16, (10**6, 10**6), 1000, 40 * 2**30, (4, 4)),  # (0.8 * 40 - 1) GiB of 8 GB an image hold 4
        (16, (10**6, 10**6), 1000, 2**30, (2, 8)),
    ],
)
def test_batch_and_accumulation(published, voxels, count, memory, expected):
    device = DeviceFacts("cpu", memory)
    batch, accumulation = schedule.choose_batch(published, voxels, count, NETWORK, device)
    assert (batch.value, accumulation.value) == expected


@pytest.mark.parametrize(
    ("steps", "once", "validation", "hours", "expected"),
    [
        (20000, 100, 0, 1000, (100, 200)),  # the bundle's
        (20000, 100, 0, 1, (100, 36)),  # 3600 steps of a second
        (10**6, 5000, 0, 1, (180, 20)),  # as often validated
        (400, 4, 0, 1000, (20, 20)),  # more than once through a small set
        (20000, 100, 50, 1, (200, 14)),  # validation a fifth of the time: 3600 / 250
        (20000, 100, 0, 1e-9, (1, 1)),
    ],
)
def test_epochs_fit_into_the_time(steps, once, validation, hours, expected):
    length, epochs = schedule.choose_epochs(steps, once, validation, hours, 1.0)
    assert (length.value, epochs.value) == expected


@pytest.mark.parametrize("steps", [4, 40, 400, 4000, 40000])
def test_the_key_branch_forgets_its_random_start(steps):
    momentum = schedule.choose_momentum(0.999, steps).value
    assert momentum <= 0.999
    assert momentum ** (steps / 4) <= 0.05 or steps < 12  # at least one step
    assert momentum == 0.999 or momentum ** (steps / 4) > 0.04 or steps < 40  # no faster than it must


@pytest.mark.parametrize(
    ("count", "batch", "momentum", "expected"),
    [
        (100000, 16, 0.999, 3984),  # 249 steps: a quarter of 1000, less rounding
        (100, 16, 0.999, 48),  # half of the images, a multiple of the batch
        (100000, 16, 0.99, 16 * 24),
        (10, 16, 0.5, 16),  # a batch at least
    ],
)
def test_the_queue_is_younger_than_the_key_branch_and_smaller_than_the_data(count, batch, momentum, expected):
    size = schedule.choose_queue(4096, count, batch, momentum).value
    assert abs(size - expected) <= batch
    assert size % batch == 0
    assert size == batch or size <= min(count / 2, batch * 0.25 / (1 - momentum) + 1e-6)


def test_few_validation_images_give_several_crops_each():
    assert [schedule.choose_val_samples(None, images, 1e6, 16).value for images in (1, 31, 32)] == [32, 32, "$None"]
    assert schedule.choose_val_samples(64, 1, 1e6, 16).value == 64


@pytest.mark.parametrize("published", [None, 600])
@pytest.mark.parametrize(
    ("steps", "expected"), [(10**4, 0), (1000, 480), (100, 48), (10, 32), (5, 32), (2, 19), (0.1, 2)]
)
def test_validations_take_a_fifth_of_the_time_at_most(published, steps, expected):
    choice = schedule.choose_val_samples(published, 600, steps, 16)  # a validation of 48 crops lasts as long as a step
    assert choice.value == (expected or ("$None" if published is None else 600))
    validation = (expected or 600) / 48
    length, epochs = (c.value for c in schedule.choose_epochs(10**6, 300, validation, steps / 3600, 1.0))
    assert epochs * (length + validation) <= max(steps, 2)
    assert epochs * validation <= max(steps / 5, 0.05)


def test_a_validation_that_cannot_be_shortened_leaves_the_training_its_time():
    length, epochs = schedule.choose_epochs(400, 4, 1000, 1, 36.0)
    assert (length.value, epochs.value) == (80, 1)


def test_warmup_is_a_tenth_of_the_run_at_most():
    assert [schedule.choose_warmup(0, epochs, True).value for epochs in (5, 50, 500)] == [0, 5, 10]
    assert [schedule.choose_warmup(2, epochs, False).value for epochs in (5, 15, 500)] == [0, 1, 2]


def run_by_plan(dims, task, scans, folder, caplog):
    """A plan of the folder, and a short training by it; what was warned of."""
    if task == "pretrain":
        given = pretrain_bundle.SHIPPED[dims] | {"discriminator_channels": 4}
        del given["patch_size"]
    else:
        given = finetune_bundle.SHIPPED[task, dims]
    name = "dira_pretrain" if task == "pretrain" else f"dira_finetune_{task}"
    bundle = pretrain_bundle.ROOT / f"bundles/{name}_{dims}d"
    made = plan.plan(scans, task=task, hours=1, device="cpu", bundle=str(bundle), given=given, seconds_per_step=60)
    made.write(folder / "plan.json")
    files = [str(bundle / "configs/train.json"), str(folder / "plan.json")]
    paths = {"dataset_dir": str(scans), "output_dir": str(folder / "out"), "ckpt_dir": str(folder / "models")}
    with warnings.catch_warnings(record=True) as warned, caplog.at_level(logging.WARNING):
        warnings.simplefilter("default")
        torch_run = {"max_epochs": 1, "epoch_length": 2, "warmup_epochs": 0}
        pretrain_bundle.monai.bundle.run(config_file=files, **paths, **torch_run, **given)
    said = [record.getMessage() for record in caplog.records] + [str(warning.message) for warning in warned]
    return made, [text for text in said if not any(known in text for known in SAID_BY_MONAI)]


@pytest.fixture(scope="session")
def phantoms(tmp_path_factory):
    """Folders of phantoms by their number of axes."""
    folders = {dims: tmp_path_factory.mktemp(f"phantoms{dims}") for dims in (2, 3)}
    small = {2: partial(chest.chest_xray, size=64), 3: partial(chest.chest_ct, shape=(48, 44, 40), spacing=8.0)}
    with pytest.MonkeyPatch.context() as patch:
        for dims, kind in ((2, "xray"), (3, "ct")):
            patch.setattr(chest, f"chest_{kind}", small[dims])
            chest.write_phantoms(folders[dims], kind=kind, count=24)
    return folders


@pytest.mark.parametrize("task", ["pretrain", "segmentation", "classification"])
@pytest.mark.parametrize("dims", [2, 3])
def test_a_plan_trains_without_a_warning(task, dims, phantoms, tmp_path, capsys, caplog):
    folder = phantoms[dims] / "images" if task == "pretrain" else phantoms[dims]
    made, said = run_by_plan(dims, task, folder, tmp_path, caplog)
    assert said == []
    assert not re.search("warning|smaller than", capsys.readouterr().out)
    assert set(made.values) == set(made.reasons)
    assert all(made.reasons.values())
    assert (tmp_path / "models/model.pt").is_file()


def test_values_of_the_user_win_and_the_others_follow(phantoms):
    given = {"batch_size": 4, "network_def#backbone": "resnet10", "momentum": 0.5}
    bundle = str(pretrain_bundle.BUNDLES[2])
    made = plan.plan(phantoms[2], device="cpu", bundle=bundle, given=given, seconds_per_step=1)
    assert not set(made.values) & set(given)
    assert made.values["queue_size"] == 4  # a batch: a branch of this momentum remembers no more


def test_one_number_for_the_longest_side(phantoms):
    made = [
        plan.plan(
            phantoms[2],
            task="segmentation",
            device="cpu",
            bundle=str(finetune_bundle.bundle("segmentation", 2)),
            given={"image_size": size, "patch_size": [32, 32]},
            seconds_per_step=1,
        ).values
        for size in (48, [48, 48])
    ]
    assert made[0] == made[1]
    for size in (48, None):
        with pytest.raises(InputError, match=f"--image_size must have a number for each axis .*, got {size}"):
            plan.plan(phantoms[2], task="classification", device="cpu", given={"image_size": size}, seconds_per_step=1)


def test_a_step_is_measured_in_silence(phantoms, capsys, caplog):
    given = {"network_def#backbone": "resnet10", "discriminator_channels": 4, "patch_size": [32, 32], "batch_size": 2}
    given |= {"queue_size": 64}
    made = plan.plan(phantoms[2], hours=0.01, device="cpu", bundle=str(pretrain_bundle.BUNDLES[2]), given=given)
    seconds = float(re.search(r"steps of (\S+) s", made.reasons["max_epochs"])[1])
    epochs, length = made.values["max_epochs"], made.values["epoch_length"]
    assert 0 < seconds < 30
    assert length in (1, 2, 3, 4, 5, 25, "$None") or epochs * length * seconds <= 36 * 1.1
    assert (capsys.readouterr().out, caplog.text) == ("", "")


def test_a_batch_that_does_not_fit_is_halved(phantoms, monkeypatch):
    tried = []

    def measure(config, values, device, task, sizes):
        tried.append((values["batch_size"], values["accumulation_steps"]))
        if sizes["batch"] > 2:
            raise torch.OutOfMemoryError
        return 1.0

    monkeypatch.setattr(planner, "measure_step", measure)
    made = plan.plan(phantoms[2], device="cpu", bundle=str(pretrain_bundle.BUNDLES[2]))
    assert tried == [(8, 1), (4, 2), (2, 4)]
    assert (made.values["batch_size"], made.values["accumulation_steps"]) == (2, 4)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"task": "detection"}, "task must be pretrain, segmentation or classification, got 'detection'"),
        ({"hours": 0}, "hours must be a number above 0, got 0"),
        ({"device": "nowhere"}, "device nowhere cannot be used"),
        ({"given": {"speed": 3}}, "has no value 'speed' to replace by 3"),
    ],
)
def test_what_cannot_be_planned_is_one_sentence(options, sentence, phantoms):
    with pytest.raises(InputError, match=re.escape(sentence)):
        plan.plan(phantoms[2], **{"bundle": str(pretrain_bundle.BUNDLES[2]), "device": "cpu"} | options)


def test_a_validation_that_the_training_refuses_is_refused_at_once(phantoms, tmp_path):
    rows = (phantoms[2] / "labels.csv").read_text().splitlines()
    table = [rows[0], *(re.sub(r",val$", ",train", row) for row in rows[1:])]
    table[1] = re.sub(r",\w+$", ",val", table[1])
    (tmp_path / "labels.csv").write_text("\n".join(table))
    options = {"labels": str(tmp_path / "labels.csv")}
    with pytest.raises(InputError, match="the validation list has no class that some of its 1 images have"):
        plan.plan(phantoms[2], task="classification", device="cpu", given=options, seconds_per_step=1)


def test_the_command_writes_values_and_reasons(phantoms, command, tmp_path):
    options = ("--bundle", str(pretrain_bundle.BUNDLES[2]), "--device", "cpu", "--seconds_per_step", "2")
    status, out, _ = command("plan", str(phantoms[2]), *options, "--hours", "2", "--output", "plan.json")
    content = json.loads((tmp_path / "plan.json").read_text())
    assert status == 0
    assert content["intensity_range"] == [0, 255]
    for name, reason in content["_desc_"].items():
        assert reason in out, name
    assert "plan.json is written" in out
