"""Discriminative objectives: heads, state and loss of learning by telling images apart."""

from ..networks.heads import Projector
from ..networks.momentum import follow
from .byol import BYOL
from .combined import CombinedObjective
from .gravis import GraVIS
from .moco import MoCo
from .no_objective import NoObjective
from .objective import Objective
from .pcrlv2 import PCRLv2
from .siamese import BarlowTwins, SimSiam
from .simclr import SimCLR
from .visual_words import VisualWords
from .voco import VoCo

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
