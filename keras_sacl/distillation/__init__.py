"""Distillation: one small objective per file, a teacher, and what weighs them."""

from keras_sacl.distillation.at import AT, attention_loss
from keras_sacl.distillation.cc import CC, CLUSTERED_IMAGES, cluster_centres, cluster_loss
from keras_sacl.distillation.compress import CompRess1Q, CompRess2Q, compress_loss
from keras_sacl.distillation.crd import CRD, nce_logits, nce_loss
from keras_sacl.distillation.disco import DisCo, disco_loss
from keras_sacl.distillation.distiller import Distiller
from keras_sacl.distillation.kd import kd_loss
from keras_sacl.distillation.objective import HeadObjective, Objective, Widths
from keras_sacl.distillation.reg import Reg, RegBN, regression_loss
from keras_sacl.distillation.rkd import RKD, rkd_losses
from keras_sacl.distillation.seed import SEED, seed_loss

OBJECTIVES = {
    "disco": DisCo, "seed": SEED, "compress_1q": CompRess1Q, "compress_2q": CompRess2Q, "at": AT,
    "rkd": RKD, "reg": Reg, "reg_bn": RegBN, "cc": CC, "crd": CRD,
}  # fmt: skip

__all__ = [
    "AT",
    "CC",
    "CLUSTERED_IMAGES",
    "CRD",
    "OBJECTIVES",
    "RKD",
    "SEED",
    "CompRess1Q",
    "CompRess2Q",
    "DisCo",
    "Distiller",
    "HeadObjective",
    "Objective",
    "Reg",
    "RegBN",
    "Widths",
    "attention_loss",
    "cluster_centres",
    "cluster_loss",
    "compress_loss",
    "disco_loss",
    "kd_loss",
    "nce_logits",
    "nce_loss",
    "regression_loss",
    "rkd_losses",
    "seed_loss",
]
