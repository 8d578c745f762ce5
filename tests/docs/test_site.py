"""The documentation as a web site: it builds without a warning, and no part of the package lacks its page."""

import subprocess
import sys

from pages import ROOT


def test_site_builds_and_has_every_part(tmp_path):
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    parts = [path.parent for path in ROOT.glob("dira_monai/*/__init__.py")] + [ROOT / "dira_monai/metrics.py"]
    for part in parts:
        page = (tmp_path / "api" / part.stem / "index.html").read_text()
        modules = [path for path in part.rglob("*.py") if path.stem != "__init__"] or [part]
        dotted = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in modules]
        assert [name for name in dotted if f'id="{name}"' not in page] == []
