"""Visual words: what is found, what is stored, and a bundle that trains on it."""

import csv
import io
import json
import math
import pickle
import sys
from contextlib import redirect_stdout
from dataclasses import asdict

import nibabel as nib
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from monai.networks.nets import BasicUNet
from PIL import Image
from pretrain_bundle import BUNDLES, OWN, parsed, run
from running import load
from scan_files import write_image, write_nifti
from torch.utils.data import DataLoader

from dira_monai.__main__ import main
from dira_monai.apps.visual_words import features as word_features
from dira_monai.apps.visual_words.cubes import Box, cut, instance_boxes, write_array
from dira_monai.apps.visual_words.dataset import WordDataset
from dira_monai.apps.visual_words.discover import first_images, visual_words
from dira_monai.apps.visual_words.features import (
    make_autoencoder,
    nearest,
    patient_features,
    thumbnail,
    train_autoencoder,
)
from dira_monai.apps.visual_words.places import WordSettings, choose_words
from dira_monai.apps.visual_words.report import draw_words, spread
from dira_monai.data.sampler import SeededSampler
from dira_monai.networks.encoder_decoder import encode
from dira_monai.phantoms.chest import chest_ct, chest_xray
from dira_monai.utils.errors import InputError
from dira_monai.utils.seeded_random import SampleRandom
from dira_monai.visualize.tiles import GAP, TITLE

EXTENT = {2: (40, 36), 3: (40, 36, 22)}
PATCH = {2: [16, 16], 3: [16, 16, 8]}
COUNTS = {"training": 6, "validation": 3}
CHOSEN = {"training": 4, "validation": 2}  # neighbors of a word
MODE = {2: "bilinear", 3: "trilinear"}


@pytest.fixture(scope="module")
def lists(tmp_path_factory):
    """By rank a list of images in the units of the bundle, of sizes that differ by patient; the first one has two."""
    return {d: write_list(tmp_path_factory.mktemp(f"list{d}"), d) for d in BUNDLES}


def write_list(folder, spatial_dims):
    rng = np.random.default_rng(spatial_dims)
    base = torch.tensor(rng.uniform(0.4, 1, (1, 1, *[5] * spatial_dims)))
    images = []
    for number in range(sum(COUNTS.values())):
        size = [n + number % 3 for n in EXTENT[spatial_dims]]
        image = F.interpolate(base, size, mode=MODE[spatial_dims])[0, 0].numpy()
        image = (image + rng.uniform(-0.05, 0.05, size)).clip(0, 1)
        if spatial_dims == 2:
            file = write_image(folder / f"case{number}.png", image.T * 255)
        else:
            file = write_nifti(folder / f"case{number}.nii.gz", (image * 2000 - 1000).astype(np.int16), (1, 1, 1))
        images.append({"image": file.name, "patient": f"p{number}"})
    first = {"image": images[1]["image"], "patient": "p0"}
    lists = {"training": [*images[:6], first], "validation": images[6:]}
    (folder / "list.json").write_text(json.dumps(lists))
    return folder / "list.json"


def search(lists, spatial_dims, output, *, overrides=None, **more):
    values = {
        "patch_size": PATCH[spatial_dims],
        "image_size": None,
        "cache_dtype": "float16",
        "words#classes": 5,
        "words#neighbors": CHOSEN["training"],
        "words#validation_neighbors": CHOSEN["validation"],
        "words#margin": 0.1,
        "words#air_level": 0.1,
        "words#min_distance": 2,
        "words#feature_size": [16] * spatial_dims,
    }
    options = {"datalist": lists[spatial_dims], "steps": 2, "batch_size": 4, "device": "cpu"} | more
    return visual_words(BUNDLES[spatial_dims], output=output, overrides=values | (overrides or {}), **options)


@pytest.fixture(scope="module", params=[2, 3])
def found(request, lists, tmp_path_factory):
    """A finished search: number of axes, what it says, and its folder."""
    folder = tmp_path_factory.mktemp(f"words{request.param}")
    return request.param, search(lists, request.param, folder), folder


