"""Keras callbacks: monitors, guards, logs and checkpoints."""

from keras_sacl.callbacks.checkpoint import RunCheckpoint
from keras_sacl.callbacks.guard import CollapseGuard, TrainingStopped
from keras_sacl.callbacks.knn_monitor import KNNMonitor
from keras_sacl.callbacks.metrics_log import MetricsLog, read_metrics
from keras_sacl.callbacks.slim_refresh import SlimRefresh

__all__ = [
    "CollapseGuard",
    "KNNMonitor",
    "MetricsLog",
    "RunCheckpoint",
    "SlimRefresh",
    "TrainingStopped",
    "read_metrics",
]
