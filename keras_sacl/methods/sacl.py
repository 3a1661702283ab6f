"""SACL, and SACL with cross distillation.

"Slimmed Asymmetrical Contrastive Learning and Cross Distillation for Lightweight Model Training"
(2023), Algorithm 1.
"""

import keras

from keras_sacl import losses
from keras_sacl.methods.barlow_twins import BarlowTwins
from keras_sacl.methods.xd import CrossDistillation


@keras.saving.register_keras_serializable("keras_sacl")
class SACL(BarlowTwins):
    """Slimmed asymmetrical contrastive learning: the host sees view A, the slim network view B.

    While the encoder's `slimming` is False the two are one, and this is Barlow Twins of the host.

    Args: as in `BarlowTwins`; the encoder is a `SlimmableEncoder`.
    """

    def __init__(self, encoder, projector, **kwargs):
        super().__init__(encoder, projector, **kwargs)
        self.require_slimmable()

    def loss_terms(self, x_a, x_b):
        z_a = self.embed(x_a, slim=False)
        z_b = self.embed(x_b, slim=True)
        loss = losses.barlow_twins(z_a, z_b, self.lambd)
        return {"loss": loss, "barlow_twins": loss, "z": z_b}


@keras.saving.register_keras_serializable("keras_sacl")
class SACLXD(CrossDistillation):
    """SACL with cross distillation: the passes of Algorithm 1.

    While the encoder's `slimming` is False this is XD of the host, whose frozen passes are not run.

    Args: as in `CrossDistillation`; the encoder is a `SlimmableEncoder`.
    """

    def __init__(self, encoder, projector, **kwargs):
        super().__init__(encoder, projector, **kwargs)
        self.require_slimmable()

    def loss_terms(self, x_a, x_b):
        # SACL forward pass: z_A = h(f(x_A)), z_B = h(f_s(x_B)).
        z_a = self.embed(x_a, slim=False)
        z_b = self.embed(x_b, slim=True)

        # The order of the inputs reversed, both encoders frozen.
        frozen_z_b = self.frozen_embed(x_b, slim=False)
        frozen_z_a = self.frozen_embed(x_a, slim=True)

        if self.xd_pairs == "same_encoder":
            return self.combine(z_a, z_b, frozen_z_b, frozen_z_a)
        return self.combine(z_a, z_b, frozen_z_a, frozen_z_b)
