"""From a RunConfig to the devices that train together."""

import functools
import json
import os

import tensorflow as tf

from keras_sacl.config import ConfigError


def make_strategy(config):
    """The `tf.distribute` strategy of a run; to be made before anything computes.

    Args:
        config: A validated `RunConfig`.

    Returns:
        A `tf.distribute.Strategy`; TensorFlow's default one for a single device.

    Raises:
        ConfigError: If the devices are not there, or the batch cannot be shared out among them.
    """
    strategy = _BUILDERS[config.strategy](config)
    config.check_replicas(strategy.num_replicas_in_sync)
    return strategy


def _auto(config):
    if config.replicas is None and len(tf.config.list_physical_devices("GPU")) < 2:
        return _one_device(config)
    return _mirrored(config)


def _one_device(config):
    if config.replicas not in (None, 1):
        raise ConfigError(
            "replicas", config.replicas, "needs --strategy=mirrored (or auto), not one_device"
        )
    return tf.distribute.get_strategy()


def _mirrored(config):
    gpus = len(tf.config.list_physical_devices("GPU"))
    count = config.replicas or max(gpus, 1)
    if gpus and count > gpus:
        raise ConfigError("replicas", count, f"must be at most the {gpus} GPUs of this machine")
    return tf.distribute.get_strategy() if count == 1 else _mirror(count, "GPU" if gpus else "CPU")


# One for a process: a second one would begin to number its exchanges anew, and meet the first's.
@functools.cache
def _mirror(count, kind):
    if kind == "CPU":
        _split_cpu(count)
    return tf.distribute.MirroredStrategy([f"{kind}:{i}" for i in range(count)])


def _split_cpu(count):
    """Makes logical devices of the CPU: slower than one, and the same in every other respect."""
    cpu = tf.config.list_physical_devices("CPU")[0]
    try:
        devices = [tf.config.LogicalDeviceConfiguration()] * count
        tf.config.set_logical_device_configuration(cpu, devices)
    except RuntimeError as error:  # something has computed already
        if len(tf.config.list_logical_devices("CPU")) < count:
            raise ConfigError(
                "replicas", count, "must be set up before TensorFlow computes anything"
            ) from error


def _multi_worker(config):
    if config.replicas is not None:
        raise ConfigError(
            "replicas", config.replicas, "has no effect with --strategy=multi_worker; leave it out"
        )
    worker_index()  # its refusal is clearer than TensorFlow's
    try:
        return _across_workers()
    except (RuntimeError, tf.errors.OpError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ConfigError(
            "strategy", "multi_worker", f"cannot start as TF_CONFIG says ({reason})"
        ) from error


@functools.cache
def _across_workers():
    return tf.distribute.MultiWorkerMirroredStrategy()


@functools.cache
def _tpu(config):
    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver.connect()
    except (ValueError, tf.errors.OpError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ConfigError("strategy", "tpu", f"finds no TPU ({reason})") from error
    return tf.distribute.TPUStrategy(resolver)


def worker_index():
    """Which of the workers this process is, from 0, as TF_CONFIG says.

    Raises:
        ConfigError: If it says nothing of the kind.
    """
    text = os.environ.get("TF_CONFIG", "")
    try:
        found = json.loads(text)
        workers, task = found["cluster"]["worker"], found["task"]
        index = int(task["index"])
        whole = set(found["cluster"]) == {"worker"} and task["type"] == "worker"
        if not (whole and 0 <= index < len(workers)):
            raise ValueError
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            "strategy", "multi_worker",
            'needs the environment variable TF_CONFIG, such as {"cluster": {"worker": '
            '["host1:2222", "host2:2222"]}, "task": {"type": "worker", "index": 0}}; it is '
            f"{text[:200] or 'not set'}",
        ) from error  # fmt: skip
    return index


def is_first(config):
    """Whether this process writes the run directory, and runs the other stages."""
    return config.strategy != "multi_worker" or worker_index() == 0


_BUILDERS = {
    "auto": _auto,
    "one_device": _one_device,
    "mirrored": _mirrored,
    "multi_worker": _multi_worker,
    "tpu": _tpu,
}
