"""Losses, as ``dira_monai.losses.info_nce`` and so on."""

from .adversarial import discriminator_accuracy, discriminator_loss, generator_loss, gradient_penalty
from .barlow_twins import barlow_twins, cross_correlation, redundancy_reduction
from .classification import ClassificationLoss, check_classes, class_weights
from .contrastive import contrastive_accuracy, info_nce, negative_cosine, nt_xent, nt_xent_accuracy
from .restoration import masked_loss
from .smooth_ap import ranking_accuracy, smooth_ap
