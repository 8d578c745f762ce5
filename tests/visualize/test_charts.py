import math
from xml.etree import ElementTree

import pytest
from html_pages import points_of, read_page

from dira_monai.visualize.charts import POINTS, Scale, fit_scale, interval_chart, line_chart, scatter, thin
from dira_monai.visualize.html import LIGHT, page, svg_file


def paths(chart, kind="curve"):
    """Class, name and path of the lines of a chart."""
    found = read_page(page("x", [chart])).all("path")
    return [(p["class"].split()[1], p.get("data-series"), p["d"]) for p in found if p["class"].startswith(kind)]


@pytest.mark.parametrize(
    ("scale", "expected"),
    [
        (Scale(0, 10, 0, 1), [0, 5, 10]),
        (Scale(-0.3, 0.3, 0, 1), [-0.2, 0, 0.2]),
        (Scale(1.1, 1.2, 0, 1), [1.1, 1.15, 1.2]),
        (Scale(2e-5, 0.4, 0, 1, log=True), [1e-4, 1e-3, 1e-2, 1e-1]),
    ],
)
def test_ticks_are_round_values_on_the_axis(scale, expected):
    assert scale.ticks() == pytest.approx(expected)


def test_epochs_have_whole_ticks():
    assert Scale(1, 3, 0, 1).ticks(whole=True) == [1, 2, 3]


def test_a_scale_runs_linearly_or_by_powers():
    assert Scale(2, 4, 10, 30)(3) == 20
    assert Scale(1, 100, 10, 30, log=True)(10) == pytest.approx(20)


@pytest.mark.parametrize(("value", "low", "high"), [(4.0, 2.0, 6.0), (0.0, -0.5, 0.5), (-2.0, -3.0, -1.0)])
def test_one_value_stands_in_the_middle(value, low, high):
    scale = fit_scale([value, value], 0, 1)
    assert (scale.low, scale.high) == (low, high)


def test_the_corners_of_a_line_are_its_values():
    chart = line_chart("two", {"a": [(1, 0.0), (2, 1.0), (5, 0.5)], "b": [(3, 0.25)]}, [1, 5])
    (first, name, path), (second, _, other) = paths(chart)
    assert (first, name, second) == ("c0", "a", "c1")
    assert points_of(path) == [(52, 196), (147, 16), (432, 106)]  # 440 x 220 less the margins 52, 8, 16, 24
    assert points_of(other) == [(242, 151)]


def test_a_value_that_is_not_finite_leaves_a_gap():
    values = [1.0, 2.0, math.nan, 3.0, math.inf, 1.0]
    ((_, _, path),) = paths(line_chart("x", {"a": list(enumerate(values))}, range(6)))
    assert path.count("M") == 3
    assert len(points_of(path)) == 4


def test_values_of_many_sizes_have_a_logarithmic_axis():
    ((_, _, path),) = paths(line_chart("x", {"a": [(1, 0.001), (2, 0.1), (3, 10.0)]}, [1, 3]))
    heights = [y for _, y in points_of(path)]
    assert heights[0] - heights[1] == pytest.approx(heights[1] - heights[2])


def test_few_points_tell_their_values():
    texts = read_page(page("x", [line_chart("x", {"a<b": [(1, 0.123456)]}, [1])])).text("title")
    assert texts == ["x", "epoch 1: a<b 0.1235"]


@pytest.mark.parametrize(("count", "left"), [(3, 3), (400, 400), (401, 201), (402, 202), (1600, 401)])
def test_a_long_line_is_thinned_and_keeps_its_ends(count, left):
    points = [(i, 0.0) for i in range(count)]
    kept = thin(points)
    assert (kept[0], kept[-1]) == (points[0], points[-1])
    assert len(kept) == left <= POINTS + 1
    assert sorted(set(kept)) == kept


def test_a_chart_of_nothing_finite_is_empty():
    assert [path for *_, path in paths(line_chart("x", {"a": [(1, math.nan)]}, [1]))] == [""]


def test_a_scatter_plot_keeps_the_proportions():
    chart = scatter("x", {"a": [(0.0, 0.0), (2.0, 0.0)], "b": [(1.0, 0.5)]}, size=116)
    found = paths(chart, "dots")
    assert [(name, points_of(path)) for _, name, path in found] == [
        ("a", [(8.0, 70.5), (108.0, 70.5)]),
        ("b", [(58.0, 45.5)]),
    ]


def test_a_band_runs_along_its_ends():
    bands = {"a": [(1, 0.0, 0.5), (2, math.nan, 1.0), (3, 0.5, 1.0)]}
    chart = line_chart("x", {"a": [(1, 0.25), (3, 0.75)]}, [1, 3], bands=bands)
    ((color, _, path),) = paths(chart, "band")
    assert color == "c0"
    assert points_of(path) == [(52, 106), (432, 16), (432, 106), (52, 196)]


def test_chosen_ticks_make_a_logarithmic_axis():
    chart = line_chart("x", {"a": [(4, 0.0), (40, 0.5), (400, 1.0)]}, [], ticks=[4, 40, 400], unit="images")
    ((_, _, path),) = paths(chart)
    assert [x for x, _ in points_of(path)] == [52, 237, 422]
    texts = read_page(page("x", [chart])).text("text")
    assert {"4", "40", "400"} <= {*texts}
    assert read_page(page("x", [chart])).text("title")[-1] == "images 400: a 1"


def test_intervals_stand_on_one_axis_with_zero():
    chart = interval_chart("x", [("a<b", 1, 0.5, 0.25, 1.0), ("b", 2, math.nan, 0.0, 1.0)])
    ((color, _, path),) = paths(chart)
    assert (color, points_of(path)) == ("c1", [(248.5, 27), (424, 27)])  # from 190 to 424 pixels: 0 to 1
    assert '<path class="mark" d="M190.00 16V' in chart
    assert "a<b: 0.5 [0.25, 1]" in read_page(page("x", [chart])).text("title")


def test_a_chart_as_a_file_needs_no_page():
    chart = line_chart("x", {"a": [(1, 0.0), (2, 1.0)]}, [1, 2], bands={"a": [(1, 0.0, 0.1), (2, 0.9, 1.0)]})
    text = svg_file(chart, ["a & b", "c"])
    root = ElementTree.fromstring(text)
    assert (root.get("viewBox"), root.get("height")) == ("0 0 440 256", "512")
    assert [node.text for node in root.iter("{http://www.w3.org/2000/svg}text")][-2:] == ["a & b", "c"]
    assert "var(" not in text
    assert f".band.c0 {{ fill: {LIGHT[0]} }}" in text
