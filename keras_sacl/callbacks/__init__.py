"""Keras callbacks: monitors, guards, logs and checkpoints."""

from keras_sacl.callbacks.checkpoint import CheckpointError, RunCheckpoint
from keras_sacl.callbacks.guard import CollapseGuard, TrainingStopped
from keras_sacl.callbacks.metrics_log import MetricsLog, read_metrics
from keras_sacl.callbacks.monitors import EncoderMonitor, KNNMonitor, RepresentationMonitor
from keras_sacl.callbacks.slim_refresh import SlimRefresh
from keras_sacl.callbacks.slim_schedule import SlimSchedule
from keras_sacl.callbacks.stop_on_signal import StopOnSignal, StoppedBySignal

__all__ = [
    "CheckpointError",
    "CollapseGuard",
    "EncoderMonitor",
    "KNNMonitor",
    "MetricsLog",
    "RepresentationMonitor",
    "RunCheckpoint",
    "SlimRefresh",
    "SlimSchedule",
    "StopOnSignal",
    "StoppedBySignal",
    "TrainingStopped",
    "read_metrics",
]
