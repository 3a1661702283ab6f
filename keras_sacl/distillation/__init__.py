"""Distillation: one small objective per file."""

from keras_sacl.distillation.kd import kd_loss

__all__ = ["kd_loss"]
