"""Parts that MONAI lacks for self-supervised pre-training by discrimination, restoration and adversary (DiRA).

Configs name the parts as ``dira_monai.X``.
"""

from .apps.visual_words.dataset import WordDataset
from .apps.visual_words.places import WordSettings
from .bundle.command_line import bundle_root, check_command_line
from .data.datasets import PretrainDataset, SeededCacheDataset
from .data.prepared import check_prepared
from .data.preprocessing import ToChannelsd, ToStoraged, check_intensity_range, intensity_transform
from .data.sampler import SeededSampler
from .datalists.io import load_datalist
from .datalists.prepare import prepare_data
from .datalists.prepare_labeled import LabelledLists, prepare_labelled
from .datalists.unlabeled import make_datalist
from .engines.evaluator import DiRAEvaluator
from .engines.finetuner import FineTuner
from .engines.trainer import DiRATrainer
from .handlers.checkpoint import Checkpoint, LocalObjective, StrictCheckpointLoader
from .handlers.collapse_monitor import HealthWatch
from .handlers.early_stop import EarlyStop
from .handlers.evaluation_report import EvaluationReport
from .handlers.label_panel import LabelPanel
from .handlers.restoration_panel import Panel
from .handlers.run_record import RunRecord
from .handlers.training_log import TrainingLog
from .images.find import inference_items
from .images.reader import ScanReader
from .losses.adversarial import discriminator_loss, generator_loss
from .losses.barlow_twins import barlow_twins
from .losses.classification import ClassificationLoss, check_classes, class_weights
from .losses.contrastive import info_nce, negative_cosine, nt_xent
from .metrics import collapse, psnr, set_accuracy, set_contrastive
from .networks.batch_norm import synchronize_batch_norm
from .networks.encoder_decoder import decode, encode, encoder_only, encoder_state
from .networks.genesis_unet import GenesisUNet
from .networks.size_checks import check_output, check_patch_size
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
from .optimizers.groups import lars_groups, layer_groups, optimizer_class, rate_groups, trainable
from .optimizers.lars import LARS
from .optimizers.schedules import FlooredCosineSchedule
from .transforms.color import ColorJitter, Grayscale, Solarize
from .transforms.compose import Chain, OneOf
from .transforms.dictionary import RandDistortiond
from .transforms.grid_views import GridViews
from .transforms.intensity import GaussianBlur, GaussianNoise, Jitter, NonlinearIntensity
from .transforms.masking import Masking
from .transforms.painting import InPainting, OutPainting
from .transforms.shuffling import BlockShuffling, LocalPixelShuffling
from .transforms.spatial import ElasticDeformation, RandomResizedCrop, RandomRotation
from .transforms.views import Views
from .utils.distributed import rank, world_size
from .utils.errors import InputError, plain_errors
from .utils.memory import keep_memory
from .utils.version import __version__
from .weights.files import load_weights
from .weights.pretrained import load_pretrained
