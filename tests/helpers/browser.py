"""A page in a headless Chromium, where one is installed."""

import html
import json
import os
import re
import shutil
import subprocess

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
MEASURE = """
<script>
addEventListener("load", () => setTimeout(() => {
  const inner = document.querySelector("iframe").contentDocument, root = inner.documentElement;
  const inside = [...inner.querySelectorAll("svg")].every(svg => {
    const box = svg.getBBox(), view = svg.viewBox.baseVal;
    return box.x >= -1 && box.y >= -1 && box.x + box.width <= view.width + 1 && box.y + box.height <= view.height + 1;
  });
  document.title = JSON.stringify({
    width: root.scrollWidth, room: root.clientWidth, inside,
    images: [...inner.images].map(image => image.naturalWidth),
    wide: [...inner.querySelectorAll(".scroll")].some(box => box.scrollWidth > box.clientWidth),
    color: inner.defaultView.getComputedStyle(inner.body).backgroundColor,
  });
}, 200));
</script>
"""


def find_browser():
    """The program that $CHROMIUM names, or one on the path; None where there is none."""
    named = os.environ.get("CHROMIUM")
    return named or next((found for name in NAMES if (found := shutil.which(name))), None)


def open_page(browser, content, folder, width, dark=False):
    """What the browser measures of a page in a window of a width, and the messages of its console."""
    # in a frame, since the window itself is never narrower than 500 pixels; the page's own rules hold in it
    content = content.replace(' loading="lazy"', "")
    frame = f'<iframe width="{width}" height="900" style="border: 0" srcdoc="{html.escape(content)}"></iframe>'
    scheme = "dark" if dark else "light"
    path = folder / f"{width}_{scheme}.html"
    path.write_text(f"<!DOCTYPE html><meta charset='utf-8'>{frame}{MEASURE}")
    words = [
        browser,
        "--headless",
        "--hide-scrollbars",
        "--no-sandbox",
        "--disable-gpu",
        "--enable-logging=stderr",
        "--dump-dom",
    ]
    words += [f"--user-data-dir={folder / 'profile'}", f"--blink-settings=preferredColorScheme={0 if dark else 1}"]
    words += ["--window-size=1600,1000", "--virtual-time-budget=5000", path.as_uri()]
    result = subprocess.run(words, capture_output=True, text=True, timeout=120, check=True)
    title = re.search(r"<title>(\{.*?\})</title>", result.stdout)
    assert title, result.stderr
    return json.loads(html.unescape(title[1])), re.findall(r"CONSOLE.*", result.stderr)
