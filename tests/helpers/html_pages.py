"""Reading a page of HTML strictly: every element closed, every picture whole, nothing from outside."""

import base64
import io
import math
import re
from html.parser import HTMLParser

from PIL import Image

VOID = ("meta", "link", "img", "br")
ADDRESSES = ("src", "href", "action", "srcset", "data", "poster", "xlink:href")


class Page(HTMLParser):
    """What a page holds.

    Attributes:
        elements: (tag, attributes) in order.
        texts: what stands between them, by the tag around it.
    """

    def __init__(self, content):
        super().__init__(convert_charrefs=True)
        self.elements, self.texts, self.open = [], [], []
        assert content.startswith("<!DOCTYPE html>")
        self.feed(content)
        self.close()
        assert self.open == []
        assert [tag for tag, _ in self.elements][:2] == ["html", "head"]

    def handle_starttag(self, tag, attrs):
        names = [name for name, _ in attrs]
        assert len(set(names)) == len(names)
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        assert "svg" in self.open, "only SVG knows <tag/>"
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if data.strip():
            self.texts.append((self.open[-1], data.strip()))

    def all(self, tag):
        return [attrs for name, attrs in self.elements if name == tag]

    def text(self, tag):
        return [text for around, text in self.texts if around == tag]


def read_page(content):
    """A page after the checks that hold for each: valid, without script, nothing from outside, pictures whole."""
    page = Page(content)
    tags = {tag for tag, _ in page.elements}
    assert not tags & {"script", "iframe", "object", "embed", "base", "form", "audio", "video"}
    for _, attrs in page.elements:
        assert not [name for name in attrs if name.startswith("on")]
        assert all(attrs[name].startswith("data:") for name in ADDRESSES if name in attrs and name != "data")
    assert not re.search(r"url\(|@import", "".join(page.text("style")))
    for attrs in page.all("img"):
        kind, _, content = attrs["src"].partition(";base64,")
        with Image.open(io.BytesIO(base64.b64decode(content, validate=True))) as picture:
            picture.load()
            assert f"data:image/{picture.format.lower()}" == kind
        assert attrs["alt"]
    return page


def points_of(path):
    """Corners of an SVG path of M and L, as (x, y)."""
    return [(float(x), float(y)) for x, y in re.findall(r"[ML]([-\d.]+) ([-\d.]+)", path)]


def plotted(svg_texts, points):
    """Values at the pixels of a chart, found from the numbers of its axes alone.

    Args:
        svg_texts: (attributes, text) of the chart's numbers.
        points: (x, y) in pixels.
    """
    ends = [(float(attrs["y"]) - 4, float(text)) for attrs, text in svg_texts if attrs["text-anchor"] == "end"]
    middles = [(float(attrs["x"]), float(text)) for attrs, text in svg_texts if attrs["text-anchor"] == "middle"]
    return [(_along(middles, x), _along(ends, y)) for x, y in points]


def _along(ticks, pixel):
    if len(ticks) < 2:
        return math.nan
    (first, low), (last, high) = ticks[0], ticks[-1]
    return low + (pixel - first) / (last - first) * (high - low)
