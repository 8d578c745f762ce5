#!/usr/bin/env bash
# MONAI refuses an expression of a bundle's configuration that has a reference and, anywhere, the letters "import".
#
# Versions: monai 1.6.1, numpy 2.4.6, torch 2.13.0 (CPU).
# "$@importance * 3" with "importance": 2 ends in "SyntaxError: invalid syntax"; "$@weight * 3" with "weight": 2 is 6.
# To find out whether an expression is an import statement, MONAI parses it as Python where "import" is in it, but before
# the references are replaced, and @importance is no Python. "$len(@names + ['imported'])" fails in the same way.
# Exit status 0: the behaviour is as described; 1: it has changed.
set -euo pipefail
T=$(mktemp -d)
trap 'rm -rf "$T"' EXIT
python3 -m venv "$T/env"
"$T/env/bin/python" -m pip install --quiet torch==2.13.0
"$T/env/bin/python" -m pip install --quiet monai==1.6.1 numpy==2.4.6
cd "$T"
"$T/env/bin/python" -W ignore - <<'PY'
import sys

from monai.bundle import ConfigParser

seen = []
for config in (
    {"weight": 2, "scaled": "$@weight * 3"},
    {"importance": 2, "scaled": "$@importance * 3"},
    {"names": ["a"], "scaled": "$len(@names + ['made'])"},
    {"names": ["a"], "scaled": "$len(@names + ['imported'])"},
):
    try:
        seen.append(ConfigParser(config).get_parsed_content("scaled"))
    except SyntaxError as error:
        seen.append(f"SyntaxError: {error.msg}")
    print(f"{config['scaled']:32} {seen[-1]}")

sys.exit(seen != [6, "SyntaxError: invalid syntax", 2, "SyntaxError: invalid syntax"])
PY
echo "as described"