def images_of(lists, spatial_dims):
    """Each patient's image in [0, 1], read without this package."""
    folder, content = lists[spatial_dims].parent, json.loads(lists[spatial_dims].read_text())
    paths = {e["patient"]: folder / e["image"] for e in [*content["validation"], *content["training"][:-1]]}
    if spatial_dims == 2:
        return {name: np.asarray(Image.open(path)).T / 255 for name, path in paths.items()}
    return {name: (nib.load(path).get_fdata() + 1000) / 2000 for name, path in paths.items()}


def test_every_word_has_its_neighbors_once_and_none_of_the_other_split(found):
    _, words, _ = found
    assert [len(words[split]["patients"]) for split in COUNTS] == list(COUNTS.values())  # p0 once
    assert not set(words["training"]["patients"]) & set(words["validation"]["patients"])
    assert len({word["patient"] for word in words["words"]}) == 5  # another reference each
    for word in words["words"]:
        for split, count in CHOSEN.items():
            assert len(set(word[split])) == len(word[split]) == count
            assert set(word[split]) <= set(range(COUNTS[split]))
        assert words["training"]["patients"][word["training"][0]] == word["patient"]  # nearest to itself
        assert not word["reused"]


def test_places_keep_the_margins_and_their_distance(found, lists):
    spatial_dims, words, _ = found
    images = images_of(lists, spatial_dims)
    patch = np.array(PATCH[spatial_dims])
    for number, word in enumerate(words["words"]):
        extent = np.array(images[word["patient"]].shape)
        start = np.array(word["center"]) * extent - patch / 2
        np.testing.assert_allclose(start, start.round(), atol=1e-6)
        assert (start >= 0.1 * extent - 1e-6).all()
        assert (start + patch <= 0.9 * extent + 1e-6).all()
        for other in words["words"][:number]:
            assert (np.abs(np.array(word["center"]) - other["center"]) * extent).max() > 2


def test_no_instance_is_missing_and_all_scales_are_there(found):
    spatial_dims, words, folder = found
    for split, scales in (("training", 3), ("validation", 1)):
        rows = words[split]["rows"]
        wanted = {(p, w, s) for w, word in enumerate(words["words"]) for p in word[split] for s in range(scales)}
        assert {tuple(row[:3]) for row in rows} == wanted
        assert len(rows) == len(wanted) == 5 * CHOSEN[split] * scales
        array = np.load(folder / f"{split}.npy", mmap_mode="r")
        assert array.shape == (len(rows), 1, *PATCH[spatial_dims])
        assert array.dtype == np.float16
    assert json.loads((folder / "words.json").read_text()) == json.loads(json.dumps(words))
    assert not [path for path in folder.iterdir() if path.name.endswith(".tmp")]


def test_cubes_are_what_the_files_have_at_the_same_relative_place(found, lists):
    spatial_dims, words, folder = found
    images = images_of(lists, spatial_dims)
    patch = np.array(PATCH[spatial_dims])
    resized = 0
    for split in COUNTS:
        array = np.load(folder / f"{split}.npy")
        for cube, (patient, word, scale, *box) in zip(array, words[split]["rows"], strict=True):
            image = images[words[split]["patients"][patient]]
            start, size = np.array(box[:spatial_dims]), np.array(box[spatial_dims:])
            assert (start >= 0).all()
            assert (start + size <= image.shape).all()
            center = np.array(words["words"][word]["center"]) * image.shape
            if scale == 0:
                assert (size == patch).all()
                assert np.abs(start + patch / 2 - center).max() <= 0.5 + 1e-9
            else:
                assert (size[2:] == patch[2:]).all()  # other sizes only in the plane
                assert size[0] == size[1]
                assert 0.78 * 16 - 0.5 <= size[0] <= 1.25 * 16 + 0.5
                resized += size[0] != 16
            part = image[tuple(slice(s, s + n) for s, n in zip(start, size, strict=True))]
            expected = F.interpolate(torch.tensor(part)[None, None], PATCH[spatial_dims], mode=MODE[spatial_dims])[0]
            np.testing.assert_allclose(cube, expected, atol=1e-3)
    assert resized > 20


def test_the_seed_determines_everything(found, lists, tmp_path):
    spatial_dims, words, folder = found
    again = search(lists, spatial_dims, tmp_path / "again", workers=1)
    other = search(lists, spatial_dims, tmp_path / "other", seed=1)
    for name in ("training.npy", "validation.npy", "words.json", "words.png"):
        assert (tmp_path / "again" / name).read_bytes() == (folder / name).read_bytes()
    assert again == words
    assert other["words"] != words["words"]


