"""Pages of HTML in one file: no network, no script, readable on a phone and in the dark. All text is escaped here."""

import base64
import html
import io
import re
from collections.abc import Iterable, Sequence

from PIL import Image

# control characters, halves of surrogate pairs (file names that are no UTF-8), and what turns the reading direction
FORBIDDEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
LIGHT = ("#0067a5", "#c2500a", "#00805a", "#b0437f", "#946a00", "#3a8fc4", "#7a5195", "#5c6670", "#a03030", "#4f7a21")
DARK = ("#58b4ee", "#ff9650", "#35cf9f", "#ec9dcb", "#f0b93a", "#9ad6fb", "#c09be0", "#aeb8c3", "#ff8b8b", "#a8d46f")
COLORS = len(LIGHT)  # classes c0, c1, ... of the page

STYLE = """
:root { color-scheme: light dark; --text: #1b1f24; --back: #ffffff; --soft: #5b6570; --line: #d9dee4; --box: #f5f7f9 }
@media (prefers-color-scheme: dark) {
 :root { --text: #e4e8ec; --back: #15181c; --soft: #a0aab4; --line: #343b43; --box: #1e2329 }
}
* { box-sizing: border-box }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--text); background: var(--back); margin: 0 auto;
 max-width: 78rem; padding: 1rem clamp(.75rem, 3vw, 2rem) 3rem; overflow-wrap: anywhere }
h1 { font-size: 1.5rem; margin: .5rem 0 0 } h2 { font-size: 1.15rem; margin: 2.2rem 0 .4rem }
p { margin: .4rem 0; max-width: 60rem } .soft, figcaption small { color: var(--soft) }
.grid { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fill, minmax(min(100%, 21rem), 1fr)) }
.grid + .grid { margin-top: 1rem }
.wide { grid-template-columns: repeat(auto-fill, minmax(min(100%, 32rem), 1fr)) }
figure { margin: 0; padding: .6rem; background: var(--box); border: 1px solid var(--line); border-radius: 6px }
figcaption { font-weight: 600; margin-bottom: .3rem } figcaption small { font-weight: 400; display: block }
figure img { display: block; width: 100%; height: auto; border-radius: 3px }
svg { display: block; width: 100%; height: auto } svg text { font-size: 11px; fill: var(--soft) }
.axis { stroke: var(--line); fill: none } .mark { stroke: var(--soft); stroke-dasharray: 3 3; fill: none }
.curve { fill: none; stroke-width: 2; stroke-linejoin: round; stroke-linecap: round }
.band { fill: currentColor; fill-opacity: .15; stroke-width: 0 }
.dots { fill: none; stroke-width: 6; stroke-linecap: round; stroke-opacity: .75 }
.legend { display: flex; flex-wrap: wrap; gap: .1rem .9rem; font-size: 13px; margin: .3rem 0 .4rem }
.legend span::before { content: ""; display: inline-block; width: .8em; height: .8em; margin-right: .35em;
 border-radius: 2px; background: currentColor }
.legend b { font-weight: 400; color: var(--text) }
.scroll { overflow-x: auto; margin: .5rem 0 } table { border-collapse: collapse; font-size: 14px }
th, td { text-align: left; vertical-align: top; padding: .25rem .7rem .25rem 0; border-bottom: 1px solid var(--line) }
th { font-weight: 600; white-space: nowrap } td { min-width: 3.5rem; max-width: 34rem } code { font-size: .9em }
summary { cursor: pointer; color: var(--soft); margin: .6rem 0 }
"""


def svg_file(svg: str, texts: Sequence[str] = ()) -> str:
    """A chart as a file of its own, on white, with plain texts below it, each in its color.

    Its style has plain colors, since not every program knows the variables of a page.
    """
    values = dict(re.findall(r"(--\w+): (#\w+)", STYLE.split("@media")[0]))
    charts = STYLE[STYLE.index("svg text") : STYLE.index(".legend {")]
    style = re.sub(r"var\((--\w+)\)", lambda found: values[found[1]], " ".join(charts.split()))
    style += "".join(f" .c{i} {{ stroke: {color} }} .band.c{i} {{ fill: {color} }}" for i, color in enumerate(LIGHT))
    width, height = map(float, re.findall(r'viewBox="0 0 (\S+) (\S+)"', svg)[0])
    total = height + 14 * len(texts) + (8 if texts else 0)
    lines = [
        f'<text x="8" y="{height + 14 * (i + 1):g}" style="fill: {LIGHT[i % COLORS]}">{clean(text)}</text>'
        for i, text in enumerate(texts)
    ]
    head, body = svg.split(">", 1)
    size = f'xmlns="http://www.w3.org/2000/svg" width="{2 * width:g}" height="{2 * total:g}"'
    head = head.replace("<svg", f"<svg {size}", 1).replace(f'0 0 {width:g} {height:g}"', f'0 0 {width:g} {total:g}"')
    back = f'<rect width="{width:g}" height="{total:g}" fill="#ffffff"/>'
    parts = [
        f"{head}><style>text {{ font-family: sans-serif }} {style}</style>",
        back,
        body.replace("</svg>", "").strip(),
    ]
    return "\n".join([*parts, *lines, "</svg>", ""])


