"""Evaluation of the deployed encoder beside the same encoder untrained, or of a file."""

from keras_sacl.data import plain_batches, raw_batches
from keras_sacl.evaluation import PROTOCOLS, evaluate_encoder, is_score
from keras_sacl.stages.build import build_networks, deployed_float32
from keras_sacl.stages.inputs import (
    VIEWED,
    encoder_file,
    evaluated_protocols,
    evaluation_size,
    fixed_views,
    labelled_images,
)

_BATCH = 256


def evaluate(config, run_dir, say=print):
    """--eval_protocols on frozen features of encoder.keras, and of the untrained encoder.

    With --eval_encoder on those of that file alone. Of several widths each is evaluated by itself.

    Args:
        config: A validated `RunConfig`.
        run_dir: A `RunDir` with encoder.keras.
        say: Called with lines for the user.

    Returns:
        The result that went into results.json, under "evaluate" or, for a file, under
        "evaluate_files"; None where there are no labels and every protocol needs them. Those of
        narrower widths are under "evaluate_widths".

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
    batches = raw_batches if pixels else plain_batches
    settings = {"image_size": evaluation_size(config), "batch_size": _BATCH}
    views = None
    if any(PROTOCOLS[name].needs == "views" for name in protocols):
        views = {
            name: fixed_views(config, source.take(VIEWED), image_size=settings["image_size"])
            for name, source in (("train", train), ("test", test))
        }

    def scores(encoders):
        result = {"dataset": config.eval_dataset or config.dataset}
        for suffix, encoder in encoders.items():
            found = evaluate_encoder(
                encoder,
                batches(train, **settings),
                batches(test, **settings),
                protocols=protocols,
                views=views,
            )
            for name, reason in found.get("not_measured", {}).items() if not suffix else ():
                say(f"{name} cannot be measured: {reason}")
            for name, value in found.items():
                if is_score(name) or not suffix:
                    result[name + suffix if is_score(name) else name] = value
        return result

    if file is not None:
        result = scores({"": getattr(file, "model", file)})
        files = run_dir.results().get("evaluate_files", {})
        run_dir.record("evaluate_files", {**files, config.eval_encoder: result})
        return result
    # The untrained encoder is the deployed one before step 0 of this very run: same seed, same
    # slices, and random, whatever --init_from starts from.
    untrained, _ = build_networks(config)
    results = {}
    for width, path in run_dir.encoders(config.widths).items():
        before, after = deployed_float32(untrained, config, width), run_dir.load_encoder(path)
        results[str(width)] = scores({"": after, "_untrained": before})
    result = results.pop(str(config.width))
    run_dir.record("evaluate", result)
    if results:
        run_dir.record("evaluate_widths", results)
    return result
