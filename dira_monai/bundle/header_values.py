"""Every value at the top of the bundles' files: what it must be, means, and whether a resumed run may change it.

The tables of options in ``docs`` and the ``--help`` of the commands are made of it, see ``header_docs``.
"""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from ..utils.rules import (
    COUNT,
    COUNT_OR_0,
    NONE,
    NOT_NOTHING,
    NUMBER,
    OBJECT,
    OBJECTS,
    PART,
    PATH,
    POSITIVE,
    RANGE,
    SHARE,
    SIZE,
    SWITCH,
    TEXT,
    TEXTS,
    WEIGHT,
    WITHIN,
    Rule,
    choice,
    each_axis,
    is_number,
    is_text,
    is_whole,
    list_of,
    number,
    rising,
    whole,
)


class Value(NamedTuple):
    """A value at the top of a bundle's file."""

    rule: Rule  # what it must be
    meaning: str  # what it is, in Markdown, with its unit
    fixed: bool = False  # whether a resumed run must have that of before; any other takes effect in it


AXES = {"L": 0, "R": 0, "P": 1, "A": 1, "I": 2, "S": 2}


def _is_axcodes(value: Any, dims: int) -> bool:
    axes = [AXES.get(letter) for letter in value] if isinstance(value, str) else []
    return None not in axes and len({*axes}) == len(axes) >= max(2, dims)


def _is_optimizer(value: Any, dims: int) -> bool:
    import torch  # here, since --help needs none of it

    found = getattr(torch.optim, value, None) if is_text(value) else None
    return value == "LARS" or (isinstance(found, type) and issubclass(found, torch.optim.Optimizer))


def _are_arguments(value: Any, dims: int) -> bool:
    finite = isinstance(value, Mapping) and all(is_number(v) or not isinstance(v, float) for v in value.values())
    return finite and all(is_text(name) and name not in ("lr", "params") for name in value)


def _is_device(value: Any, dims: int) -> bool:
    return type(value).__name__ == "device" or (is_text(value) and re.fullmatch(r"[a-z]+(:\d+)?", value) is not None)


def _is_map(value: Any, dims: int) -> bool:
    return isinstance(value, Mapping) and all(is_text(k) and isinstance(v, str | None) for k, v in value.items())


def _are_axes(value: Any, dims: int) -> bool:
    return _WHOLES.fits(value, dims) and len({*value}) == len(value) and all(n < (dims or 3) for n in value)


_WHOLES = list_of("whole numbers from 0", is_whole)
FRACTIONS = rising(
    "two numbers above 0 and at most 1, the second not the smaller", lambda v: is_number(v) and 0 < v <= 1, equal=True
)
LEVELS = Rule("a list of different whole numbers from 0", lambda v, dims: _WHOLES.fits(v, dims) and len({*v}) == len(v))
STAGES = Rule("three whole numbers from 0", lambda v, dims: _WHOLES.fits(v, dims) and len(v) == 3)
SIGMAS = rising("two numbers from 0, the second not the smaller", lambda v: is_number(v) and v >= 0, equal=True)
COUNTS = rising("two whole numbers from 1, the second not the smaller", lambda n: is_whole(n, 1), equal=True)
FLIPS = Rule("a list of different axes from 0", _are_axes)
FEATURES = list_of("whole numbers from 1", lambda n: is_whole(n, 1), least=1)
CLASSES = list_of("different names", is_text, least=1, different=True)
GRAYS = list_of("different numbers", is_number, least=2, different=True)
CLASS_WEIGHTS = list_of("numbers from 0", lambda v: is_number(v) and v >= 0, least=1)
SUFFIXES = list_of("suffixes such as .png", lambda v: is_text(v) and v.startswith("."), least=1)
SUFFIX = Rule("a suffix such as .nii.gz", lambda v, dims: is_text(v) and v.startswith("."))
SPACING = each_axis("a number of mm above 0", lambda n: is_number(n) and n > 0)
AXCODES = Rule("a letter of L or R, of P or A, of I or S for each axis, such as RAS", _is_axcodes)
OPTIMIZER = Rule("LARS or an optimizer of torch.optim, such as Adam", _is_optimizer)
ARGUMENTS = Rule("an object of arguments, without lr, whose numbers are finite", _are_arguments)
MAPPING = Rule("an object of words with their classes", _is_map)
DEVICE = Rule("a device, such as cpu or cuda:0", _is_device)
DTYPE = Rule("a type of numpy, such as $np.uint8", lambda v, dims: isinstance(v, type))
IMAGES = Rule("a file or a list of files", lambda v, dims: is_text(v) or (TEXTS.fits(v, dims) and len(v) > 0))

