"""Pretraining: unlabelled images in, encoder.keras out."""

import collections
import itertools
import sys
import time

import keras
import tensorflow as tf

from keras_sacl import callbacks
from keras_sacl.config import ConfigError
from keras_sacl.data import (
    get_preset,
    load_source,
    plain_batches,
    two_view_dataset,
    view_finisher,
)
from keras_sacl.stages.build import build_method, compile_method, deployed_float32
from keras_sacl.stages.inputs import augmented_images, training_images
from keras_sacl.stages.strategy import is_first, make_strategy

_MONITOR_BANK, _MONITOR_QUERIES = 5000, 1000
_MOST_ROLLBACKS = 5


def pretrain(config, run_dir, say=print):
    """Trains the method of `config`, resuming from the newest checkpoint if there is one.

    Args:
        config: A validated `RunConfig`.
        run_dir: A started `RunDir`.
        say: Called with lines for the user.

    Returns:
        The result that went into results.json; None on the workers behind the first.

    Raises:
        ConfigError: If the images do not suit the settings.
        TrainingStopped: If the guard stopped training.
    """
    source = training_images(config)
    run = _Run(config, run_dir, source, say)
    method, checkpoint = run.build()
    step = 0
    if config.resume:
        step = checkpoint.restore(method, warn=say)
        if checkpoint.rate_factor != 1:
            method, checkpoint = run.build(checkpoint.rate_factor)
            checkpoint.restore(method)
        say(f"resuming after step {step} of {run.total_steps}")
    run.check_workers(step)
    describe(config, method, source, run.steps, say)
    started = time.perf_counter()
    method = run.train(method, checkpoint, step)
    if not run.first:
        return None
    encoder = deployed_float32(method, config)
    temporary = run_dir.encoder.with_name("encoder.tmp.keras")
    encoder.save(temporary)
    temporary.replace(run_dir.encoder)
    lines = callbacks.read_metrics(run_dir.metrics)
    result = {
        "method": config.effective_method,
        "images": len(source),
        "skipped_images": [{"path": str(p), "reason": r} for p, r in source.skipped],
        "skipped_by_reason": collections.Counter(reason for _, reason in source.skipped),
        "epochs": config.epochs,
        "steps": run.total_steps,
        "deployed_parameters": encoder.count_params(),
        "host_parameters": method.encoder.count_params() if config.slims else None,
        "seconds": round(sum(line["seconds"] for line in lines), 1),
        "seconds_this_session": round(time.perf_counter() - started, 1),
        "final": lines[-1] if lines else None,
    }
    run_dir.record("pretrain", result)
    return result


