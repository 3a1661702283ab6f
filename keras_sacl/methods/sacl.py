"""SACL, and SACL with cross distillation.

"Slimmed Asymmetrical Contrastive Learning and Cross Distillation for Lightweight Model Training"
(2023), Algorithm 1.
"""

import keras

from keras_sacl import losses
from keras_sacl.methods.barlow_twins import BarlowTwins
from keras_sacl.methods.xd import CrossDistillation

CONTRASTS = ("own", "across")
# What goes with "across" alone.
ACROSS_ONLY = {"xd_pairs": "same_encoder", "xd_form": "neg_log"}


@keras.saving.register_keras_serializable("keras_sacl")
class SACL(BarlowTwins):
    """Slimmed asymmetrical contrastive learning: the host sees view A, the slim network view B.

    While the encoder trains "host" or "slim" alone the two are one, and this is its Barlow Twins.

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

    With `sacl_contrast="across"` these are the passes of Algorithm 1: a view that the host sees is
    contrasted with one that the slim network sees, and XD compares both with the reversed passes,
    which have no gradient.

    With "own" each network sees both views, with gradient, and contrasts them with each other:

        L = L_host + 1/2 (L_slim + L_D)

    L_host and L_slim are `XD` of either network by itself. L_D, whatever alpha is, is the distance
    of `xd_form` between the slim network's embedding of a view and the frozen host's, so that it
    teaches the slim network and not the host. In runs of 12 epochs on CIFAR-10 "across" taught the
    slim network less than XD of it alone, and "own" did not (docs/results.md). It takes one and a
    half times the FLOPs. The logs are those of the slim network: "barlow_twins" of its two views,
    "xd" L_D.

    While the encoder trains "host" or "slim" alone either is XD of that network, whose frozen
    passes are not run.

    Args: as in `CrossDistillation`; the encoder is a `SlimmableEncoder`.
        sacl_contrast: "own" or "across". With "own", `xd_pairs` are those of one input, and
            `xd_form` is not "neg_log", whose scale is another.
    """

    def __init__(self, encoder, projector, sacl_contrast="own", **kwargs):
        super().__init__(encoder, projector, **kwargs)
        self.require_slimmable()
        if sacl_contrast not in CONTRASTS:
            raise ValueError(
                f"`sacl_contrast` must be one of {CONTRASTS}. "
                f"Received: sacl_contrast={sacl_contrast!r}"
            )
        self.sacl_contrast = sacl_contrast
        for name, value in ACROSS_ONLY.items():
            if sacl_contrast == "own" and getattr(self, name) == value:
                raise ValueError(
                    f'`{name}` must not be {value!r} with sacl_contrast="own". '
                    f"Received: {name}={value!r}"
                )

    def loss_terms(self, x_a, x_b):
        if self.sacl_contrast == "own" and self.encoder.trains == "both":
            return self._own_contrast(x_a, x_b)

        # SACL forward pass: z_A = h(f(x_A)), z_B = h(f_s(x_B)).
        z_a = self.embed(x_a, slim=False)
        z_b = self.embed(x_b, slim=True)

        # The order of the inputs reversed, both encoders frozen.
        frozen_z_b = self.frozen_embed(x_b, slim=False)
        frozen_z_a = self.frozen_embed(x_a, slim=True)

        return self.combine(z_a, z_b, frozen_z_a, frozen_z_b)

    def _own_contrast(self, x_a, x_b):
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
        return {**super().get_config(), "sacl_contrast": self.sacl_contrast}

    @classmethod
    def from_config(cls, config):
        # Files of versions without it hold Algorithm 1's passes.
        return super().from_config({"sacl_contrast": "across", **config})
