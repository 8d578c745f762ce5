import math
from contextlib import nullcontext

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.networks.nets import resnet10
from monai.transforms import Compose, Resized
from planted_maps import cube, fill, planted
from torch import nn

from dira_monai import InputError
from dira_monai.apps.localization.classifier import check_cam, find_layer, heat_map, make_cam
from dira_monai.apps.localization.metrics import (
    OVERLAPS,
    THRESHOLDS,
    best_overlaps,
    centered_box,
    component_boxes,
    evaluate_case,
    find_peak,
    inside_boxes,
    predict_boxes,
    summarize,
)
from dira_monai.apps.localization.picture import GREEN, RED, WIDTH, draw_boxes, face_viewer, overlay, turn_boxes
from dira_monai.apps.localization.report import make_report
from dira_monai.visualize.tiles import GAP, TITLE, draw_grid


def prepare(array, size):
    """What resizing to ``size`` makes of an image, and the transform."""
    preprocessing = Compose([Resized("image", size)])
    return preprocessing, preprocessing({"image": MetaTensor(torch.as_tensor(array, dtype=torch.float32)[None])})


def test_component_boxes(spatial_dims):
    mask = np.zeros((9,) * spatial_dims, dtype=bool)
    mask[(0,) * spatial_dims] = True
    for box in (cube(2, 4, spatial_dims), cube(4, 5, spatial_dims), cube(6, 9, spatial_dims)):
        fill(mask, box, True)  # the first two touch by a corner, so they are one
    expected = [cube(6, 9, spatial_dims), cube(2, 5, spatial_dims), cube(0, 1, spatial_dims)]
    np.testing.assert_array_equal(component_boxes(mask), expected)
    assert component_boxes(np.zeros_like(mask)).shape == (0, 2 * spatial_dims)


def test_predict_boxes(spatial_dims):
    heat = np.zeros((8,) * spatial_dims)
    fill(heat, cube(0, 3, spatial_dims), 0.25)
    fill(heat, cube(5, 7, spatial_dims), 0.5)
    both = [cube(0, 3, spatial_dims), cube(5, 7, spatial_dims)]
    np.testing.assert_array_equal(predict_boxes(heat, 0.25, "each"), both)  # a voxel at the threshold is inside
    np.testing.assert_array_equal(predict_boxes(heat, 0.25, "largest"), both[:1])
    np.testing.assert_array_equal(predict_boxes(heat, 0.3, "largest"), both[1:])
    assert len(predict_boxes(heat, 0.6, "each")) == 0


@pytest.mark.parametrize(("spatial_dims", "shifted"), [(2, 1 / 7), (3, 1 / 15)])
def test_best_overlaps(spatial_dims, shifted):
    # two cubes of edge 2, shifted by 1 along every axis: 1 voxel of 2 * 2^d - 1
    truth = np.array([cube(0, 2, spatial_dims), cube(10, 11, spatial_dims)], dtype=float)
    predicted = np.array([cube(1, 3, spatial_dims), cube(5, 9, spatial_dims)], dtype=float)
    np.testing.assert_allclose(best_overlaps(truth, predicted), [shifted, 0], rtol=1e-6)
    np.testing.assert_allclose(best_overlaps(truth, truth[::-1]), [1, 1], rtol=1e-6)
    np.testing.assert_array_equal(best_overlaps(truth, predicted[:0]), [0, 0])


def test_inside_boxes(spatial_dims):
    # voxels 1 and 2 have their centers, 1.5 and 2.5, between 0.6 and 2.6; a box of half a voxel may hold none
    boxes = np.array([cube(0.6, 2.6, spatial_dims), cube(3.6, 4.4, spatial_dims), cube(-0.001, 0.4, spatial_dims)])
    expected = fill(np.zeros((5,) * spatial_dims, dtype=bool), cube(1, 3, spatial_dims), True)
    np.testing.assert_array_equal(inside_boxes((5,) * spatial_dims, boxes), expected)


def test_evaluate_case(spatial_dims):
    heat = fill(np.zeros((4,) * spatial_dims), cube(1, 2, spatial_dims))
    truth = np.array([cube(1, 3, spatial_dims)])
    case = evaluate_case("a", "mass", heat, truth, [0.5])
    assert (case.pointed, case.constant, case.share) == (True, False, 0.5**spatial_dims)
    np.testing.assert_array_equal(case.predicted[0.5], [cube(1, 2, spatial_dims)])
    assert not evaluate_case("a", "mass", heat[::-1], truth + 1, [0.5]).pointed


