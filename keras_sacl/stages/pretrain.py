"""Pretraining: unlabelled images in, encoder.keras out."""

import sys
import time

import keras

from keras_sacl import callbacks
from keras_sacl.data import (
    get_preset,
    load_source,
    plain_batches,
    two_view_dataset,
    view_finisher,
)
from keras_sacl.stages.build import build_method, compile_method, deployed_float32
from keras_sacl.stages.inputs import augmented_images, training_images
from keras_sacl.stages.strategy import make_strategy

_MONITOR_BANK, _MONITOR_QUERIES = 5000, 1000


def pretrain(config, run_dir, say=print):
    """Trains the method of `config`, resuming from the newest checkpoint if there is one.

    Args:
        config: A validated `RunConfig`.
        run_dir: A started `RunDir`.
        say: Called with lines for the user.

    Returns:
        The result that went into results.json.

    Raises:
        ConfigError: If the images do not suit the settings.
        TrainingStopped: If the guard stopped training.
    """
    source = training_images(config)
    steps = len(source) // config.batch_size
    strategy = make_strategy(config)
    with strategy.scope():
        method = build_method(config)
        compile_method(method, config, steps)
    checkpoint = callbacks.RunCheckpoint(run_dir.checkpoints, keep=config.keep_checkpoints)
    epochs_done = 0
    if config.resume:
        epochs_done = checkpoint.restore(method, warn=say)
        say(f"resuming after epoch {epochs_done} of {config.epochs}")
    describe(config, method, source, steps, say)
    preset, augment_on = get_preset(config.augmentation), _augment_on(config)
    if augment_on == "device":
        method.finish_views = view_finisher(preset)
    started = time.perf_counter()
    if epochs_done < config.epochs:
        method.fit(
            two_view_dataset(
                augmented_images(config),
                preset,
                image_size=config.image_size,
                batch_size=config.batch_size,
                seed=config.seed,
                epochs=config.epochs,
                start_step=epochs_done * steps,
                augment_on=augment_on,
                service=config.data_service,
            ),
            epochs=config.epochs,
            initial_epoch=epochs_done,
            steps_per_epoch=steps,
            callbacks=_callbacks(config, run_dir, source, checkpoint),
            shuffle=False,  # the data comes in its order
            verbose=_verbosity(config.verbose),
        )
    encoder = deployed_float32(method, config)
    temporary = run_dir.encoder.with_name("encoder.tmp.keras")
    encoder.save(temporary)
    temporary.replace(run_dir.encoder)
    lines = callbacks.read_metrics(run_dir.metrics)
    result = {
        "method": config.effective_method,
        "images": len(source),
        "skipped_images": [{"path": str(p), "reason": r} for p, r in source.skipped],
        "epochs": config.epochs,
        "steps": config.epochs * steps,
        "deployed_parameters": encoder.count_params(),
        "host_parameters": method.encoder.count_params() if config.slims else None,
        "seconds": round(sum(line["seconds"] for line in lines), 1),
        "seconds_this_session": round(time.perf_counter() - started, 1),
        "final": lines[-1] if lines else None,
    }
    run_dir.record("pretrain", result)
    return result


def describe(config, method, source, steps, say):
    """Says in a few lines what will be trained, and what of the flags has no effect."""
    if source.skipped:
        path, reason = source.skipped[0]
        say(f"skipped {len(source.skipped)} files that are no images, the first: {path} ({reason})")
    if config.method.startswith("sacl") and not config.slims:
        say(
            f"--host_width equals --width: nothing to slim, {config.method} is then "
            f"{config.effective_method}"
        )
    elif not config.method.startswith("sacl") and config.host_width != config.width:
        say(f"--host_width has no effect: {config.method} trains the deployed width alone")
    if config.jit_compile == "true" and not _has_gpu():
        say("--jit_compile=true: XLA on a CPU usually makes this step several times slower")
    host = f", host width {config.host_width:g}" if config.slims else ""
    replicas = method.distribute_strategy.num_replicas_in_sync
    shared = f", shared by {replicas} replicas" if replicas > 1 else ""
    say(
        f"{config.effective_method}: {config.encoder} width {config.width:g}{host}, "
        f"{config.image_size} px, {len(source)} images, {steps} steps an epoch of {config.batch_size} images{shared}, "
        f"{config.epochs} epochs, {method.count_params():,} parameters in training"
    )


def _callbacks(config, run_dir, source, checkpoint):
    found = []
    if config.slims and config.slim_selection == "magnitude":
        found.append(callbacks.SlimRefresh(config.slim_refresh_steps))
    if config.knn_every:
        monitor = _monitor(config, source)
        if monitor is not None:
            found.append(monitor)
    # The guard stands before what writes: a bad state is neither logged as an epoch nor saved.
    found += [callbacks.CollapseGuard(), callbacks.MetricsLog(run_dir.metrics), checkpoint]
    if config.tensorboard:
        found.append(keras.callbacks.TensorBoard(run_dir.tensorboard, write_graph=False))
    return found


def _monitor(config, source):
    if source.labels is None:
        return None
    try:
        queries = load_source(
            config.dataset,
            config.test_split,
            data_dir=config.data_dir,
            image_size=config.image_size,
            limit=_MONITOR_QUERIES,
        )
    except ValueError:
        return None  # No test split to look at: a monitor is a convenience.
    batches = {"image_size": config.image_size, "batch_size": 256}
    return callbacks.KNNMonitor(
        lambda: plain_batches(source.take(_MONITOR_BANK), **batches),
        lambda: plain_batches(queries, **batches),
        every=config.knn_every,
    )


def _verbosity(verbose):
    if verbose == "auto":
        verbose = "bar" if sys.stdout.isatty() else "line"
    return {"bar": 1, "line": 2, "quiet": 0}[verbose]


def _augment_on(config):
    if config.augment_on != "auto":
        return config.augment_on
    return "device" if _has_gpu() else "host"


def _has_gpu():
    import tensorflow as tf

    return bool(tf.config.list_physical_devices("GPU"))