def test_weights_of_an_encoder_compare_patients(lists, tmp_path):
    network = BasicUNet(3, 1, 1, features=(4, 4, 4, 4, 8, 4))
    torch.save(network.state_dict(), tmp_path / "model.pt")
    small = {"network_def#features": [4, 4, 4, 4, 8, 4], "words#feature_size": [32, 32, 16], "words#neighbors": 6}
    small["cache_dtype"] = "float32"
    words = search(lists, 3, tmp_path / "words", weights=tmp_path / "model.pt", overrides=small)
    assert words["features"]["network"] == "BasicUNet"
    assert len(words["features"]["sha256"]) == 64
    images = images_of(lists, 3)
    features = {}
    for name, image in images.items():
        pooled = F.adaptive_avg_pool3d(torch.tensor(image, dtype=torch.float32)[None, None], (32, 32, 16))
        with torch.no_grad():
            features[name] = encode(network.eval(), (pooled * 255).round() / 255)[-1].double().mean((0, 2, 3, 4))
    for word in words["words"]:
        for split, count in (("training", 6), ("validation", 2)):
            distances = [(features[word["patient"]] - features[n]).norm().item() for n in words[split]["patients"]]
            chosen = [distances[patient] for patient in word[split]]
            np.testing.assert_allclose(chosen, sorted(distances)[:count], atol=0.02 * max(distances))


def flat(value, spatial_dims=2):
    return torch.full((1, *[60] * spatial_dims), float(value))


def half(spatial_dims):
    """The first half along the first axis is air."""
    image = flat(1, spatial_dims)
    image[:, :30] = 0
    return image


@pytest.mark.parametrize("share", [0.0, 0.3])
def test_air_is_rejected(spatial_dims, share):
    settings = WordSettings(classes=12, margin=0, max_air=share, min_distance=0, air_level=0.5)
    size = 10
    words = choose_words(lambda _: half(spatial_dims), ["a"], settings, [size] * spatial_dims, seed=0)
    starts = [word.center[0] * 60 - size / 2 for word in words]
    assert all(30 - start <= share * size + 1e-6 for start in starts)
    assert max(word.trials for word in words) > 1
    if share:
        assert min(starts) < 30


def test_places_fill_the_room_to_its_ends(spatial_dims):
    settings = WordSettings(classes=40, margin=0.2, min_distance=0)
    words = choose_words(lambda _: flat(1, spatial_dims), ["a"], settings, [30] * spatial_dims, seed=0)
    starts = np.array([[c * 60 - 15 for c in word.center] for word in words]).round()
    assert (starts.min(0) == 12).all()  # 0.2 of 60
    assert (starts.max(0) == 18).all()  # 0.8 of 60 less 30


def chosen_starts(spatial_dims, *, seed=0, **settings):
    """Where the cubes of words begin along the first axis, and how often each was drawn; there are eight places."""
    chosen = WordSettings(margin=0, **settings)
    patch = [53] + [60] * (spatial_dims - 1)
    words = choose_words(lambda _: flat(1, spatial_dims), list("abcdefgh"), chosen, patch, seed)
    return [round(word.center[0] * 60 - 53 / 2) for word in words], [word.trials for word in words]


def test_a_place_too_near_wastes_no_later_trial(spatial_dims):
    starts, trials = chosen_starts(spatial_dims, classes=8, min_distance=0)
    assert sorted(starts) == list(range(8))
    assert sum(count > 1 for count in trials) > 1  # places of several patients were refused


def test_a_place_at_just_the_least_distance_is_refused():
    for seed in range(8):
        first, second, third = sorted(chosen_starts(2, seed=seed, classes=3, min_distance=1)[0])
        assert min(second - first, third - second) > 1


def test_references_are_used_again_only_when_all_were_used():
    names = ["a", "b", "c"]
    settings = WordSettings(classes=8, margin=0, min_distance=0)
    words = choose_words(lambda _: flat(1), names, settings, [4, 4], seed=0)
    references = [word.reference for word in words]
    assert sorted(references[:3]) == sorted(references[3:6]) == [0, 1, 2]
    assert len(set(references[6:])) == 2


