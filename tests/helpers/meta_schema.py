"""What MONAI's schema of 25 July 2024 asks of metadata, written anew from its published rules."""

import jsonschema

TEXTS = [
    "schema",
    "version",
    "monai_version",
    "pytorch_version",
    "numpy_version",
    "task",
    "description",
    "authors",
    "copyright",
    "data_source",
    "data_type",
    "image_classes",
    "label_classes",
    "pred_classes",
    "intended_use",
]
OBJECTS = ("changelog", "required_packages_version", "eval_metrics", "supported_apps")
REQUIRED = [*TEXTS[:9], "required_packages_version", "network_data_format"]
KINDS = {
    **{key: {"type": "string"} for key in ("type", "format", "dtype")},
    "num_channels": {"type": "integer"},
    "spatial_shape": {"type": "array", "items": {"type": ["string", "integer"]}},
    "value_range": {"type": "array", "items": {"type": "number"}},
}
TENSOR = {
    "type": "object",
    "properties": KINDS | {"is_patch_data": {"type": "boolean"}, "channel_def": {"type": "object"}},
    "required": [*KINDS],
}
ARGUMENTS = {"type": "object", "additionalProperties": {"anyOf": [{"type": ["number", "string", "boolean"]}, TENSOR]}}
SIDES = dict.fromkeys(("inputs", "outputs", "post_processed_outputs"), ARGUMENTS)
SCHEMA = {
    "type": "object",
    "properties": {name: {"type": "string"} for name in TEXTS}
    | {name: {"type": "object"} for name in OBJECTS}
    | {"references": {"type": "array", "items": {"type": "string"}}},
    "patternProperties": {
        "^[_a-zA-Z0-9]+_data_format$": {"type": "object", "properties": SIDES, "required": ["inputs", "outputs"]}
    },
    "required": REQUIRED,
}


def check_metadata(metadata):
    """Hold metadata to the schema; the version has its line in the changelog."""
    jsonschema.validate(metadata, SCHEMA)
    assert metadata["version"] in metadata["changelog"]
