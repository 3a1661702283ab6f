"""The methods: each a `keras.Model` whose `loss_terms` reads like its paper."""

from keras_sacl.methods.barlow_twins import BarlowTwins
from keras_sacl.methods.base import TwoViewMethod, frozen_call
from keras_sacl.methods.sacl import SACL, SACLXD
from keras_sacl.methods.xd import XD

METHODS = {"barlow_twins": BarlowTwins, "xd": XD, "sacl": SACL, "sacl_xd": SACLXD}

__all__ = ["METHODS", "SACL", "SACLXD", "XD", "BarlowTwins", "TwoViewMethod", "frozen_call"]