def clean(value: object) -> str:
    """Foreign text, such as the name of a file or a class, that can stand in a page and in a quoted attribute."""
    return html.escape(FORBIDDEN.sub("\ufffd", str(value)))


def page(title: str, parts: Iterable[str]) -> str:
    """A whole page, which is forbidden to load or run anything.

    Args:
        title: plain text.
        parts: of the body, HTML.
    """
    colors = "".join(f".c{i} {{ color: {color}; stroke: {color} }}\n" for i, color in enumerate(LIGHT))
    dark = "".join(f" .c{i} {{ color: {color}; stroke: {color} }}\n" for i, color in enumerate(DARK))
    head = [
        '<meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; '
        "style-src 'unsafe-inline'\">",
        '<link rel="icon" href="data:,">',
        f"<title>{clean(title)}</title>",
        f"<style>{STYLE}{colors}@media (prefers-color-scheme: dark) {{\n{dark}}}\n</style>",
    ]
    body = [f"<h1>{clean(title)}</h1>", *parts]
    return "\n".join(
        ["<!DOCTYPE html>", '<html lang="en">', "<head>", *head, "</head>", "<body>", *body, "</body>", "</html>", ""]
    )


def section(title: str, *parts: str) -> str:
    """A heading of plain text over parts of HTML; nothing where all parts are empty."""
    shown = [part for part in parts if part]
    return "\n".join(["<section>", f"<h2>{clean(title)}</h2>", *shown, "</section>"]) if shown else ""


def paragraph(text: str, soft: bool = False) -> str:
    """A paragraph of plain text."""
    kind = ' class="soft"' if soft else ""
    return f"<p{kind}>{clean(text)}</p>"


def grid(figures: Sequence[str], wide: bool = False) -> str:
    """Figures beside each other, as many as the screen has room for; nothing where there are none."""
    kind = "grid wide" if wide else "grid"
    return f'<div class="{kind}">\n' + "\n".join(figures) + "\n</div>" if figures else ""


def details(summary: str, content: str) -> str:
    """Content that opens on a click; nothing where there is none."""
    return f"<details>\n<summary>{clean(summary)}</summary>\n{content}\n</details>" if content else ""


def table(heads: Sequence[object], rows: Iterable[Sequence[object]]) -> str:
    """A table of plain text, which scrolls by itself where it is wider than the screen; nothing without rows."""

    def line(cells: Sequence[object], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{clean(cell)}</{tag}>" for cell in cells) + "</tr>"

    body = [line(row, "td") for row in rows]
    head = f"<thead>{line(heads, 'th')}</thead>" if heads else ""
    return "\n".join(['<div class="scroll"><table>', head, "<tbody>", *body, "</tbody></table></div>"]) if body else ""


def figure(title: str, content: str, note: str = "") -> str:
    """Content under its title, with a note; title and note are plain text."""
    small = f"<small>{clean(note)}</small>" if note else ""
    return f"<figure>\n<figcaption>{clean(title)}{small}</figcaption>\n{content}\n</figure>"


def legend(texts: Sequence[str], colors: Sequence[tuple[int, int, int]] = ()) -> str:
    """Plain texts, each behind a square of its color: one of ``colors``, or of the page's own where there are none."""
    kinds = [f'class="c{i % COLORS}"' for i in range(len(texts))]
    if colors:
        kinds = [f'style="color: rgb{colors[i % len(colors)]}"' for i in range(len(texts))]
    entries = [f"<span {kind}><b>{clean(text)}</b></span>" for kind, text in zip(kinds, texts, strict=True)]
    return '<div class="legend">' + "".join(entries) + "</div>" if texts else ""


def data_uri(picture: Image.Image, max_width: int = 900) -> str:
    """A picture as an address that holds it: JPEG, made smaller where it is wider than ``max_width`` pixels."""
    picture = picture.convert("RGB")
    if picture.width > max_width:
        size = (max_width, max(1, round(picture.height * max_width / picture.width)))
        picture = picture.resize(size, Image.Resampling.LANCZOS)
    content = io.BytesIO()
    picture.save(content, format="JPEG", quality=82)
    return "data:image/jpeg;base64," + base64.b64encode(content.getvalue()).decode()


def image(uri: str, description: str) -> str:
    """A picture of ``data_uri`` with a description in plain text."""
    return f'<img src="{uri}" alt="{clean(description)}" loading="lazy">'
