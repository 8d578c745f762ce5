"""Bad values of the options of all commands, as a user types them."""

import inspect
from types import NoneType, UnionType
from typing import get_args

from wrong_values import bad_values

from dira_monai.__main__ import COMMANDS, load_command
from dira_monai.bundle.header_values import HEADER

NOWHERE = "/proc/nowhere"  # which not even root can make
TYPES = {bool: "True or False", float: "a number", int: "a whole number from 0 to 1000000"}
FURTHER = {  # values of the configuration that a command takes
    "pretrain": ("batch_size", "learning_rate", "patch_size", "precision", "resume"),
    "finetune": ("class_names", "validation_fraction", "gradient_clip", "label_fraction"),
    "evaluate": ("surface_tolerance", "overlap", "device"),
    "infer": ("overlap", "in_channels", "spacing"),
}
TEXTS = {"a path", "a text", "a list of different names", "a device, such as cpu or cuda:0"}  # that words become
WRITES = {"pretrain": "run", "finetune": "run", "evaluate": None, "verify": None, "scores": None}  # others: output
MAKES = {
    "phantom": 0,
    "prepare": 1,
    "merge-masks": 1,
    "seg": 2,
    "pack": 1,
    "unpack": 1,
    "bundles": 0,
}  # the word that is written


def command_words(home, scans):
    """Of each command the arguments and options that it needs.

    Args:
        home: folder with small trainings of all bundles in ``finished``.
        scans: folders of images by their kind and axes.
    """
    runs = {name: f"{home}/finished/dira_{name}" for name in ("pretrain_2d", "pretrain_3d", "finetune_segmentation_2d")}
    pretrained, classifier = f"{runs['pretrain_3d']}/out", f"{home}/finished/dira_finetune_classification_2d/out"
    tuned, labeled, plain = f"{runs['finetune_segmentation_2d']}/out", scans["finetune"][2], scans["pretrain"][3]
    task = {"task": "segmentation"}
    return {
        "pretrain": ([plain], {"dims": "3", "run": f"{home}/new"}),
        "finetune": ([labeled], task | {"dims": "2", "run": f"{home}/new"}),
        "evaluate": ([tuned], {}),
        "embed": ([pretrained, plain], {}),
        "bundles": ([f"{home}/copies"], {}),
        "datalist": ([plain], {}),
        "labeled": ([labeled], task | {"class_names": "[background, blob]", "label_threshold": "127"}),
        "phantom": ([f"{home}/phantoms"], {"count": "2"}),
        "prepare": ([f"{pretrained}/datalist.json", f"{home}/store"], {}),
        "merge-masks": ([labeled, f"{home}/merged"], {}),
        "infer": ([tuned, f"{labeled}/images"], {}),
        "plan": ([plain], {"seconds_per_step": "1"}),
        "localize": (
            [f"{classifier}/bundle"],
            {"dataset_dir": f"{labeled}/images", "output_dir": f"{home}/boxes", "masks": f"{labeled}/labels"},
        ),
        "probe": (
            [],
            {
                "list": f"{classifier}/datalist.json",
                "weights": f"{runs['pretrain_2d']}/models/model.pt",
                "config_file": f"{runs['pretrain_2d']}/out/bundle/configs/evaluate.json",
            },
        ),
        "visual-words": ([pretrained], {"datalist": f"{pretrained}/datalist.json", "output": f"{home}/words"}),
        "scores": ([f"{home}/no_run"], {}),
        "seg": ([f"{home}/no_series", f"{home}/no.nii.gz", f"{home}/seg.dcm"], {"class_names": "[a, b]"}),
        "import-weights": ([f"{home}/no.pt"], {"output": f"{home}/in.pt"}),
        "export-weights": ([f"{runs['pretrain_2d']}/models/model.pt"], {"output": f"{home}/x.pt", "layout": "smp"}),
        "study": (["few_labels"], {"labeled": labeled, "output": f"{home}/study"}),
        "pack": ([tuned, f"{home}/packed.zip"], {}),
        "verify": ([f"{home}/no.zip"], {}),
        "unpack": ([f"{home}/no.zip", f"{home}/unpacked"], {}),
    }


def bad_commands(home, scans):
    """Kind of value, words behind ``python`` and what the sentence must name."""
    for command, (arguments, options) in command_words(home, scans).items():
        parameters = inspect.signature(load_command(command)).parameters

        def words(arguments=arguments, command=command, options=options, **given):
            typed = [f"--{name}={value}" for name, value in (options | given).items()]
            return ["-m", "dira_monai", command, *map(str, arguments), *typed]

        for name, kind, value in _bad_options(command, parameters):
            yield kind, words(**{name: value}), name
        yield "misspelt key", words(outptu="x"), "outptu"
        if arguments:
            yield "missing path", words(["/nowhere/at/all", *arguments[1:]]), "/nowhere/at/all"
        if command in MAKES:
            place = MAKES[command]
            yield "unwritable folder", words([*arguments[:place], f"{NOWHERE}/x.zip", *arguments[place + 1 :]]), NOWHERE
        name = WRITES.get(command, "output_dir" if "output_dir" in parameters or command == "infer" else "output")
        if command == "infer" or (name in parameters and parameters[name].kind is inspect.Parameter.KEYWORD_ONLY):
            yield "unwritable folder", words(**{name: f"{NOWHERE}/x.json" if name == "output" else NOWHERE}), NOWHERE


def _bad_options(command, parameters):
    """Name, kind and bad value of the options of a command, but what arrives from a command line as something else."""
    for name, told in _rules(command, parameters):
        for kind, value in bad_values(told):
            is_number = isinstance(value, str) and kind == "out of range"
            if not is_number and (not TEXTS & {*told.split(", or ")} or value == ""):
                yield name, kind, value


def _rules(command, parameters):
    """The options of a command, each with what it must be."""
    for name, parameter in parameters.items():
        kinds = {*get_args(kind)} if isinstance(kind := parameter.annotation, UnionType) else {kind}
        told = (
            HEADER[name].rule.told if name in HEADER else next((TYPES[kind] for kind in TYPES if kind in kinds), None)
        )
        if told and parameter.kind is parameter.KEYWORD_ONLY:
            yield name, f"{told}, or None" if NoneType in kinds else told
    yield from ((name, HEADER[name].rule.told) for name in FURTHER.get(command, ()))


assert {*COMMANDS} == {*command_words("", {"pretrain": ["", "", "", ""], "finetune": ["", "", "", ""]})}
