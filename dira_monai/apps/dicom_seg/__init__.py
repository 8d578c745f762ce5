"""Dicom seg."""
