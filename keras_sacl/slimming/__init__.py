"""Slimming: one host network, and inside it the slim network that is deployed."""

from keras_sacl.slimming.encoder import SlimmableEncoder
from keras_sacl.slimming.mask import SlimMask, insert_masks
from keras_sacl.slimming.pairing import check_pair

__all__ = ["SlimMask", "SlimmableEncoder", "check_pair", "insert_masks"]