class _Run:
    """The training of one run: built, trained, and taken up again where it diverged."""

    def __init__(self, config, run_dir, source, say):
        self.config, self.run_dir, self.source, self.say = config, run_dir, source, say
        self.steps = len(source) // config.batch_size
        self.total_steps = config.epochs * self.steps
        self.strategy = make_strategy(config)
        self.first = is_first(config)

    def build(self, rate_factor=1.0):
        """A compiled method, and its checkpoints."""
        config = self.config
        with self.strategy.scope():
            method = build_method(config)
            compile_method(method, config, self.steps, rate_factor)
        if _augment_on(config) == "device":
            method.finish_views = view_finisher(get_preset(config.augmentation))
        checkpoint = callbacks.RunCheckpoint(
            self.run_dir.checkpoints,
            keep=config.keep_checkpoints,
            every_steps=config.checkpoint_steps,
            rate_factor=rate_factor,
            write=self.first,
        )
        return method, checkpoint

    def train(self, method, checkpoint, step):
        """Trains from `step` to the end; returns the method that came out of it.

        Raises:
            TrainingStopped: If the guard stopped training for good.
        """
        for rollbacks in itertools.count():
            try:
                self._fit(method, checkpoint, step)
                return method
            except callbacks.TrainingStopped as stopped:
                if self.config.on_divergence == "stop" or rollbacks == _MOST_ROLLBACKS:
                    raise
                factor = checkpoint.rate_factor / 2
                method, checkpoint = self.build(factor)
                step = checkpoint.restore(method, warn=self.say)
                # The restored file holds the rate that went wrong.
                checkpoint.rate_factor = factor
                self.say(f"{stopped}; back to step {step} with {factor:g} of the learning rate")

    def _fit(self, method, checkpoint, step):
        config, steps = self.config, self.steps
        stop = callbacks.StopOnSignal(checkpoint)
        found = _callbacks(config, self.run_dir, self.source, checkpoint, self.first) + [stop]
        with stop.listening():
            while step < self.total_steps:
                epoch, done = divmod(step, steps)
                # What is left of an epoch that was cut is a `fit` of its own.
                cut = [_end_after_one_epoch(method)] if done else []
                method.fit(
                    self._views(step),
                    epochs=config.epochs,
                    initial_epoch=epoch,
                    steps_per_epoch=steps - done,
                    callbacks=found + cut,
                    shuffle=False,  # the data comes in its order
                    verbose=_verbosity(config.verbose) if self.first else 0,
                )
                step = (epoch + 1) * steps if done else self.total_steps

    def _views(self, step):
        config = self.config

        def views(part=(0, 1)):
            return two_view_dataset(
                augmented_images(config),
                get_preset(config.augmentation),
                image_size=config.image_size,
                batch_size=config.batch_size,
                seed=config.seed,
                epochs=config.epochs,
                start_step=step,
                augment_on=_augment_on(config),
                service=config.data_service,
                part=part,
            )

        def own_views(context):
            part = context.input_pipeline_id, context.num_input_pipelines
            return views(part).rebatch(config.batch_size // context.num_replicas_in_sync)

        if config.strategy != "multi_worker":
            return views()
        # Left to itself, TensorFlow would deal whole batches out among the workers.
        return self.strategy.distribute_datasets_from_function(own_views)

    def check_workers(self, step):
        """Refuses workers that start at different steps, as where each has a folder of its own.

        Raises:
            ConfigError: If they do.
        """
        if self.config.strategy != "multi_worker":
            return
        steps = self.strategy.gather(tf.constant([step]), axis=0).numpy().tolist()
        if len(set(steps)) > 1:
            raise ConfigError(
                "run_dir", self.config.run_dir,
                f"must be one folder for all workers, which found checkpoints of steps {steps}",
            )  # fmt: skip


def describe(config, method, source, steps, say):
    """Says in a few lines what will be trained, and what of the flags has no effect."""
    if source.skipped:
        counts = collections.Counter(reason for _, reason in source.skipped).most_common()
        kinds = ", ".join(f"{count} {reason}" for reason, count in counts)
        say(
            f"skipped {len(source.skipped)} files ({kinds}), the first: {source.skipped[0][0]}; "
            "all are named in results.json"
        )
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
        f"{config.image_size} px, {len(source)} images, {config.epochs} epochs of {steps} steps of "
        f"{config.batch_size}{shared}, {method.count_params():,} parameters in training"
    )


def _end_after_one_epoch(method):
    return keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: setattr(method, "stop_training", True)
    )


def _callbacks(config, run_dir, source, checkpoint, first):
    found = []
    if config.slims and config.slim_selection == "magnitude":
        found.append(callbacks.SlimRefresh(config.slim_refresh_steps))
    # The guard stands before what writes: a bad state is neither logged as an epoch nor saved.
    guard = callbacks.CollapseGuard()
    if not first:
        return [*found, guard, checkpoint]
    if config.knn_every:
        monitor = _monitor(config, source)
        if monitor is not None:
            found.append(monitor)
    found += [guard, callbacks.MetricsLog(run_dir.metrics), checkpoint]
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
    return bool(tf.config.list_physical_devices("GPU"))
