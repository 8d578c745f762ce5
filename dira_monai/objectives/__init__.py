"""Discriminative objectives: heads, state and loss of learning by telling images apart."""

from .base import Objective, Projector, follow
from .byol import BYOL
from .combined import CombinedObjective
from .gravis import GraVIS
from .moco import MoCo
from .none import NoObjective
from .pcrl import PCRLv2
from .siamese import BarlowTwins, SimSiam
from .simclr import SimCLR
from .voco import VoCo
from .words import VisualWords

__all__ = [
    "BYOL",
    "BarlowTwins",
    "CombinedObjective",
    "GraVIS",
    "MoCo",
    "NoObjective",
    "Objective",
    "PCRLv2",
    "Projector",
    "SimCLR",
    "SimSiam",
    "VisualWords",
    "VoCo",
    "follow",
]
