"""The folder of a run's bundle: whole, and without what killed processes left."""

import pytest

from dira_monai.sharing.bundle_folder import CONFIGS, write_bundle


@pytest.mark.parametrize("config", [b"of before", b"another"], ids=["file by file", "as a whole"])
def test_what_killed_processes_left_goes(tmp_path, config):
    (tmp_path / "model.pt").write_bytes(b"weights")
    files = dict.fromkeys((*CONFIGS, "configs/metadata.json"), b"of before")
    write_bundle(tmp_path / "bundle", files, {"model.pt": tmp_path / "model.pt"})
    for left in (".bundle.1.new/configs/.metadata.json.1.tmp", ".bundle.1.old/LICENSE", "bundle/configs/.a.json.1.tmp"):
        (tmp_path / left).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / left).write_bytes(b"half")
    write_bundle(tmp_path / "bundle", dict.fromkeys(files, config), {"model.pt": tmp_path / "model.pt"})
    found = {p.relative_to(tmp_path).as_posix(): p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    bundle = {f"bundle/{name}": config for name in files} | {"bundle/models/model.pt": b"weights"}
    assert found == bundle | {"model.pt": b"weights"}