@pytest.mark.parametrize(
    ("change", "image", "sentence"),
    [
        ({"max_air": 0.1}, flat(0), r"none of 200 places can be word 0: in 200 more than 0\.1 of the cube is below"),
        ({"min_distance": 60, "classes": 2}, flat(1), r"word 1: .* 200 lie within min_distance 60 of an earlier"),
        ({"margin": [0.3, 0.1]}, flat(1), r"margin \[0\.3, 0\.1\] of an image of \[60, 60\] voxels leaves no room"),
        ({"margin": [0.1]}, flat(1), r"margin must be one share or 2, got \[0\.1\]"),
    ],
)
def test_a_word_without_a_place_is_one_sentence(change, image, sentence):
    with pytest.raises(InputError, match=sentence):
        choose_words(lambda _: image, ["first", "second"], WordSettings(**change), [30, 30], seed=0)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"classes": 1}, "classes must be a whole number from 2, got 1"),
        ({"neighbors": 2.5}, r"neighbors must be a whole number from 1, got 2\.5"),
        ({"trials": 0}, "trials must be a whole number from 1"),
        ({"scales": -1}, "scales must be a whole number from 0"),
        ({"margin": 0.5}, r"margin must be shares in \[0, 0\.5\), got 0\.5"),
        ({"margin": []}, r"margin must be shares in \[0, 0\.5\), got \[\]"),
        ({"max_air": 1.1}, r"max_air must be a share in \[0, 1\], got 1\.1"),
        ({"scale_range": (1.2, 0.8)}, "scale_range must be two rising numbers above 0"),
        ({"shift": -1}, "shift and min_distance must be at least 0, got -1 and 5"),
    ],
)
def test_settings_are_checked(change, sentence):
    with pytest.raises(InputError, match=sentence):
        WordSettings(**change)


def test_boxes_are_moved_inside(spatial_dims):
    extent, patch = (20, 20, 9)[:spatial_dims], [16, 16, 8][:spatial_dims]
    settings = WordSettings(scales=40, shift=0.5)
    boxes = instance_boxes([0.9] * spatial_dims, extent, patch, settings, SampleRandom(torch.tensor([3])))
    assert boxes[0].start == [4, 4, 1][:spatial_dims]
    for start, size in boxes:
        assert all(s >= 0 and s + n <= e for s, n, e in zip(start, size, extent, strict=True))
    assert len(instance_boxes([0.5] * spatial_dims, extent, patch, settings, None)) == 1


def test_a_box_of_the_patch_is_copied_exactly():
    image = torch.rand(2, 9, 8, 7)
    part = cut(image, Box([1, 2, 3], [4, 4, 4]), [4, 4, 4])
    assert torch.equal(part, image[:, 1:5, 2:6, 3:7])
    assert part.data_ptr() != image.data_ptr()


def test_arrays_are_written_in_parts(tmp_path):
    parts = [torch.rand(2, 1, 3).half(), torch.rand(1, 1, 3).half()]
    with open(tmp_path / "a.npy", "wb") as file:
        write_array(file, (3, 1, 3), iter(parts))
    np.testing.assert_array_equal(np.load(tmp_path / "a.npy"), torch.cat(parts).numpy())
    with (
        open(tmp_path / "b.npy", "wb") as file,
        pytest.raises(ValueError, match=r"hold 6 values where the array of shape \(3, 1, 3\) has 9"),
    ):
        write_array(file, (3, 1, 3), parts[:1])


def test_nearest_is_the_order_of_euclidean_distances():
    features = torch.rand(9, 4, dtype=torch.float64)
    reference = features[5]
    distances = [sum((a - b) ** 2 for a, b in zip(row, reference, strict=True)) for row in features.tolist()]
    assert nearest(features, reference, 4) == sorted(range(9), key=distances.__getitem__)[:4]


