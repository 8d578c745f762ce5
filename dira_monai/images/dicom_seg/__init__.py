"""Label maps as DICOM segmentations."""
