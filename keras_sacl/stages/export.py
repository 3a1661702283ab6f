"""Export of the deployed encoders, each file checked through its own runtime."""

import numpy as np

from keras_sacl.data import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    crop_share,
    original_images,
    raw_pixels,
)
from keras_sacl.evaluation import is_score, protocol_of
from keras_sacl.stages.inputs import labelled_images, training_images

_CALIBRATION, _BANK, _QUERIES = 256, 2000, 1000


def export(config, run_dir, say=print):
    """Writes the files of --export_formats and compares each with the Keras model.

    Of the encoder, and of the classifier of the stage finetune where there is one. Each file holds
    a model card: its input, its output, and the scores of the run under the names of their
    protocols; a classifier's also the names of its classes.

    Of several widths, those below the widest go into folders of their own: w0.5 and so on.

    Args:
        config: A validated `RunConfig`.
        run_dir: A `RunDir` with encoder.keras.
        say: Called with lines for the user.

    Returns:
        The result that went into results.json: a dict from file name to its row. A row whose
        `passed` is False says in `reason` what is wrong with that file.
    """
    from keras_sacl.export import export_encoder

    training = training_images(config) if "pretrain" in config.stages else None
    train, test = labelled_images(config)
    sources = (training or train).take(_CALIBRATION), train.take(_BANK), test.take(_QUERIES)
    (calibration, _), bank, queries = (raw_pixels(source, config.image_size) for source in sources)
    photos = None
    if config.export_input == "photos":
        photos = [original_images(source) for source in sources]
    results = run_dir.results()
    settings = {
        "formats": config.export_formats,
        "mean": IMAGENET_MEAN,
        "std": IMAGENET_STD,
        "inputs": config.export_input,
        "calibration": calibration,
        "photos": photos,
        "share": crop_share(test),
        "onnx_opset": config.export_onnx_opset,
        "onnx_batch": config.export_onnx_batch,
        "onnx_layout": config.export_onnx_layout,
        "say": say,
    }
    rows = {}
    for width, path in run_dir.encoders(config.widths).items():
        widest = width == config.width
        others = results.get("evaluate_widths", {})
        scores = results.get("evaluate", {}) if widest else others.get(str(width), {})
        folder = "" if widest else f"w{width}/"
        found = export_encoder(
            run_dir.load_encoder(path),
            run_dir.export / folder,
            bank=bank,
            queries=queries,
            card=_card(config, width, scores.get("dataset"), _scores(scores)),
            **settings,
        )
        rows |= {folder + name: row for name, row in found.items()}
    if run_dir.classifier.is_file():
        tuned = _fine_tuning(results, config)
        scores = {"top1": {"value": tuned["top1"], "protocol": tuned["protocol"]}} if tuned else {}
        images, labels = queries
        rows |= export_encoder(
            run_dir.load_encoder(run_dir.classifier),
            run_dir.export,
            outputs="logits",
            bank=None,
            # Classes of other data are not those of the logits.
            queries=(images, labels if tuned else np.full(len(images), -1)),
            card=_card(config, config.width, tuned and tuned["dataset"], scores),
            labels=_class_names(train, tuned),
            **settings,
        )
    # Of one stage several times, the files of other formats stay where they are and in the table.
    earlier = run_dir.results().get("export", {})
    kept = {name: row for name, row in earlier.items() if (run_dir.export / name).exists()}
    result = {**kept, **rows}
    run_dir.record("export", result)
    return result


def _card(config, width, dataset, scores):
    """What a model card says of the training, and of the scores on a data set."""
    return {
        "name": f"{config.encoder}, width {width}",
        "activation": config.activation,
        "method": config.effective_method,
        "pretrained_on": config.dataset,
        "epochs": config.last_epoch,
        "seed": config.seed,
        "evaluated_on": dataset,
        "scores": scores,
    }


def _scores(found):
    """The scores of an evaluation, each with its protocol; those of untrained encoders left out."""
    return {
        name: {"value": value, "protocol": protocol_of(name, found)}
        for name, value in found.items()
        if is_score(name) and not name.endswith("_untrained") and protocol_of(name, found)
    }


def _fine_tuning(results, config):
    """The entry of results.json on classifier.keras, if it knows the classes of these data."""
    dataset = config.eval_dataset or config.dataset
    rows = [row for row in results.get("finetune", []) if row["classifier"]]
    return rows[-1] if rows and rows[-1]["dataset"] == dataset else None


def _class_names(source, tuned):
    """Names of the logits as a list of str, or None."""
    names = source.class_names
    if not (tuned and names and len(names) == tuned["num_classes"]):
        return None
    return [str(name) for name in names]