def test_the_autoencoder_learns_and_leaves_the_random_state_alone(spatial_dims, monkeypatch):
    monkeypatch.setattr(word_features, "FEATURES", (4, 4, 8, 8, 16, 4))
    images = torch.stack([thumbnail(torch.rand(1, *[4] * spatial_dims), [16] * spatial_dims) for _ in range(5)])
    state = torch.get_rng_state()
    runs = []
    for _ in range(2):
        network = make_autoencoder(spatial_dims, 1, seed=1)
        errors = train_autoencoder(network, images, steps=6, batch_size=4, seed=2, learning_rate=1e-2)
        runs.append((errors, network.state_dict()))
    assert torch.equal(torch.get_rng_state(), state)
    assert runs[0][0] == runs[1][0]
    assert all(torch.equal(tensor, runs[1][1][name]) for name, tensor in runs[0][1].items())
    assert len(runs[0][0]) == 6
    assert runs[0][0][-1] < runs[0][0][0]
    features = patient_features(network, images, batch_size=2)
    torch.testing.assert_close(features, patient_features(network, images, batch_size=5))
    assert features.shape == (5, 16)


def test_a_broken_autoencoder_is_one_sentence(monkeypatch):
    monkeypatch.setattr(word_features, "decode", lambda network, maps: maps[-1].mean() * float("nan") + torch.zeros(1))
    monkeypatch.setattr(F, "mse_loss", lambda a, b: a.mean())
    with pytest.raises(InputError, match="error is not finite in step 1"):
        train_autoencoder(make_autoencoder(2, 1, 0), torch.zeros(2, 1, 16, 16, dtype=torch.uint8), steps=3)


def test_thumbnails_average_areas():
    image = torch.rand(1, 8, 6)
    expected = image.reshape(1, 4, 2, 3, 2).mean((2, 4))
    assert ((thumbnail(image, [4, 3]) / 255 - expected).abs() <= 0.5 / 255 + 1e-6).all()


def test_entries_without_a_patient_are_patients():
    entries = [{"image": "a"}, {"image": ["b", "c"]}, {"image": "d", "patient": 1}, {"image": "e", "patient": 1}]
    assert [tuple(patient) for patient in first_images(entries)] == [("a", "a"), ("b", ["b", "c"]), ("1", "d")]


def test_the_data_set_gives_cubes_with_their_words(found):
    spatial_dims, words, folder = found
    data = WordDataset(folder, "training", patch_size=PATCH[spatial_dims], in_channels=1)
    array = np.load(folder / "training.npy")
    assert (len(data), data.classes) == (60, 5)
    item = data[7, 99]
    assert torch.equal(item["image"], torch.tensor(array[7]))
    assert (item["word"], item["seed"]) == (words["training"]["rows"][7][1], 99)
    assert data[3]["seed"] == 0
    sampler = SeededSampler(data, 4, seed=1)
    loader = DataLoader(data, 4, sampler=sampler, num_workers=1)
    for batch, indices in zip(loader, torch.tensor([index for index, _ in sampler]).split(4), strict=True):
        assert torch.equal(batch["image"], torch.tensor(array[indices]))
        assert batch["word"].tolist() == data.rows[indices, 1].tolist()
    copy = pickle.dumps(data)
    assert len(copy) < 20_000 < array.nbytes  # without the cubes
    assert torch.equal(pickle.loads(copy)[7]["image"], item["image"])


def refuses(sentence, *given, **wanted):
    with pytest.raises(InputError, match=sentence):
        WordDataset(*given, **wanted)


def test_words_that_do_not_fit_are_one_sentence(found, tmp_path):
    _, words, folder = found
    refuses("words_dir must name a folder", None, "training")
    refuses(r"words\.json cannot be read \(No such file", tmp_path, "training")
    refuses("split must be training or validation, got 'test'", folder, "test")
    refuses(r"cubes of patch_size \[16, 16.*\] where the run has \[8, 8\]", folder, "training", patch_size=[8, 8])
    refuses("cubes of in_channels 1 where the run has 3", folder, "validation", in_channels=3)
    (tmp_path / "words.json").write_text(json.dumps(words))
    refuses(r"training\.npy cannot be read", tmp_path, "training")
    (tmp_path / "training.npy").write_bytes((folder / "training.npy").read_bytes()[:1000])
    refuses(r"training\.npy cannot be read", tmp_path, "training")
    (tmp_path / "training.npy").write_bytes((folder / "validation.npy").read_bytes())
    refuses(r"training\.npy has shape \(10, .* not 60 cubes", tmp_path, "training")
    for content, sentence in (("{", "is not valid JSON"), ("[]", "holds no visual words")):
        (tmp_path / "words.json").write_text(content)
        refuses(sentence, tmp_path, "training")