def test_the_middle_of_a_plateau_is_pointed_at(spatial_dims):
    heat = fill(np.full((12,) * spatial_dims, 0.2), cube(1, 8, spatial_dims), 0.5)
    fill(heat, cube(2, 7, spatial_dims), 1)  # voxels 2 to 6, the middle one is 4
    fill(heat, cube(2, 4, spatial_dims), 1 - 1e-7)  # what interpolation makes of equal values
    fill(heat, cube(10, 12, spatial_dims), 1)  # a smaller plateau
    assert find_peak(heat) == (4,) * spatial_dims
    for low, pointed in ((4, True), (2, False)):
        truth = np.array([cube(low, low + 1, spatial_dims)])
        assert evaluate_case("a", "mass", heat, truth, [0.5]).pointed is pointed


def test_a_finding_may_be_called_all():
    heat, truth = fill(np.zeros((8, 8)), cube(0, 2, 2)), np.array([cube(0, 2, 2)])
    names = {"a": "all", "b": "all findings", "c": "mass"}
    cases = [evaluate_case(image, name, heat, truth, THRESHOLDS) for image, name in names.items()]
    report = make_report(cases, 0.5, "largest")
    boxes = {name: found["boxes"] for name, found in report["findings"].items()}
    assert boxes == {"all": 1, "all findings": 1, "mass": 1, "all findings findings": 3}
    assert list(report["sweep"]) == list(boxes)
    assert report["total"] == "all findings findings"
    assert make_report(cases[2:], 0.5, "largest")["total"] == "all"


@pytest.mark.parametrize("value", [0.0, 0.7])
def test_constant_map_points_nowhere(spatial_dims, value):
    shape = (4,) * spatial_dims
    case = evaluate_case("a", "mass", np.full(shape, value), np.array([cube(0, 4, spatial_dims)]), [0.8])
    assert (case.constant, case.pointed, len(case.predicted[0.8])) == (True, False, 0)


def test_summarize(spatial_dims):
    # image a: true cubes of edge 4 and 2, the map is the smaller one and half of the larger one; image b: nothing
    shape, size = (16,) * spatial_dims, 4**spatial_dims
    heat = fill(np.zeros(shape), cube(0, 4, spatial_dims)) * 0.5
    heat[2:4] = 0  # half of the cube along the first axis: IoU 1/2
    fill(heat, cube(10, 12, spatial_dims), 0.8)
    truth = np.array([cube(0, 4, spatial_dims), cube(10, 12, spatial_dims)])
    cases = [
        evaluate_case("a", "mass", heat, truth, [0.5, 0.6]),
        evaluate_case("b", "mass", np.zeros(shape), np.array([cube(6, 10, spatial_dims)]), [0.5, 0.6]),
    ]
    found = summarize(cases, 0.5, "each")
    counts = [found[name] for name in ("boxes", "images", "cases", "constant_maps")]
    assert counts == [3, 2, 2, 1]
    accuracy = dict.fromkeys(map(str, OVERLAPS), 2 / 3) | {"0.6": 1 / 3}
    assert found["accuracy"] == pytest.approx(accuracy)
    assert found["pointing_game"] == 0.5
    shares = ((size + 2**spatial_dims) / 16**spatial_dims, size / 16**spatial_dims)
    assert found["pointing_at_random"] == pytest.approx(sum(shares) / 2)
    assert summarize(cases, 0.6, "largest")["accuracy"]["0.6"] == pytest.approx(1 / 3)
    largest = {least: share - 1 / 3 for least, share in accuracy.items()}  # without the smaller cube
    assert summarize(cases, 0.5, "largest")["accuracy"] == pytest.approx(largest)


def test_centered_box_has_the_mean_size(spatial_dims):
    shape = (16,) * spatial_dims
    truths = [cube(6, 10, spatial_dims), cube(0, 2, spatial_dims)]  # mean edge 3: from 6.5 to 9.5
    cases = [evaluate_case(str(box), "mass", np.zeros(shape), np.array([box]), [0.5]) for box in truths]
    found = summarize(cases, 0.5, "largest")
    assert found["mean_box_size"] == [3.0] * spatial_dims
    reached = (3 / 4) ** spatial_dims  # the first box holds the centered one
    expected = {str(least): 0.5 * (reached >= least) for least in OVERLAPS}
    assert found["accuracy_of_centered_box"] == expected
    inside = centered_box((4,) * spatial_dims, np.full(spatial_dims, 6.0))
    np.testing.assert_array_equal(inside, [cube(0, 4, spatial_dims)])


