"""Parts that MONAI lacks for self-supervised pre-training by discrimination, restoration and adversary (DiRA).

Configs name the parts as ``dira_monai.X``. Each is imported when it is first asked for (PEP 562), so that commands that
need neither torch nor MONAI start at once.
"""

import importlib
import warnings
from typing import Any

from .utils.version import __version__

_NAMES = {  # the module of each public name
    "apps.infer": "infer",
    "apps.visual_words.dataset": "WordDataset",
    "apps.visual_words.places": "WordSettings",
    "bundle.command_line": "bundle_root check_command_line",
    "bundle.shipped": "bundles",
    "data.datasets": "CheckedCacheDataset PretrainDataset SeededCacheDataset",
    "data.distillation": "DistillationDataset load_teacher",
    "data.loaders": "training_loader validation_loader",
    "data.prepared": "check_prepared",
    "data.preprocessing": "ToChannelsd ToStoraged check_intensity_range intensity_transform pretrain_preprocessing",
    "data.resampling": "ResampleLabeld",
    "data.sampler": "SeededSampler",
    "data.trained_on": "evaluation_list tell_seen",
    "datalists.io": "load_datalist",
    "datalists.prepare": "prepare_data",
    "datalists.prepare_labeled": "LabeledLists prepare_labeled",
    "datalists.unlabeled": "inference_items make_datalist",
    "engines.activations": "checkpoint_activations",
    "engines.evaluator": "DiRAEvaluator",
    "engines.finetuner": "FineTuner",
    "engines.trainer": "DiRATrainer",
    "handlers.bundle_scores": "BundleScores",
    "handlers.checkpoint": "Checkpoint",
    "handlers.checkpoint_loader": "LocalObjective StrictCheckpointLoader",
    "handlers.collapse_monitor": "CollapseMonitor",
    "handlers.early_stop": "EarlyStop",
    "handlers.evaluation_report": "EvaluationReport",
    "handlers.label_panel": "LabelPanel",
    "handlers.mlflow_names": "name_for_mlflow",
    "handlers.pretrain_metrics": "pretrain_metrics",
    "handlers.report.handler": "HtmlReport",
    "handlers.restoration_panel": "Panel",
    "handlers.run_bundle": "RunBundle",
    "handlers.run_record": "RunRecord",
    "handlers.training_log": "TrainingLog name_finetuning",
    "images.reader": "ScanReader",
    "losses.adversarial": "discriminator_loss generator_loss",
    "losses.barlow_twins": "barlow_twins",
    "losses.classification": "ClassificationLoss check_classes class_weights",
    "losses.contrastive": "info_nce negative_cosine nt_xent",
    "metrics": "psnr rank_collapse retrieval_accuracy retrieval_info_nce",
    "networks.batch_norm": "synchronize_batch_norm",
    "networks.encoder_decoder": "decode encode encoder_only encoder_state",
    "networks.genesis_unet": "GenesisUNet",
    "networks.no_skip_unet": "NoSkipUNet",
    "networks.size_checks": "check_output check_patch_size",
    "objectives.byol": "BYOL",
    "objectives.combined": "CombinedObjective",
    "objectives.distillation": "Distillation",
    "objectives.fusion_segmentation": "FusionSegmentation",
    "objectives.gravis": "GraVIS",
    "objectives.moco": "MoCo",
    "objectives.no_objective": "NoObjective",
    "objectives.pcrlv2": "PCRLv2",
    "objectives.siamese": "BarlowTwins SimSiam",
    "objectives.simclr": "SimCLR",
    "objectives.visual_words": "VisualWords",
    "objectives.voco": "VoCo",
    "optimizers.groups": "optimizer_class param_groups_lars param_groups_layer_decay rate_groups trainable_parameters",
    "optimizers.lars": "LARS",
    "optimizers.schedules": "FlooredCosineSchedule",
    "transforms.color": "ColorJitter Grayscale Solarize",
    "transforms.compose": "Compose OneOf",
    "transforms.dictionary": "RandDistortiond",
    "transforms.fusion": "VolumeFusion",
    "transforms.grid_views": "GridViews",
    "transforms.intensity": "GaussianBlur GaussianNoise IntensityJitter NonlinearIntensity",
    "transforms.masking": "Masking",
    "transforms.painting": "InPainting OutPainting",
    "transforms.primitives": "Primitives",
    "transforms.shuffling": "BlockShuffling LocalPixelShuffling",
    "transforms.spatial": "ElasticDeformation RandomResizedCrop RandomRotation",
    "transforms.views": "Views",
    "utils.distributed": "rank world_size",
    "utils.errors": "InputError install_error_hook",
    "utils.watch": "join_processes leave_processes",
    "utils.memory": "tune_malloc",
    "weights.files": "load_weights",
    "weights.pretrained": "load_pretrained",
    "workflows.embed": "embed",
    "workflows.evaluate": "evaluate",
    "workflows.study.run": "study",
    "workflows.train": "finetune pretrain",
}

_HOMES = {name: module for module, names in _NAMES.items() for name in names.split()}

_FORMER = {  # names of version 0.1, which configs and archives may hold
    "Chain": "Compose",
    "HealthWatch": "CollapseMonitor",
    "Jitter": "IntensityJitter",
    "LabelledLists": "LabeledLists",
    "collapse": "rank_collapse",
    "keep_memory": "tune_malloc",
    "lars_groups": "param_groups_lars",
    "layer_groups": "param_groups_layer_decay",
    "plain_errors": "install_error_hook",
    "prepare_labelled": "prepare_labeled",
    "set_accuracy": "retrieval_accuracy",
    "set_contrastive": "retrieval_info_nce",
    "trainable": "trainable_parameters",
}

__all__ = ["__version__", *sorted(_HOMES)]


def __getattr__(name: str) -> Any:
    """A public name, looked up on first use; a former one with a warning.

    Raises:
        AttributeError: if the package has no such name.
    """
    if name in _FORMER:
        warnings.warn(f"dira_monai.{name} is now dira_monai.{_FORMER[name]}.", FutureWarning, stacklevel=2)
        return getattr(importlib.import_module(__name__), _FORMER[name])
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value = getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