def test_the_picture_has_a_row_a_word_and_a_column_a_patient(found):
    *_, folder = found
    with Image.open(folder / "words.png") as picture:
        assert picture.width == 6 * (192 + 6) + 6  # 16 pixels, or an axial and a coronal slice of 16, enlarged
    small = draw_words(folder, rows=2, training=1, validation=1)
    assert small.width < picture.width
    assert spread(10, 4) == [0, 3, 6, 9]
    assert spread(2, 4) == [0, 1]


def tile_of(cube):
    """A cube as radiologists look at it: axial beside coronal above sagittal, each through the middle."""
    if cube.ndim == 2:
        return cube.T
    x, y, z = (n // 2 for n in cube.shape)
    axial, coronal, sagittal = (part.T[::-1, ::-1] for part in (cube[:, :, z], cube[:, y], cube[x]))
    return np.hstack([axial, np.vstack([coronal, sagittal])])


def test_the_tiles_of_the_picture_are_the_cubes_of_the_files(found):
    _, words, folder = found
    with Image.open(folder / "words.png") as file:
        written = file.copy()
    few = draw_words(folder, rows=2, training=3, validation=1, width=16)
    every = {"training": range(4), "validation": range(2)}
    for picture, numbers, ranks in (
        (written, range(5), every),
        (few, [0, 4], {"training": [0, 2, 3], "validation": [0]}),
    ):
        pixels = np.asarray(picture)
        for row, number in enumerate(numbers):
            columns = [(split, words["words"][number][split][rank]) for split in ranks for rank in ranks[split]]
            width = (picture.width - GAP) // len(columns) - GAP
            for column, (split, patient) in enumerate(columns):
                index = [place[:3] for place in words[split]["rows"]].index([patient, number, 0])
                tile = tile_of(np.load(folder / f"{split}.npy", mmap_mode="r")[index, 0].astype(float))
                zoom = width // tile.shape[1]
                tile = tile.repeat(zoom, axis=0).repeat(zoom, axis=1) * 255
                left, top = GAP + column * (width + GAP), 2 * TITLE + row * (len(tile) + 2 * TITLE + GAP)
                found_tile = pixels[top : top + len(tile), left : left + width]
                np.testing.assert_allclose(found_tile, tile, atol=0.51)


def test_a_search_that_fails_keeps_what_was_there(lists, tmp_path, monkeypatch):
    search(lists, 2, tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def broken(*_):
        raise InputError("this image is broken")

    monkeypatch.setattr("dira_monai.apps.visual_words.discover.cut", broken)
    with pytest.raises(InputError, match="this image is broken"):
        search(lists, 2, tmp_path, seed=5)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"steps": 0}, "steps must be a whole number from 1, got 0"),
        ({"datalist": "/nowhere.json"}, "/nowhere.json does not exist"),
        ({"weights": "/nowhere.pt"}, "/nowhere.pt"),
        ({"device": "nothing"}, "device nothing cannot be used"),
        ({"overrides": {"wrods": 1}}, r"has no value 'wrods' to replace by 1"),
        ({"overrides": {"train#width": 1}}, r"has no value 'train#width' to replace by 1"),
        ({"overrides": {"words#clases": 9}}, ": words cannot be built .*unexpected keyword argument 'clases'"),
        ({"overrides": {"network_def#width": 1}, "weights": "any.pt"}, ": network_def cannot be built .* 'width'"),
        ({"overrides": {"words": 1}}, "must be a WordSettings, got 1"),
        ({"overrides": {"words#classes": 0}}, "cannot be built .classes must be a whole number"),
        ({"overrides": {"words#feature_size": [8, 8]}}, r"compared at feature_size \[8, 8\]: patch_size"),
        ({"overrides": {"intensity_range": [0, 65535]}}, "do not suit intensity_range"),
        ({"overrides": {"spatial_dims": 3, "patch_size": [16] * 3}}, r"was made for spatial_dims 2, .*\.json for 3"),
    ],
)
def test_what_cannot_be_used_is_one_sentence(lists, tmp_path, change, sentence):
    content = json.loads(lists[2].read_text()) | {"spatial_dims": 2, "dataset_dir": str(lists[2].parent)}
    for entry in content["training"]:
        entry["range"] = [0, 255]
    (tmp_path / "list.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=sentence):
        search({2: tmp_path / "list.json"}, 2, tmp_path / "words", **change)
    assert not (tmp_path / "words").exists()


def test_a_file_that_cannot_be_read_is_named(lists, tmp_path):
    for path in lists[2].parent.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "case2.png").write_bytes(b"no picture")
    with pytest.raises(InputError, match=r"case2\.png cannot be prepared"):
        search({2: tmp_path / "list.json"}, 2, tmp_path / "words")


