"""The reader by the name that archives of version 0.1 hold."""

from .images.reader import ScanReader

__all__ = ["ScanReader"]
