"""The command ``python -m dira_monai probe``."""

from collections.abc import Iterator

from fire.decorators import SetParseFns


@SetParseFns(str, list=str, weights=str, output=str, pretraining_list=str, device=str)
def probe(
    *,
    list: str,
    weights: str,
    config_file: str,
    overrides: dict | None = None,
    output: str = "probe.json",
    random: int = 3,
    neighbors: int = 20,
    temperature: float = 0.07,
    label_fraction: float = 1.0,
    label_subsets: int = 1,
    pretraining_list: str | None = None,
    allow_overlap: bool = False,
    device: str | None = None,
    num_workers: int = 0,
) -> Iterator[str]:
    """Tell what an encoder knows before fine-tuning: k-NN and a linear classifier on its frozen features, test AUC.

    Args:
        list: JSON file for classification, as the command labelled writes it.
        weights: model.pt or encoder.pt of a pre-training.
        config_file: train.json of its bundle, or "['.../train.json','.../METHOD.json']".
        overrides: values of it to replace, such as "{'network_def#backbone': 'resnet10'}".
        output: JSON file to write.
        random: number of encoders of random weights beside it.
        neighbors: of the k-NN.
        temperature: of the votes of the k-NN.
        label_fraction: share of the training patients whose labels are used.
        label_subsets: number of such parts, over which the AUC are averaged.
        pretraining_list: datalist of the pre-training, which must not hold test images or patients.
        allow_overlap: say so, but go on where it does.
        device: such as cpu or cuda:0; by default that of config_file.
        num_workers: processes that read images.
    """
    options = {name: value for name, value in locals().items() if name not in ("list", "weights", "config_file")}
    from .probe import describe_probe  # here, since the other commands need none of it
    from .probe import probe as run

    yield describe_probe(run(list, weights, config_file, **options))
    yield f"{output} is written"
