"""Slimming: one host network, and inside it the slim networks that are deployed."""

from keras_sacl.slimming.encoder import SlimmableEncoder
from keras_sacl.slimming.mask import SlimMask, insert_masks
from keras_sacl.slimming.pairing import check_pair
from keras_sacl.slimming.tiers import TieredEncoder

__all__ = ["SlimMask", "SlimmableEncoder", "TieredEncoder", "check_pair", "insert_masks"]
