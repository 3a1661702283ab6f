"""Export of the deployed encoder, each file checked through its own runtime."""

import numpy as np

from keras_sacl.data import IMAGENET_MEAN, IMAGENET_STD, raw_batches
from keras_sacl.stages.inputs import labelled_images, training_images

_CALIBRATION, _BANK, _QUERIES = 256, 2000, 1000


def export(config, run_dir, say=print):
    """Writes the files of --export_formats and compares each with the Keras encoder.

    Args:
        config: A validated `RunConfig`.
        run_dir: A `RunDir` with encoder.keras.
        say: Called with lines for the user.

    Returns:
        The result that went into results.json: a dict from file name to its row. A row whose
        `passed` is False says in `reason` what is wrong with that file.
    """
    from keras_sacl.export import export_encoder

    encoder = run_dir.load_encoder()
    training = training_images(config) if "pretrain" in config.stages else None
    train, test = labelled_images(config)
    calibration = _pixels((training or train).take(_CALIBRATION), config)[0]
    rows = export_encoder(
        encoder,
        run_dir.export,
        formats=config.export_formats,
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        preprocessing=config.export_preprocessing,
        calibration=calibration,
        bank=_pixels(train.take(_BANK), config),
        queries=_pixels(test.take(_QUERIES), config),
        say=say,
    )
    # Of one stage several times, the files of other formats stay where they are and in the table.
    earlier = run_dir.results().get("export", {})
    kept = {name: row for name, row in earlier.items() if (run_dir.export / name).exists()}
    result = {**kept, **rows}
    run_dir.record("export", result)
    return result


def _pixels(source, config):
    """(uint8 (N, S, S, 3), labels (N,)) of a source."""
    batches = list(raw_batches(source, image_size=config.image_size, batch_size=256))
    images, labels = zip(*batches, strict=True)
    return np.concatenate(images), np.concatenate(labels)
