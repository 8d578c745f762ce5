"""Parts that MONAI lacks for self-supervised pre-training by discrimination, restoration and adversary (DiRA).

Configs name the parts as ``dira_monai.X``.
"""

__version__ = "0.1.0"

from .backbones import check_patch_size, decode, encode, encoder_only, encoder_state
from .bundle import bundle_root, inference_items
from .checkpoint import Checkpoint, LocalObjective, StrictCheckpointLoader, load_weights
from .classification import ClassificationLoss, check_classes, class_weights
from .color import ColorJitter, Grayscale, Solarize
from .command_words import check_command_line
from .data import PretrainDataset, SeededSampler, ToChannelsd, ToStoraged, check_intensity_range, intensity_transform
from .datalist import load_datalist, make_datalist, prepare_data
from .distortions import BlockShuffling, InPainting, LocalPixelShuffling, OneOf, OutPainting
from .distributed import rank, synchronize_batch_norm, world_size
from .embedding_losses import barlow_twins, negative_cosine, nt_xent
from .errors import InputError, plain_errors
from .evaluator import DiRAEvaluator
from .finetuning import EarlyStop, FineTuner, SeededCacheDataset, check_output, layer_groups
from .genesis import GenesisUNet
from .grid_views import GridViews
from .health import HealthWatch
from .intensity import GaussianBlur, GaussianNoise, Jitter, NonlinearIntensity
from .label_panel import LabelPanel
from .labelled import LabelledLists, prepare_labelled
from .losses import discriminator_loss, generator_loss, info_nce
from .masking import Masking
from .monitors import collapse, psnr, set_accuracy, set_contrastive
from .objectives import (
    BYOL,
    BarlowTwins,
    CombinedObjective,
    GraVIS,
    MoCo,
    NoObjective,
    PCRLv2,
    SimCLR,
    SimSiam,
    VisualWords,
    VoCo,
)
from .optimizers import LARS, FlooredCosineSchedule, lars_groups, optimizer_class, rate_groups
from .panel import Panel
from .progress import EvaluationReport, TrainingLog
from .provenance import RunRecord
from .spatial import Chain, ElasticDeformation, RandomResizedCrop, RandomRotation
from .store import check_prepared
from .trainer import DiRATrainer, trainable
from .training import keep_memory
from .views import RandDistortiond, Views
from .weights import load_pretrained
from .word_choice import WordSettings
from .word_data import WordDataset
