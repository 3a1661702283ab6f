"""Evaluation of the deployed encoder, beside the same encoder untrained."""

from keras_sacl.data import plain_batches
from keras_sacl.evaluation import WITHOUT_LABELS, evaluate_encoder, is_score
from keras_sacl.stages.build import build_method
from keras_sacl.stages.inputs import labelled_images

_BATCH = 256


def evaluate(config, run_dir, say=print):
    """--eval_protocols on frozen features of encoder.keras, and of the untrained encoder.

    Args:
        config: A validated `RunConfig`.
        run_dir: A `RunDir` with encoder.keras.
        say: Called with lines for the user.

    Returns:
        The result that went into results.json, or None where there are no labels and every
        protocol needs them.
    """
    train, test = labelled_images(config)
    protocols = config.eval_protocols
    if train.labels is None or test.labels is None:
        protocols = tuple(name for name in protocols if name in WITHOUT_LABELS)
        if not protocols:
            say(
                "no labels: nothing to evaluate; name a labelled data set with --eval_dataset, or "
                f"add {', '.join(WITHOUT_LABELS)} to --eval_protocols"
            )
            return None
    batches = {"image_size": config.image_size, "batch_size": _BATCH}
    # The untrained encoder is the deployed one at step 0 of this very run: same seed, same slices.
    encoders = {
        "": run_dir.load_encoder(),
        "_untrained": build_method(config).deployed_encoder(),
    }
    result = {"dataset": config.eval_dataset or config.dataset}
    for suffix, encoder in encoders.items():
        found = evaluate_encoder(
            encoder,
            plain_batches(train, **batches),
            plain_batches(test, **batches),
            protocols=protocols,
        )
        for name, value in found.items():
            if is_score(name) or not suffix:
                result[name + suffix if is_score(name) else name] = value
    run_dir.record("evaluate", result)
    return result
