"""The methods: each a `keras.Model` whose `loss_terms` reads like its paper."""

from keras_sacl.methods.barlow_twins import BarlowTwins
from keras_sacl.methods.base import TwoViewMethod
from keras_sacl.methods.distillation import Distillation
from keras_sacl.methods.moco_v2 import MoCoV2
from keras_sacl.methods.sacl import SACL, SACLXD
from keras_sacl.methods.swav import SwAV
from keras_sacl.methods.xd import XD

METHODS = {
    "barlow_twins": BarlowTwins, "xd": XD, "sacl": SACL, "sacl_xd": SACLXD, "moco_v2": MoCoV2,
    "swav": SwAV, "distill": Distillation,
}  # fmt: skip

__all__ = [
    "METHODS",
    "SACL",
    "SACLXD",
    "XD",
    "BarlowTwins",
    "Distillation",
    "MoCoV2",
    "SwAV",
    "TwoViewMethod",
]