def test_find_layer(spatial_dims):
    network = planted(spatial_dims)
    assert (find_layer(network), find_layer(network, 3)) == ("0", "3")  # the command line makes a number of 3
    assert find_layer(resnet10(spatial_dims=spatial_dims, n_input_channels=1, feed_forward=False)) == "layer4"


@pytest.mark.parametrize("network", [nn.Sequential(nn.Linear(2, 2)), nn.Sequential(nn.AdaptiveAvgPool2d(1))])
def test_no_layer_known(network):
    with pytest.raises(InputError, match=r"no layer .* is known for Sequential; give --target_layer, one of 0"):
        find_layer(network)
    with pytest.raises(InputError, match="target_layer layer9 is no layer of Sequential, which has 0, 1, 2, 3"):
        find_layer(planted(2), "layer9")


def test_heat_map_is_the_weighted_activation(spatial_dims):
    # the second logit is mean(x) + 3 mean(1 - x), its Grad-CAM (x + 3 (1 - x)) / N = (3 - 2 x) / N, scaled 1 - x
    image = np.random.default_rng(0).random((6,) * spatial_dims)
    image.flat[:2] = 0, 1
    preprocessing, sample = prepare(image, (6,) * spatial_dims)
    cam = make_cam(planted(spatial_dims, ((1.0, 0.0), (1.0, 3.0))).requires_grad_(False), "0")
    for class_index, expected in enumerate((image, 1 - image)):
        heat = heat_map(cam, preprocessing, sample, class_index)
        torch.testing.assert_close(heat.as_tensor()[0], torch.tensor(expected, dtype=torch.float32), atol=1e-5, rtol=0)


def test_heat_map_of_a_resized_image_boxes_what_is_bright_or_dark(spatial_dims):
    shape = (24, 16, 20)[:spatial_dims]
    bright, dark = cube(2, 6, spatial_dims), cube(8, 14, spatial_dims)
    image = fill(fill(np.full(shape, 0.5), bright, 1), dark, 0)
    preprocessing, sample = prepare(image, [length // 2 for length in shape])
    cam = make_cam(planted(spatial_dims), "0")
    check_cam(cam, sample, 2)
    for class_index, box in enumerate((bright, dark)):
        heat = heat_map(cam, preprocessing, sample, class_index)[0].numpy()
        assert heat.shape == shape
        np.testing.assert_array_equal(predict_boxes(heat, 0.6, "each"), [box])


def test_negative_evidence_gives_a_map_of_zeros_and_nan_none(spatial_dims):
    preprocessing, sample = prepare(np.random.default_rng(0).random((4,) * spatial_dims), (4,) * spatial_dims)
    cam = make_cam(planted(spatial_dims, ((-1.0, -1.0), (0.0, 1.0))), "0")
    assert not heat_map(cam, preprocessing, sample, 0).any()
    preprocessing, sample = prepare(np.full((4,) * spatial_dims, math.nan), (4,) * spatial_dims)
    sample["image"].meta["filename_or_obj"] = "a.png"
    with pytest.raises(InputError, match=r"a\.png: the heat map holds NaN"):
        heat_map(cam, preprocessing, sample, 0)


def test_check_cam(spatial_dims):
    _, sample = prepare(np.ones((4,) * spatial_dims), (4,) * spatial_dims)
    with pytest.raises(InputError, match=r"outputs of shape \(2,\) for 3 class_names"):
        check_cam(make_cam(planted(spatial_dims), "0"), sample, 3)
    with pytest.raises(InputError, match=r"target_layer 2 gives features of shape \(2,\), which are no map"):
        check_cam(make_cam(planted(spatial_dims), "2"), sample, 2)


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ("layer4.0.bn1", "target_layer layer4.0.bn1 is changed in place by what follows"),  # a ReLU
        ("layer4.0.bn2", "target_layer layer4.0.bn2 is changed in place by what follows"),  # += the shortcut
        ("layer4.0.act", "target_layer layer4.0.act runs 2 times in one pass"),
        ("avgpool", r"target_layer avgpool gives features of shape \(512, 1, .*, which are no map; name one before"),
        ("layer4.0.conv1", None),
        ("layer4", None),
    ],
)
def test_layers_that_are_changed_in_place_or_run_twice(spatial_dims, layer, message):
    network = resnet10(spatial_dims=spatial_dims, n_input_channels=1, num_classes=2, feed_forward=True)
    preprocessing, sample = prepare(np.random.default_rng(0).random((32,) * spatial_dims), (32,) * spatial_dims)
    cam = make_cam(network, layer)
    with nullcontext() if message is None else pytest.raises(InputError, match=message):
        check_cam(cam, sample, 2)
        assert heat_map(cam, preprocessing, sample, 1).shape == (1, *(32,) * spatial_dims)


