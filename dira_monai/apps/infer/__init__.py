"""Inference of a bundle on files, folders and DICOM series."""

from .run import infer
from .table import Inference, Result

__all__ = ["Inference", "Result", "infer"]
