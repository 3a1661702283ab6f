"""Distillation alone: a student, its teacher, and no contrastive loss."""

import keras

from keras_sacl.methods.base import TwoViewMethod


@keras.saving.register_keras_serializable("keras_sacl")
class Distillation(TwoViewMethod):
    """The weighted objectives of a `Distiller`, and nothing else.

    Args:
        encoder: The student.
        projector: None, as a rule: objectives have heads of their own.
        distiller: A `Distiller`.
        loss_scale: As in `TwoViewMethod`.
    """

    def __init__(self, encoder, projector=None, **kwargs):
        super().__init__(encoder, projector, **kwargs)
        if self.distiller is None:
            raise ValueError("`distiller` must be a Distiller. Received: distiller=None")

    def loss_terms(self, x_a, x_b):
        z = self.encode_deployed(x_a).features
        return {"loss": 0.0, "z": z}
