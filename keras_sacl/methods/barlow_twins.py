"""Barlow Twins, and the parameters of its loss."""

import keras

from keras_sacl import losses
from keras_sacl.methods.base import TwoViewMethod


@keras.saving.register_keras_serializable("keras_sacl")
class BarlowTwins(TwoViewMethod):
    """Barlow Twins: L = sum_i (1 - C_ii)^2 + lambd * sum_{i != j} C_ij^2.

    "Barlow Twins: Self-Supervised Learning via Redundancy Reduction" (2021), equation 1.

    Args:
        encoder, projector, loss_scale: As in `TwoViewMethod`.
        lambd: Weight of the off-diagonal terms.
    """

    terms = ("barlow_twins",)

    def __init__(self, encoder, projector, lambd=losses.DEFAULT_LAMBD, **kwargs):
        super().__init__(encoder, projector, **kwargs)
        if not lambd >= 0:
            raise ValueError(f"`lambd` must not be negative. Received: lambd={lambd}")
        self.lambd = lambd

    def loss_terms(self, x_a, x_b):
        z_a, z_b = self.embed(x_a), self.embed(x_b)
        loss = losses.barlow_twins(z_a, z_b, self.lambd)
        return {"loss": loss, "barlow_twins": loss, "z": z_b}

    def get_config(self):
        return {**super().get_config(), "lambd": self.lambd}
