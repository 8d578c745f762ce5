"""Parts that MONAI lacks for self-supervised pre-training by discrimination, restoration and adversary (DiRA)."""

__version__ = "0.1.0"
