"""The training of a run: built, resumed, and taken back where it diverged."""

import itertools
import sys

import keras
import numpy as np
import tensorflow as tf

from keras_sacl import callbacks
from keras_sacl.config import ConfigError
from keras_sacl.data import (
    all_presets,
    get_preset,
    load_source,
    plain_batches,
    two_view_dataset,
    view_finisher,
)
from keras_sacl.evaluation import label_kind
from keras_sacl.stages.build import build_method, compile_method
from keras_sacl.stages.distilling import Distilling
from keras_sacl.stages.inputs import VIEWED, augmented_images, fixed_views, initial_encoder
from keras_sacl.stages.strategy import is_first, make_strategy

_MONITOR_BANK, _MONITOR_QUERIES = 5000, 1000
_MOST_ROLLBACKS = 5


class Training:
    """A method in training, and how far it has come.

    Args:
        config: A validated `RunConfig`.
        run_dir: A started `RunDir`.
        source: `ImageSource` to train on.
        say: Called with lines for the user.

    Attributes:
        method: The compiled method; another one after a rollback.
        step: Steps that it has behind it.
        steps: Steps of an epoch.
        last_step: Steps that it ends after: --stop_epoch's, or those of all --epochs.
        first: Whether this process is the one that writes.

    Raises:
        ConfigError: If the devices are not there.
    """

    def __init__(self, config, run_dir, source, say):
        self.config, self.run_dir, self.source, self.say = config, run_dir, source, say
        self.steps = len(source) // config.batch_size
        self.last_step = config.last_epoch * self.steps
        self.strategy = make_strategy(config)
        self.first = is_first(config)
        self.step = 0
        self._distilling = None
        if config.distill:
            with self.strategy.scope():
                self._distilling = Distilling(config, source, run_dir, say)
        self._build(1.0)

    def resume(self):
        """Restores the newest checkpoint, if there is one.

        Raises:
            ConfigError: If it is not one of this run, or several workers find different ones.
        """
        if self._checkpoint.paths():
            self._require_same_teacher()
        try:
            self.step = self._checkpoint.restore(self.method, warn=self.say)
        except ValueError as error:
            raise ConfigError(
                "run_dir", self.config.run_dir, f"cannot be resumed: {error}"
            ) from error
        self._require_one_folder()
        factor = self._checkpoint.rate_factor
        if factor != 1:  # the run has been rolled back
            self._build(factor)
            self._checkpoint.restore(self.method, warn=self.say)
        if self.step:
            self.say(f"resuming after step {self.step} of {self.last_step}")
        else:
            self.say(f"no checkpoint in {self.run_dir.checkpoints}: starting with step 1")

    def run(self):
        """Trains to the last step.

        Raises:
            TrainingStopped: If the guard stopped training for good.
            CheckpointError: If a checkpoint could not be written.
            StoppedBySignal: After a checkpoint.
        """
        if self._distilling is not None:
            self._distilling.cache()
        if not self.step:
            self._start()
        for rollbacks in itertools.count():
            try:
                return self._fit()
            except callbacks.TrainingStopped as stopped:
                if self.config.on_divergence == "stop" or rollbacks == _MOST_ROLLBACKS:
                    raise
                self._roll_back(stopped)

    def _build(self, rate_factor):
        config = self.config
        with self.strategy.scope():
            distiller = self._distilling and self._distilling.distiller()
            self.method = build_method(config, len(self.source), distiller)
            compile_method(self.method, config, self.steps, rate_factor)
        if augment_on(config) == "device":
            presets = all_presets(get_preset(config.augmentation), config.small_views)
            self.method.finish_views = view_finisher(presets)
        self._guard = callbacks.CollapseGuard()
        self._checkpoint = callbacks.RunCheckpoint(
            self.run_dir.checkpoints,
            keep=config.keep_checkpoints,
            every_steps=config.checkpoint_steps,
            rate_factor=rate_factor,
            write=self.first,
            guard=self._guard,
        )

    def _start(self):
        """What a run does before its first step, and one that is resumed does not."""
        if self._distilling is not None:
            if self.first:
                self.run_dir.record("teacher", {"sha256": self._distilling.teacher_hash})
            self._distilling.start(self.method)
        if self.config.init_from is not None:
            self.method.start_from(initial_encoder(self.config))

    def _roll_back(self, stopped):
        factor = self._checkpoint.rate_factor / 2
        self._build(factor)
        self.step = self._checkpoint.restore(self.method, warn=self.say)
        if not self.step:
            self._start()
        self._checkpoint.rate_factor = factor  # the file has the one that was too high
        self.say(f"{stopped}; back to step {self.step} with {factor:g} of the learning rate")

    def _fit(self):
        config = self.config
        stop = callbacks.StopOnSignal(self._checkpoint)
        found = [*self._callbacks(), stop]
        with stop.listening():
            while self.step < self.last_step:
                epoch, done = divmod(self.step, self.steps)
                # What is left of an epoch that was cut is a `fit` of its own.
                cut = [_end_after_one_epoch(self.method)] if done else []
                self.method.fit(
                    self._views(),
                    epochs=config.last_epoch,
                    initial_epoch=epoch,
                    steps_per_epoch=self.steps - done,
                    callbacks=found + cut,
                    shuffle=False,  # the data comes in its order
                    verbose=verbosity(config.verbose) if self.first else 0,
                )
                self.step = (epoch + 1) * self.steps if done else self.last_step

    def _views(self):
        config = self.config

        def views(part=(0, 1)):
            return two_view_dataset(
                augmented_images(config),
                get_preset(config.augmentation),
                image_size=config.image_size,
                batch_size=config.batch_size,
                seed=config.seed,
                epochs=config.epochs,
                start_step=self.step,
                augment_on=augment_on(config),
                service=config.data_service,
                part=part,
                small_views=config.small_views,
                small_size=config.small_size,
                rows=self._distilling and self._distilling.rows,
            )

        def own_views(context):
            part = context.input_pipeline_id, context.num_input_pipelines
            return views(part).rebatch(config.batch_size // context.num_replicas_in_sync)

        if config.strategy != "multi_worker":
            return views()
        # Left to itself, TensorFlow would deal whole batches out among the workers.
        return self.strategy.distribute_datasets_from_function(own_views)

    def _callbacks(self):
        config, found = self.config, []
        if config.phase_ends:
            both = config.epochs - config.alone_epochs
            found.append(
                callbacks.SlimSchedule(config.dense_epochs * self.steps, both * self.steps)
            )
        if config.slims and config.slim_selection == "magnitude":
            found.append(callbacks.SlimRefresh(config.slim_refresh_steps))
        # The guard stands first: a bad state is neither measured nor logged nor saved.
        found.append(self._guard)
        if not self.first:
            return [*found, self._checkpoint]
        if config.knn_every:
            monitor = _knn_monitor(config, self.source)
            if monitor is not None:
                found.append(monitor)
        if config.views_every:
            few = self.source.take(VIEWED)
            found.append(
                callbacks.RepresentationMonitor(
                    lambda: fixed_views(config, few), every=config.views_every
                )
            )
        found += [callbacks.MetricsLog(self.run_dir.metrics), self._checkpoint]
        if config.tensorboard:
            found.append(keras.callbacks.TensorBoard(self.run_dir.tensorboard, write_graph=False))
        return found

    def _require_same_teacher(self):
        before = self.run_dir.results().get("teacher", {}).get("sha256")
        if self._distilling and self._distilling.teacher_hash != before:
            raise ConfigError(
                "teacher", self.config.teacher, "is another one than that which the run began with"
            )

    def _require_one_folder(self):
        if self.config.strategy != "multi_worker":
            return
        steps = self.strategy.gather(tf.constant([self.step]), axis=0).numpy().tolist()
        if len(set(steps)) > 1:
            raise ConfigError(
                "run_dir", self.config.run_dir,
                f"must be one folder for all workers, which found checkpoints of steps {steps}",
            )  # fmt: skip


def augment_on(config):
    """Where views are finished: "host" or "device"."""
    if config.augment_on != "auto":
        return config.augment_on
    return "device" if has_gpu() else "host"


def has_gpu():
    return bool(tf.config.list_physical_devices("GPU"))


def _end_after_one_epoch(method):
    return keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: setattr(method, "stop_training", True)
    )


def _knn_monitor(config, source):
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
    bank = source.take(_MONITOR_BANK)
    if label_kind(bank.labels, queries.labels) != "one":
        return None
    batches = {"image_size": config.image_size, "batch_size": 256}
    return callbacks.KNNMonitor(
        lambda: plain_batches(bank, **batches),
        lambda: plain_batches(queries, **batches),
        every=config.knn_every,
        information=len(np.unique(bank.labels)) > 1,  # it asks a linear probe
    )


def verbosity(verbose):
    """What `fit` is to be told for --verbose: 1 a bar, 2 a line for each epoch, 0 nothing."""
    if verbose == "auto":
        verbose = "bar" if sys.stdout.isatty() else "line"
    return {"bar": 1, "line": 2, "quiet": 0}[verbose]
