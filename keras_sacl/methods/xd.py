"""Cross distillation without slimming, and what it shares with SACL + XD."""

import keras

from keras_sacl import losses
from keras_sacl.methods.barlow_twins import BarlowTwins

XD_PAIRS = ("same_input", "same_encoder")
XD_FORMS = ("barlow_twins", "correlation", "neg_log")


def default_lambd(dimensions, xd_pairs="same_input", xd_form="barlow_twins"):
    """lambd of XD where none is given: 31 / D, or Barlow Twins' own.

    A dimension has D - 1 terms off the diagonal and one on it, so that lambd D says how the two
    compare: 20 in SACL's paper, 41 in that of Barlow Twins ("Barlow Twins: Self-Supervised Learning
    via Redundancy Reduction", 2021). On CIFAR-10 with D 1024, lambd 0.02 to 0.1 gave XD 0.03 more
    k-NN accuracy than 0.005 (docs/results.md).

    At that weight Barlow Twins of two views learned nothing there, and nor did XD whose pairs are
    two views too ("same_encoder"), or whose pairs hardly count ("neg_log"): they take 0.005.

    Args:
        dimensions: D of the embedding.
        xd_pairs, xd_form: As in `CrossDistillation`.
    """
    if xd_pairs == "same_encoder" or xd_form == "neg_log":
        return losses.DEFAULT_LAMBD
    return 0.03 * 1024 / dimensions


class CrossDistillation(BarlowTwins):
    """Barlow Twins and cross distillation, weighted. Subclasses say which passes make the pairs.

    "Slimmed Asymmetrical Contrastive Learning and Cross Distillation for Lightweight Model
    Training" (2023): L = alpha L_BT + (1 - alpha) L_XD. L_XD is Barlow Twins' loss of the pairs,
    whose diagonal pulls them together, as in the authors' development code
    (github.com/mengjian0502/solo-learn-sparse): in short runs of SACL + XD as Algorithm 1 passes
    it taught more, with alpha 0.5, than the terms off the diagonal alone with 0.9,
    `xd_form="correlation"`, which is Algorithm 1's. With `xd_form="neg_log"` (supplement,
    equation 1) L = L_BT + gamma L_XD.

    Args:
        encoder, projector, loss_scale: As in `BarlowTwins`.
        lambd: Weight of the off-diagonal terms; by default `default_lambd`, which goes by the
            projector's D.
        alpha: Weight of the contrastive loss, in [0, 1].
        xd_pairs: "same_input" pairs the two encoders' embeddings of one view, which sparsity
            alone distorts; "same_encoder" pairs one encoder's embeddings of the two views, as
            Algorithm 1 reads to the letter.
        xd_form: "barlow_twins", "correlation" or "neg_log". The first two are one where a pair is
            an embedding and itself, as long as its std is far above the 0.003 of the epsilon that
            it is normalised with.
        gamma: Weight of the "neg_log" form.
    """

    terms = ("barlow_twins", "xd")

    def __init__(
        self, encoder, projector, lambd=None, alpha=0.5, xd_pairs="same_input",
        xd_form="barlow_twins", gamma=1e-3, **kwargs,
    ):  # fmt: skip
        if lambd is None:
            lambd = default_lambd(projector.output_shape[-1], xd_pairs, xd_form)
        super().__init__(encoder, projector, lambd, **kwargs)
        if not 0 <= alpha <= 1:
            raise ValueError(f"`alpha` must be in [0, 1]. Received: alpha={alpha}")
        if xd_pairs not in XD_PAIRS:
            raise ValueError(
                f"`xd_pairs` must be one of {XD_PAIRS}. Received: xd_pairs={xd_pairs!r}"
            )
        if xd_form not in XD_FORMS:
            raise ValueError(f"`xd_form` must be one of {XD_FORMS}. Received: xd_form={xd_form!r}")
        if not gamma >= 0:
            raise ValueError(f"`gamma` must not be negative. Received: gamma={gamma}")
        self.alpha, self.gamma, self.xd_pairs, self.xd_form = alpha, gamma, xd_pairs, xd_form

    def combine(self, z_a, z_b, frozen_a, frozen_b):
        """The weighted losses of the two views and of the pairs.

        Args:
            z_a, z_b: (N, D) embeddings of the views A and B.
            frozen_a, frozen_b: The same of the passes without gradient.

        Returns:
            What `loss_terms` does.
        """
        contrastive = losses.barlow_twins(z_a, z_b, self.lambd)
        xd = self.distil(z_a, z_b, frozen_a, frozen_b)
        if self.xd_form == "neg_log":
            loss = contrastive + self.gamma * xd
        else:
            loss = self.alpha * contrastive + (1 - self.alpha) * xd
        return {"loss": loss, "barlow_twins": contrastive, "xd": xd, "z": z_b}

    def distil(self, z_a, z_b, frozen_a, frozen_b):
        """The loss of the pairs (z, frozen z) as `xd_pairs` has them, a scalar, without its weight.

        Args: as in `combine`.
        """
        if self.xd_pairs == "same_encoder":
            frozen_a, frozen_b = frozen_b, frozen_a
        pairs = (z_a, frozen_a), (z_b, frozen_b)
        if self.xd_form == "neg_log":
            return losses.negative_log_distillation(*pairs)
        diagonal = self.xd_form == "barlow_twins"
        return losses.cross_distillation(*pairs, self.lambd, diagonal=diagonal)

    def get_config(self):
        return {
            **super().get_config(),
            "alpha": self.alpha,
            "xd_pairs": self.xd_pairs,
            "xd_form": self.xd_form,
            "gamma": self.gamma,
        }


@keras.saving.register_keras_serializable("keras_sacl")
class XD(CrossDistillation):
    """Cross distillation of one network with itself (K = 1, the paper's plain "XD" rows).

    The two encoders are one, so that the frozen pass over a view gives what the pass with gradient
    gave, [z] = stop_gradient(z): see `frozen_embed`.

    Args: as in `CrossDistillation`.
    """

    def loss_terms(self, x_a, x_b):
        z_a, z_b = self.embed(x_a), self.embed(x_b)
        frozen_z_a, frozen_z_b = self.frozen_embed(x_a), self.frozen_embed(x_b)
        return self.combine(z_a, z_b, frozen_z_a, frozen_z_b)