def test_overlay():
    picture = overlay(np.array([0.5, 0.5]), np.array([0.0, 1.0]))
    np.testing.assert_allclose(picture, [[0.5] * 3, [0.4 * 0.5 + 0.6 * 0.5, 0.2, 0.2]])  # clear; dark red at the top


@pytest.mark.parametrize("codes", ["RAS", "LPS", "PIR", "SAL"])
def test_face_viewer_turns_volume_and_boxes_alike(codes):
    shape, box = (5, 6, 7), [1, 2, 0, 2, 6, 3]
    wanted = nib.orientations.ornt_transform(*map(nib.orientations.axcodes2ornt, ("RAS", codes)))
    affine = nib.Nifti1Image(np.zeros(shape), np.eye(4)).as_reoriented(wanted).affine
    assert nib.aff2axcodes(affine) == tuple(codes)
    image = nib.Nifti1Image(fill(np.zeros(shape), box), affine)
    turned, turn = face_viewer(np.asarray(image.dataobj), affine)
    wanted = nib.orientations.ornt_transform(nib.io_orientation(affine), nib.orientations.axcodes2ornt("LPS"))
    assert nib.aff2axcodes(image.as_reoriented(wanted).affine) == ("L", "P", "S")
    np.testing.assert_array_equal(turned, np.asarray(image.as_reoriented(wanted).dataobj))
    np.testing.assert_array_equal(component_boxes(turned > 0), turn_boxes(np.array([box]), turn))


def test_face_viewer_keeps_pictures():
    array, boxes = np.arange(6).reshape(2, 3), np.array([[0, 1, 2, 3]])
    turned, turn = face_viewer(array, np.eye(4))
    np.testing.assert_array_equal(turned, array)
    np.testing.assert_array_equal(turn_boxes(boxes, turn), boxes)


def color_box(tile, color):
    """Columns and rows that pixels of a color reach, exclusive ends."""
    rows, columns = np.nonzero((np.asarray(tile) == color).all(axis=-1))
    return [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]


def test_draw_boxes(spatial_dims):
    # 32 voxels of 2 mm across and 16 of 4 mm down: the tile is square; a volume in LPS axes needs no turn
    shape, affine = (32, 16, 4)[:spatial_dims], np.diag([-2.0, -4.0, 3.0, 1.0])
    ends = np.array([[4, 2, 1], [12, 6, 4]], dtype=float)[:, :spatial_dims]
    truth, predicted = (box.reshape(1, -1) for box in (ends, np.add(ends, (8, 4, 0)[:spatial_dims])))
    image = np.random.default_rng(0).random(shape)
    row = draw_boxes(image, np.zeros(shape), truth, predicted, affine, "caption")
    assert row.lines == [["caption"]]
    assert draw_grid([row]).size == (2 * (WIDTH + GAP) + GAP, TITLE + WIDTH + GAP)
    for tile in row.tiles:
        assert color_box(tile, GREEN) == [40, 40, 120, 120]  # 10 pixels a voxel across, 20 down
        assert color_box(tile, RED) == [120, 120, 200, 200]


def test_draw_boxes_leaves_out_what_the_slice_does_not_meet():
    shape, truth = (8, 8, 9), np.array([[1.0, 1, 2, 4, 4, 5]])
    tile, _ = draw_boxes(np.ones(shape), np.zeros(shape), truth, np.array([[1.0, 1, 5, 4, 4, 8]]), np.eye(4)).tiles
    assert (np.asarray(tile) == GREEN).all(axis=-1).any()
    assert not (np.asarray(tile) == RED).all(axis=-1).any()


def test_draw_boxes_where_the_map_is_constant(spatial_dims):
    shape, truth = (8, 8, 9)[:spatial_dims], np.array([[1.0] * spatial_dims + [4.0] * spatial_dims])
    tile, _ = draw_boxes(np.ones(shape), np.zeros(shape), truth, np.zeros((0, 2 * spatial_dims)), np.eye(4)).tiles
    assert (np.asarray(tile) == GREEN).all(axis=-1).any()
    assert not (np.asarray(tile) == RED).all(axis=-1).any()
