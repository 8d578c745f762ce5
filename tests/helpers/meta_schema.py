"""The schema of MONAI's metadata, as near to the newest as can be had offline."""

import json
import re
from pathlib import Path

import jsonschema

TEXT = (Path(__file__).parents[1] / "golden/meta_schema_20220324.json").read_text()


def newest_schema():
    """That of 2022 with what meta_schema_20240725 has changed: a key's name, and one rule for every data format."""
    schema = json.loads(TEXT.replace("optional_packages_version", "required_packages_version"))
    schema["patternProperties"] = {"_data_format$": {"type": "object", "required": ["inputs", "outputs"]}}
    return schema


def check_metadata(metadata):
    """Hold metadata to the schema; every input and output of every network is described alike."""
    jsonschema.validate(metadata, newest_schema())
    assert metadata["version"] in metadata["changelog"]
    described = newest_schema()["properties"]["network_data_format"]["properties"]["outputs"]["properties"]["pred"]
    for name in (name for name in metadata if re.search("_data_format$", name)):
        for side in ("inputs", "outputs"):
            for tensor in metadata[name][side].values():
                jsonschema.validate(tensor, described)
