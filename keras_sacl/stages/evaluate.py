"""Evaluation of the deployed encoder beside the same encoder untrained, or of a file."""

from keras_sacl.data import get_preset, plain_batches, raw_batches, two_view_dataset
from keras_sacl.evaluation import PROTOCOLS, evaluate_encoder, is_score
from keras_sacl.stages.build import build_method
from keras_sacl.stages.inputs import (
    encoder_file,
    evaluated_protocols,
    evaluation_size,
    labelled_images,
)

_BATCH = 256
# Images whose two views are compared: among N, one's own is found by chance once in N times, so
# that a fixed number makes the figure comparable between data sets.
_VIEWED = 1000


def evaluate(config, run_dir, say=print):
    """--eval_protocols on frozen features of encoder.keras, and of the untrained encoder.

    With --eval_encoder on those of that file alone.

    Args:
        config: A validated `RunConfig`.
        run_dir: A `RunDir` with encoder.keras.
        say: Called with lines for the user.

    Returns:
        The result that went into results.json, under "evaluate" or, for a file, under
        "evaluate_files"; None where there are no labels and every protocol needs them.

    Raises:
        ConfigError: As `check_inputs`.
    """
    train, test = labelled_images(config)
    file = encoder_file(config)
    pixels = file is not None and file.takes_pixels
    protocols = evaluated_protocols(config)
    if not protocols:
        without = ", ".join(name for name, p in PROTOCOLS.items() if p.labels == "none")
        say(
            "no labels: nothing to evaluate; name a labelled data set with --eval_dataset, or "
            f"add {without} to --eval_protocols"
        )
        return None
    if file is None:
        # The untrained encoder is the deployed one at step 0 of this very run: same seed, same
        # slices.
        encoders = {
            "": run_dir.load_encoder(),
            "_untrained": build_method(config).deployed_encoder(),
        }
    else:
        encoders = {"": getattr(file, "model", file)}
    batches = raw_batches if pixels else plain_batches
    settings = {"image_size": evaluation_size(config), "batch_size": _BATCH}
    result = {"dataset": config.eval_dataset or config.dataset}
    for suffix, encoder in encoders.items():
        found = evaluate_encoder(
            encoder,
            batches(train, **settings),
            batches(test, **settings),
            protocols=protocols,
            views=None
            if pixels
            else {"train": _views(config, train), "test": _views(config, test)},
        )
        for name, value in found.items():
            if is_score(name) or not suffix:
                result[name + suffix if is_score(name) else name] = value
    if file is None:
        run_dir.record("evaluate", result)
    else:
        files = run_dir.results().get("evaluate_files", {})
        run_dir.record("evaluate_files", {**files, config.eval_encoder: result})
    return result


def _views(config, source):
    """Two views of at most `_VIEWED` images, by the preset of the training."""
    source = source.take(_VIEWED)
    return two_view_dataset(
        source,
        get_preset(config.augmentation),
        image_size=evaluation_size(config),
        batch_size=min(len(source), _VIEWED // 4),
        seed=config.seed,
        epochs=1,
    )
