import base64
import io

import numpy as np
import pytest
from html_pages import read_page
from PIL import Image

from dira_monai.visualize.html import clean, data_uri, details, figure, grid, image, legend, page, section, table

FOREIGN = '<script>alert("x")</script> & \x00\u202egnp.\udcff\'"'


def test_foreign_text_stays_text_wherever_it_stands():
    parts = [
        section(FOREIGN, table([FOREIGN], [[FOREIGN]]), legend([FOREIGN]), details(FOREIGN, "x")),
        figure(FOREIGN, image(data_uri(Image.new("L", (2, 2))), FOREIGN), FOREIGN),
    ]
    found = read_page(page(FOREIGN, parts))
    shown = FOREIGN.replace("\x00", "\ufffd").replace("\u202e", "\ufffd").replace("\udcff", "\ufffd")
    for tag in ("title", "h1", "h2", "th", "td", "b", "summary", "figcaption", "small"):
        assert found.text(tag) == [shown]
    assert found.all("img")[0]["alt"] == shown
    page(FOREIGN, parts).encode()  # a half of a surrogate pair cannot be encoded


def test_a_page_forbids_to_load_or_run_anything():
    found = read_page(page("x", []))
    policy = next(meta["content"] for meta in found.all("meta") if "http-equiv" in meta)
    assert policy == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def test_parts_of_nothing_are_left_out():
    assert section("x", "", "") == grid([]) == details("x", "") == table(["a"], []) == legend([]) == ""
    assert clean(None) == "None"


@pytest.mark.parametrize(("width", "expected"), [(10, (10, 4)), (200, (50, 20))])
def test_a_wide_picture_is_made_smaller(width, expected):
    pixels = np.tile(np.arange(width) * 255 // width, (width * 2 // 5, 1)).astype(np.uint8)
    uri = data_uri(Image.fromarray(pixels), max_width=50)

    with Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))) as picture:
        assert picture.size == expected
        assert np.abs(np.asarray(picture)[0, :, 0].astype(int) - np.linspace(0, 255, expected[0])).max() < 30
