"""How the configurations of a run's bundle find images: the values that those of a shipped bundle lack."""

from ..images.stock import OUR_READER

FRAME = {"bundle_root": ".", "dataset_dir": None, "ckpt_dir": "$@bundle_root + '/models'"}
EMPTY = "$warnings.filterwarnings('error', message='.*dataloader. is empty')"  # as inference.json has it

NEW_FOLDER = {  # what of evaluate.json is another way to find images in a run's bundle
    "_desc_": "stock MONAI, with the values of the training: its test images, or --dataset_dir, or --datalist_file",
    "output_dir": "$@bundle_root + '/evaluation'",
    "evaluation_dir": "@output_dir",
    "datalist_file": "$None if @dataset_dir else @bundle_root + '/../datalist.json'",
    "listed": "$json.load(open(@datalist_file)) if @datalist_file else {}",
    "root": "$@dataset_dir or @listed.get('dataset_dir')",
    "read_list": "$monai.data.load_decathlon_datalist",
}
PAIRS = {  # images and labels of the same names
    "names": "$sorted(os.listdir(@dataset_dir + '/images')) if @dataset_dir and not @datalist_file else []",
    "pair": "$lambda name: {k[:-1]: os.path.join(@dataset_dir, k, name) for k in ('images', 'labels')}",
    "found": "$[@pair(n) for n in @names if not n.startswith('.')]",
    "items": "$@read_list(@datalist_file, True, @split, @root) if @datalist_file else @found",
}
FOLDERS = {  # one folder a class
    "folders": "$sorted(os.listdir(@dataset_dir)) if @dataset_dir and not @datalist_file else []",
    "number": "$@class_names.index",
    "files": "$lambda c: sorted(glob.glob(glob.escape(os.path.join(@dataset_dir, c)) + '/*'))",
    "found": "$[{'image': f, 'label': @number(c)} for c in @folders if c[0] != '.' for f in @files(c)]",
    "items": "$@read_list(@datalist_file, False, @split, @root) if @datalist_file else @found",
}
ONLY_LISTS = {  # several labels an image: no folder can say them
    "datalist_file": "$@bundle_root + '/../datalist.json'",
    "items": "$@read_list(@datalist_file, False, @split, @root)",
}
STOCK_DATASET = {"_target_": "CacheDataset", "data": "@items"}
RUN_FOLDER = {  # of a pre-training: its own validation images, or --dataset_dir
    "_desc_": "with the values of the training; needs dira_monai; its validation images, or --dataset_dir",
    "run_list": "$@bundle_root + '/../datalist.json'",
    "output_dir": "$@bundle_root + '/evaluation'",
    "evaluation_dir": "@output_dir",
}
IMPORTS = ["$import glob", "$import json", "$import os", "$import warnings"]
OWN_READING = {  # where stock MONAI reads images otherwise than the lists of a pre-training
    "_desc_": "with the values of the training; needs dira_monai, since stock MONAI reads such images otherwise",
    "reader": OUR_READER,
    "datalist": "$[item['image'] for item in dira_monai.inference_items(@image, @dataset_dir, @output_dir)]",
    "imports": ["$import dira_monai"],
}
PRESENCE = {  # where parts of this package are named
    "imports": ["$import importlib", "$import sys"],
    "package": "$importlib.util.find_spec('dira_monai')",
    "initialize": ["$@package or sys.exit(@needs)"],
}
GENERATED = (
    PRESENCE,  # as configurations, for the audit of received ones
    OWN_READING,
    FRAME | NEW_FOLDER | PAIRS,
    FOLDERS | RUN_FOLDER,
    ONLY_LISTS | {"imports": IMPORTS, "initialize": [EMPTY], "validate": {"dataset": STOCK_DATASET}},
)
