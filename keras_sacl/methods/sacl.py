"""SACL, and SACL with cross distillation.

"Slimmed Asymmetrical Contrastive Learning and Cross Distillation for Lightweight Model Training"
(2023), Algorithm 1.
"""

import keras

from keras_sacl import losses
from keras_sacl.methods.barlow_twins import BarlowTwins
from keras_sacl.methods.xd import CrossDistillation

XD_PASSES = ("trained", "frozen")


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
    """SACL with cross distillation.

    While the encoder's `slimming` is False this is XD of the host, whose frozen passes are not run.

    Args: as in `CrossDistillation`; the encoder is a `SlimmableEncoder`.
        xd_passes: "frozen" is Algorithm 1: host and slim network contrast one view each, and the
            reversed passes, which XD compares them with, have no gradient. With "trained" they
            have: L = L_XD(host) + 1/2 (L_XD(slim) + L_D), where L_XD is what `XD` minimises for
            each network by itself, and L_D compares the slim network's embedding of a view with
            the frozen host's. So the slim network learns from the host, and the host not from it.
            In short runs that taught more, at one and a half times the FLOPs.
    """

    def __init__(self, encoder, projector, xd_passes="trained", **kwargs):
        super().__init__(encoder, projector, **kwargs)
        self.require_slimmable()
        if xd_passes not in XD_PASSES:
            raise ValueError(
                f"`xd_passes` must be one of {XD_PASSES}. Received: xd_passes={xd_passes!r}"
            )
        if xd_passes == "trained" and self.xd_pairs == "same_encoder":
            raise ValueError(
                '`xd_pairs` must be "same_input" with xd_passes="trained". '
                f"Received: xd_pairs={self.xd_pairs!r}"
            )
        if xd_passes == "trained" and self.xd_form == "neg_log":
            raise ValueError(
                '`xd_form` must not be "neg_log" with xd_passes="trained". '
                f"Received: xd_form={self.xd_form!r}"
            )
        self.xd_passes = xd_passes

    def loss_terms(self, x_a, x_b):
        if self.xd_passes == "trained" and self.encoder.slimming:
            return self._trained_passes(x_a, x_b)

        # SACL forward pass: z_A = h(f(x_A)), z_B = h(f_s(x_B)).
        z_a = self.embed(x_a, slim=False)
        z_b = self.embed(x_b, slim=True)

        # The order of the inputs reversed, both encoders frozen.
        frozen_z_b = self.frozen_embed(x_b, slim=False)
        frozen_z_a = self.frozen_embed(x_a, slim=True)

        if self.xd_pairs == "same_encoder":
            return self.combine(z_a, z_b, frozen_z_b, frozen_z_a)
        return self.combine(z_a, z_b, frozen_z_a, frozen_z_b)

    def _trained_passes(self, x_a, x_b):
        h_a, h_b = self.embed(x_a, slim=False), self.embed(x_b, slim=False)
        s_a, s_b = self.embed(x_a, slim=True), self.embed(x_b, slim=True)
        frozen_h = self.frozen_embed(x_a, slim=False), self.frozen_embed(x_b, slim=False)
        frozen_s = self.frozen_embed(x_a, slim=True), self.frozen_embed(x_b, slim=True)

        host = self.combine(h_a, h_b, *frozen_h)
        slim = self.combine(s_a, s_b, *frozen_s)
        taught = self.distil(s_a, s_b, *frozen_h)
        loss = host["loss"] + 0.5 * (slim["loss"] + taught)
        return {**slim, "loss": loss, "xd": taught}

    def get_config(self):
        return {**super().get_config(), "xd_passes": self.xd_passes}
