"""The pages of the documentation and what stands on them for a shell or for Python."""

import re
import shlex
from pathlib import Path

ROOT = Path(__file__).parents[2]
SITE = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
PAGES = [*SITE, *sorted(ROOT.glob("bundles/*/docs/README.md"))]
COMMAND = re.compile(r"(?:\w+=\S+ |srun )*(?:\S*python[\d.]* |\S*pip |torchrun |make |curl |dira-monai |-m )")
ASSIGNMENT = re.compile(r"([A-Z]\w*)=(\S+|\".*\"|'.*')(\s+#.*)?")


def code_lines(text):
    """In their order the lines of blocks, fenced or indented, and inline code; and whether each is of a block."""
    fenced = False
    for line in re.sub(r"\\\n\s*", "", text).splitlines():
        if line.startswith("```"):
            fenced = not fenced
        elif fenced or line.startswith("    "):
            yield line.strip(), True
        else:
            yield from ((code, False) for code in re.findall(r"`([^`]+)`", line))


def with_options(line):
    """The line with the options that may be left out, which stand in brackets, and with a method in METHOD's place."""
    return re.sub(r"\[(--[^\]]*)\]", r"\1", re.sub(r"\bMETHOD\b", "simsiam", line))


def commands(page):
    """Words of each command on the page, variables of the page replaced, and whether it is of a block."""
    variables = {"B": "bundles/dira_pretrain_3d/configs"}
    for code, whole in code_lines(page.read_text()):
        line = with_options(re.sub(r"\$(\w+)", lambda found: variables.get(found[1], found[0]), code))
        if assigned := ASSIGNMENT.fullmatch(line):
            variables[assigned[1]] = assigned[2].strip("\"'")
        elif COMMAND.match(line):
            yield shlex.split(re.sub(r"\s#.*", "", line)), whole


def blocks(page):
    """Of each block of commands on the page, fenced or indented: ``bash`` or ``python``, its first line, its text."""
    text = page.read_text()
    found = re.finditer(r"^```(\w*)\n((?s:.*?))^```|(?:^    .+\n)+", text, re.MULTILINE)
    for block in found:
        language = block[1] or "bash"
        body = re.sub(r"^    ", "", block[0], flags=re.MULTILINE) if block[2] is None else block[2]
        if language == "python" or any(COMMAND.match(line) for line in body.splitlines()):
            yield language, text[: block.start()].count("\n") + 1, with_options(body)