HEADER = {
    # places
    "bundle_root": Value(PATH, "folder of the bundle; relative folders begin there"),
    "dataset_dir": Value(PATH | NONE, "folder of images, or a datalist; None: synthetic phantoms are made once"),
    "output_dir": Value(PATH, "where lists, logs and pictures go"),
    "ckpt_dir": Value(PATH, "where weights and checkpoints go"),
    "pretrained": Value(
        PATH | NONE,
        "weights to start from, such as an [imported](finetuning.md#published-weights) file, an earlier run's "
        "`model.pt`, or [`primitives_2d`](finetuning.md#weights-that-come-with-the-package): "
        "[what is loaded](finetuning.md#what-is-loaded)",
        fixed=True,
    ),
    "minimum_coverage": Value(SHARE, "least share of the encoder that `pretrained` must fit"),
    "next_step": Value(TEXT, "what the last line of the run advises"),
    # images
    "spatial_dims": Value(Rule("2 or 3", lambda v, dims: is_whole(v, 2, 3)), "axes of the images", fixed=True),
    "in_channels": Value(COUNT, "channels of the images; gray ones fit each number", fixed=True),
    "patch_size": Value(SIZE, "what the network sees, pixels or voxels"),
    "region_size": Value(SIZE, "what a view is cropped from, pixels or voxels"),
    "image_size": Value(
        SIZE | COUNT | NONE,
        "what images are resized to, pixels; one number: their longest side; None: as they are "
        "([labels](finetuning.md#resampling))",
    ),
    "spacing": Value(SPACING | NONE, "voxel size that images are resampled to, mm; None: as it is"),
    "axcodes": Value(AXCODES | NONE, "orientation after loading; None: as it is"),
    "intensity_range": Value(
        RANGE | NONE, "what becomes 0 and 1 (HU, gray values); None: percentiles 0.5 and 99.5 of each channel"
    ),
    "min_foreground": Value(SHARE, "share of a crop that should not be air"),
    "modalities": Value(TEXT | TEXTS | NONE, "files that make one image, such as `flair,t1`: [data](data.md)", True),
    "reader": Value(TEXT | OBJECT | NONE, "reader of MONAI for the images; None: by suffix"),
    "label_reader": Value(TEXT | OBJECT | NONE, "reader of MONAI for the label maps; None: by suffix"),
    # patients and labels
    "patient": Value(TEXT, "`auto`, a rule of [data.md](data.md), or a CSV file: what tells patients apart", True),
    "patient_column": Value(TEXT | NONE, "of a table of patients, where it has [another name](data.md)", True),
    "file_column": Value(TEXT | NONE, "the same of the files", True),
    "validation_fraction": Value(
        WITHIN, "[chance](finetuning.md#who-is-tested) of a patient to be held out for validation", True
    ),
    "test_fraction": Value(PART, "[chance](finetuning.md#who-is-tested) of a patient to be tested", True),
    "exclude_patients_of": Value(TEXT | NONE, "a split of the table whose patients are left out", True),
    "class_names": Value(CLASSES, "in the order of their numbers, of segmentation the first is the background", True),
    "multi_label": Value(SWITCH, "any number of classes an image", True),
    "labels": Value(PATH | NONE, "folder of label maps, or CSV file; None: looked for", True),
    "label_threshold": Value(NUMBER | NONE, "two classes: 1 is what lies above this gray value", True),
    "label_values": Value(
        GRAYS | NONE, "gray value of each class: `\"[0, 255]\"`, in 2D with `--label_threshold '$None'`", True
    ),
    "label_column": Value(TEXT | NONE, "column of the CSV file", True),
    "label_map": Value(
        MAPPING | NONE, "classes of its words: `\"{'virus': 'pneumonia', 'poor': None}\"`, None: left out", True
    ),
    "label_fraction": Value(NOT_NOTHING, "part of the training patients whose labels are used"),
    "label_seed": Value(whole(0, 2**32 - 1), "seed of their choice (`label_subset` in version 0.1)", True),
    "label_subset": Value(whole(0, 2**32 - 1), "former name of `label_seed`", True),
    "pretraining_list": Value(PATH | NONE, "datalist of the pre-training, which must not hold test patients"),
    "allow_overlap": Value(SWITCH, "warn only where it does"),
    "class_weights": Value(
        CLASS_WEIGHTS | choice("balanced") | NONE, "one number a class, or `balanced` (classification)"
    ),
    "label_smoothing": Value(PART, "share of the target that is spread over the classes"),
    # loading
    "batch_size": Value(COUNT, "images of a step of a process"),
    "accumulation_steps": Value(COUNT, "batches to one step of the optimizer"),
    "checkpoint_activations": Value(
        SWITCH,
        "compute them again in the backward pass, less memory for more time; no network with batch norm, as 2D has",
    ),
    "num_workers": Value(whole(0, 512), "loading processes; 0 is right for cached images"),
    "cache": Value(choice("ram", "none"), "whether prepared images are kept in memory"),
    "cache_dtype": Value(choice("uint8", "int16", "float16", "float32"), "how they are kept"),
    "cache_rate": Value(SHARE, "share of the prepared images kept in memory"),
    "seed": Value(whole(0, 2**32 - 1), "of splits, order, weights and augmentation", True),
    # the run
    "max_epochs": Value(COUNT, "epochs; the learning rate falls over them"),
    "epoch_length": Value(COUNT | NONE, "iterations of an epoch; None: once through the data"),
    "schedule_epochs": Value(
        COUNT, "epochs over which the learning rate falls; in a federation rounds times `local_epochs`"
    ),
    "stage_epochs": Value(STAGES | NONE, "epochs of `di`, `dir`, `dira`; None: all losses from the start"),
    "val_interval": Value(COUNT, "epochs between validations"),
    "val_samples": Value(COUNT | NONE, "crops that a validation sees; None: each image once"),
    "patience": Value(COUNT | NONE, "epochs without a better one until the run stops; None: never"),
    "resume": Value(SWITCH, "go on from `checkpoint.pt`"),
    "start_from": Value(PATH | NONE, "`checkpoint.pt` of an earlier stage, whose weights are taken over", True),
    "keep_checkpoints": Value(COUNT, "how many checkpoints stay"),
    "checkpoint_minutes": Value(POSITIVE | NONE, "minutes after which an epoch is saved inside too; None: at its end"),
    "max_bad_files": Value(
        COUNT_OR_0, "training images that may be left out since they cannot be read or hold NaN: [how](reliability.md)"
    ),
    "on_collapse": Value(choice("warn", "stop"), "what follows when the figures say that nothing is learned"),
    "collapse_patience": Value(COUNT, "bad epochs in a row until then"),
    "tensorboard": Value(SWITCH, "whether TensorBoard files are written"),
    "mlflow": Value(
        TEXT | NONE, "where MLflow logs, such as `sqlite:///runs.db`: [which run?](pretraining.md#which-run-was-it)"
    ),
    # learning
    "optimizer_name": Value(OPTIMIZER, "kind of optimizer", True),
    "optimizer_arguments": Value(ARGUMENTS, "of it, such as momentum and weight decay"),
    "learning_rate": Value(WEIGHT, "start of the cosine to 0"),
    "discriminator_learning_rate": Value(WEIGHT, "of the discriminator's Adam (0.5, 0.999), constant"),
    "bias_learning_rate": Value(WEIGHT, "of biases and norms"),
    "warmup_epochs": Value(WEIGHT, "epochs of linear rise before it, 0.5 is half of one; at most `max_epochs`"),
    "rate_floor": Value(SHARE, "end of the cosine, as part of its start"),
    "fixed_rate": Value(TEXTS, "parts of the objective whose rate stays", True),
    "layer_decay": Value(NOT_NOTHING, "rate of a layer as part of the next one's towards the output"),
    "pretrained_rate": Value(
        NOT_NOTHING, "rate of parameters that came from `pretrained` as part of what it would be for new ones", True
    ),
    "freeze_epochs": Value(COUNT_OR_0, "epochs in which the encoder rests, its batch statistics too"),
    "gradient_clip": Value(POSITIVE | NONE, "largest norm of the gradient; None: any"),
    "precision": Value(choice("fp32", "bf16", "fp16", "auto"), "of the training; auto: bf16 where that is faster"),
    "channels_last": Value(SWITCH, "channels innermost in memory: [faster](performance.md), the same numbers"),
    "device": Value(DEVICE, "where the networks run"),
    "overlap": Value(PART, "of the windows that slide over an image, as part of them"),
    # losses
    "contrastive_weight": Value(WEIGHT, "of the discriminative loss"),
    "restoration_weight": Value(WEIGHT, "of the restorative loss"),
    "adversarial_weight": Value(WEIGHT, "of the adversarial loss"),
    "gan": Value(choice("lsgan", "vanilla", "hinge", "wgan"), "form of the adversarial loss"),
    "gradient_penalty": Value(WEIGHT, "weight of WGAN-GP's penalty, which `--gan wgan` needs"),
    "conditional": Value(SWITCH, "whether the discriminator sees the distorted image too", True),
    "discriminator_channels": Value(COUNT, "first channels of the discriminator", True),
    "momentum": Value(SHARE | NONE, "of the key branch; None: from the number of steps"),
    "final_momentum": Value(SHARE | NONE, "its value at the end; None: the same"),
    "temperature": Value(POSITIVE, "of the discriminative loss"),
    "queue_size": Value(whole(1, 10**9) | NONE, "keys that the queue holds; None: from steps and images", True),
    "pooled_norm": Value(SWITCH, "batch norm of the pooled features", True),
    "embedding_size": Value(COUNT | NONE, "length of an embedding; None: as the features", True),
    "hidden_size": Value(COUNT | NONE, "width inside the projector; None: that of the method", True),
    "predictor_size": Value(COUNT | NONE, "width inside the predictor; None: a quarter of the embedding", True),
    "redundancy_weight": Value(WEIGHT, "of what lies off the diagonal"),
    "scale": Value(POSITIVE, "factor of the loss"),
    "regularization_weight": Value(WEIGHT, "of the term that tells bases apart"),
    "attention": Value(choice("smooth_ap", "uniform"), "weights of the pairs in the ranking loss"),
    "normalized": Value(SWITCH, "whether the ranking loss has embeddings of unit length"),
    "chunk_size": Value(COUNT | NONE, "views that are ranked at once, for less memory; None: all"),
    "levels": Value(LEVELS | NONE, "decoder maps that have heads, 0 the coarsest; None: all", True),
    "words_dir": Value(PATH | NONE, "folder of the command `visual-words`", True),
    "teacher": Value(PATH | NONE, "weights of the encoder that is imitated, as `pretrained` takes them", True),
    "teacher_def": Value(OBJECT | NONE, "its network, any that gives maps of features; None: as `network_def`", True),
    "features_dir": Value(PATH, "folder that keeps what the teacher makes of each image"),
    "teacher_distance": Value(choice("cosine", "smooth_l1"), "between features of network and teacher"),
    # views, see method.md
    "views_per_image": Value(COUNT, "views of each image"),
    "crop_scale": Value(FRACTIONS, "share of the region that a crop covers"),
    "flip_axes": Value(FLIPS, "along which views are flipped, see [method.md](method.md)"),
    "flip_probability": Value(SHARE, "of each of them"),
    "target_flip": Value(choice("corrected", "reference"), "whether the target is flipped with the view"),
    "target_steps": Value(COUNT_OR_0, "how many photometric steps the target undergoes like its view"),
    "blur": Value(SIGMAS, "least and most sigma of the blur, pixels or voxels"),
    "kept_window": Value(FRACTIONS, "sides of what out-painting keeps, as parts of the patch"),
    "rotation_degrees": Value(number("a number from 0 to 180", lambda v: 0 <= v <= 180), "largest rotation of a view"),
    "photometric": Value(OBJECTS, "changes of gray values, see [method.md](method.md)"),
    "other_photometric": Value(OBJECTS | NONE, "those of all views but the first; None: the same"),
    "distortions": Value(OBJECTS, "what is to be restored, see [method.md](method.md)"),
    "masking": Value(OBJECT | NONE, "what hides blocks of the first view"),
    "shuffled_blocks": Value(COUNT_OR_0, "blocks whose voxels are shuffled"),
    "local_crop": Value(OBJECT | NONE, "spatial step of small views"),
    "local_count": Value(COUNT_OR_0, "small views of an image"),
    "local_size": Value(SIZE, "of a small view, pixels or voxels"),
    "local_scale": Value(FRACTIONS, "share of the region that a small view covers"),
    "grid": Value(each_axis("a whole number from 1", lambda n: is_whole(n, 1)), "crops of the region"),
    "shares": Value(whole(2, 255), "shares by which images are mixed", True),
    "box_count": Value(COUNTS, "boxes of an image, the least and the most"),
    "box_size": Value(FRACTIONS, "their sides, as parts of the patch"),
    "background": Value(SWITCH, "whether primitives are painted on the images; False: on a smooth gray"),
    "primitive_count": Value(COUNTS, "primitives of an image, the least and the most"),
    "primitive_size": Value(FRACTIONS, "their half-axes, as parts of the patch"),
    "augmentation": Value(OBJECTS, 'random transforms of images and labels, `"[]"`: none'),
    # networks
    "network_def": Value(
        OBJECT,
        "a stock network with one output, or parts of it: `--network_def#features`, `--network_def#backbone`",
        True,
    ),
    "features": Value(FEATURES, "channels of the levels of `unet`", True),
    "unet": Value(OBJECT, "whose encoder is the first part of the network"),
    "stages": Value(OBJECTS, "first part of the network"),
    "head": Value(OBJECTS, "last part of the network"),
    "objective_def": Value(OBJECT, "the discriminative part", True),
    # evaluation and inference
    "split": Value(choice("training", "validation", "test"), "list of the datalist that is measured"),
    "datalist_file": Value(PATH, "datalist that is measured"),
    "run_list": Value(PATH, "datalist of the training"),
    "model_path": Value(PATH, "weights that are measured"),
    "objective_path": Value(PATH, "of the discriminative part"),
    "evaluation_dir": Value(PATH, "where the results go"),
    "surface_tolerance": Value(WEIGHT, "distance up to which surfaces agree, mm; of pictures: pixels"),
    "image": Value(IMAGES | NONE, "one image, in place of those of `dataset_dir`"),
    "suffixes": Value(SUFFIXES, "of the images in `dataset_dir`"),
    "output_extension": Value(SUFFIX, "of the files that are written"),
    "output_dtype": Value(DTYPE, "type of their voxels"),
    "output_range": Value(RANGE, "what 0 and 1 become in them"),
    "holes": Value(COUNT_OR_0, "how many are cut into the image, so that there is something to restore"),
    # several processes
    "backend": Value(choice("nccl", "gloo"), "of `torch.distributed`"),
    "timeout_minutes": Value(POSITIVE, "after which a process that shows no sign of life is named, and all end"),
}