def test_a_bundle_without_the_files_is_one_sentence(tmp_path):
    with pytest.raises(InputError, match="does not exist; name the folder of a bundle or its train"):
        visual_words(tmp_path, datalist="list.json", output=tmp_path)
    with pytest.raises(InputError, match="has no value 'words', which is needed for visual words"):
        visual_words(str(BUNDLES[2] / "configs/train.json"), datalist="list.json", output=tmp_path)


def test_the_preset_has_the_documented_values(spatial_dims):
    parser = parsed(spatial_dims, ["train", "transvw"], parameters="$[torch.zeros(1, requires_grad=True)]")
    value, plain = parser.get_parsed_content, json.loads((BUNDLES[3] / "configs/train.json").read_text())
    optimizer = value("optimizer")
    assert type(optimizer) is torch.optim.Adam
    assert optimizer.defaults["lr"] == 1e-3
    patch, epochs = {2: [128, 128], 3: [64, 64, 32]}[spatial_dims], value("max_epochs")
    expected = {"contrastive_weight": 1, "restoration_weight": 100, "adversarial_weight": 1, "views_per_image": 1}
    expected |= {"patch_size": patch, "region_size": patch, "image_size": {2: 448, 3: None}[spatial_dims]}
    expected |= {"photometric": [], "flip_axes": [], "val_samples": None, "kept_window": [0.4286, 0.5714]}
    expected |= {"stage_epochs": [epochs // 4, epochs // 4, epochs // 2]}
    assert {name: value(name) for name in expected} == expected
    strength = {"magnitude": 3.8, "smoothness": 8.0}  # pixels or voxels
    assert {name: value(f"distortions#0#{name}") for name in strength} == strength
    assert parser["distortions"][0].keys() == plain["distortions"][0].keys()
    assert parser["distortions"][1:] == plain["distortions"][1:]
    place = {2: {"margin": 0.1, "air_level": 0.03}, 3: {"margin": [0.195, 0.195, 0.12], "air_level": 0.425}}
    counts = {"classes": 44, "neighbors": 200, "validation_neighbors": 30, "trials": 200, "scales": 2}
    shares = {"max_air": 0.15, "min_distance": 5, "scale_range": [0.78, 1.25], "shift": 0.156}
    size = {"feature_size": [2 * n for n in patch]}
    assert asdict(value("words")) == counts | shares | size | place[spatial_dims]


SMALL_PATCH = {2: [32, 32], 3: [32, 32, 16]}


def words_command(spatial_dims, folder):
    """The command line that finds words in the phantoms of a folder."""
    small = {"patch_size": SMALL_PATCH[spatial_dims], "words#margin": 0.05, "words#air_level": 0.03}
    small |= {"words#feature_size": [32] * spatial_dims} | ({"image_size": 64} if spatial_dims == 2 else {})
    paths = ("--datalist", f"{folder}/list.json", "--output", f"{folder}/words")
    return ["visual-words", str(BUNDLES[spatial_dims]), *paths, "--overrides", repr(small)]


@pytest.fixture(scope="module", params=[2, 3])
def phantoms(request, tmp_path_factory):
    """Words that the command line found in phantoms, no patients: number of axes, folder, and what was said."""
    folder = tmp_path_factory.mktemp(f"phantoms{request.param}")
    images = folder / "images"
    for number in range(6):
        if request.param == 2:
            write_image(images / f"case{number}.png", chest_xray(number, size=64).image)
        else:
            volume = chest_ct(number, shape=(56, 48, 40), spacing=6)
            write_nifti(images / f"case{number}.nii.gz", volume.image, np.diag(volume.affine)[:3])
    make = ["datalist", str(images), "--output", f"{folder}/list.json", "--validation_fraction", "0.34", "--seed", "4"]
    find = words_command(request.param, folder)
    find += ["--classes", "5", "--neighbors", "3", "--validation_neighbors", "9", "--steps", "3", "--batch_size", "2"]
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(io.StringIO()) as said:
        for words in (make, find):
            patch.setattr(sys, "argv", ["dira_monai", *words])
            main()
    return request.param, folder, said.getvalue()


def train(phantoms, folder, names, options):
    """A run of two steps an epoch on the words of the phantoms: the rows of metrics.csv, with numbers."""
    spatial_dims, words, _ = phantoms
    paths = {"words_dir": words / "words", "output_dir": folder / "out", "ckpt_dir": folder / "models"}
    small = {"discriminator_channels": 4, "epoch_length": 2, "batch_size": 4, "patch_size": SMALL_PATCH[spatial_dims]}
    run(spatial_dims, ["train", "transvw", *names], options | small | {key: str(path) for key, path in paths.items()})
    with open(folder / "out/metrics.csv") as file:
        rows = list(csv.DictReader(file))
    return [{name: value if name == "stage" else float(value) for name, value in row.items() if value} for row in rows]


def test_phantoms_become_words_and_a_bundle_trains_on_them(phantoms, command, tmp_path):
    """Everything from the command line."""
    spatial_dims, folder, said = phantoms
    assert "5 words, 45 training and 10 validation cubes" in said
    assert "validation_neighbors is 9, but there are 2 validation patients" in said
    assert "5 words of 4 patients: 1 reuse a reference" in said
    assert "the mean image has" in said
    rows = train(phantoms, tmp_path, [], OWN[spatial_dims] | {"max_epochs": 2, "stage_epochs": [0, 1, 1]})
    assert [row["stage"] for row in rows] == ["dir", "dira"]
    for figures in rows:
        for name in ("val_contrastive_accuracy", "contrastive_accuracy", "val_collapse"):
            assert 0 <= figures[name] <= 1
        total = figures["val_contrastive"] + 100 * figures["val_mse"]
        assert figures["val_loss"] == pytest.approx(total, rel=1e-4)
    assert (tmp_path / "out/panel.png").exists()
    words = words_command(spatial_dims, folder)
    status = command(*words, "--classes", "0")[0]
    assert status == "error: classes must be a whole number from 2, got 0."
    assert command(*words[:-2], "--overrides", "3")[0].startswith("error: --overrides must be an object")


GENESIS = {
    "_target_": "dira_monai.GenesisUNet",
    "spatial_dims": "@spatial_dims",
    "in_channels": "@in_channels",
    "features": [4, 4, 8, 8],
}


@pytest.mark.parametrize("name", ["stepwise", "masked_dira", "genesis_unet"])
def test_words_train_with_further_overlays_and_in_the_authors_network(phantoms, name, tmp_path):
    spatial_dims, genesis = phantoms[0], name == "genesis_unet"
    network = {"network_def": GENESIS, "pooled_norm": False} if genesis else OWN[spatial_dims]
    options = network | {"max_epochs": 1, "stage_epochs": "$None"}
    (figures,) = train(phantoms, tmp_path, [] if genesis else [name], options)
    assert figures.pop("stage") == "dira"
    assert all(math.isfinite(value) for value in figures.values())
    assert {"contrastive", "contrastive_accuracy", "restoration", "adversarial", "discriminator"} <= set(figures)
    assert ("gradient_penalty" in figures) == (name == "stepwise")
    weight = 10 if (name, spatial_dims) == ("masked_dira", 2) else 100
    error = figures["val_mae" if name == "stepwise" else "val_mse"]
    assert figures["val_loss"] == pytest.approx(figures["val_contrastive"] + weight * error, rel=1e-4)
    plain = parsed(spatial_dims, ["train"], **network).get_parsed_content("network_def")
    plain.load_state_dict(load(tmp_path / "models/model.pt"))
    optimizer = load(tmp_path / "models/checkpoint.pt")["optimizer"]
    steps = [int(state["step"]) for state in optimizer["state"].values()]
    assert steps == [2] * (len(list(plain.parameters())) + 4)  # all weights, those of the head too, in both steps
