"""What pretraining costs, counted from the layers: FLOPs per image, step, epoch and run.

A multiply-add is two FLOPs. A pass with gradient counts three times its forward pass (the
gradients of the activations and of the weights are as much work each; the first layer needs only
one of them, which is left uncounted), a frozen pass once. Convolutions, dense layers and the
matrix products of the losses count; normalisations, activations, augmentation and the optimizer,
a few percent, do not. The slim network runs sliced: by masks its passes cost the host's.
"""

import dataclasses
import functools
import math

from keras_sacl.costs.flops import forward_flops
from keras_sacl.costs.passes import METHODS, Pass, get_method, projector_flops
from keras_sacl.encoders import build_encoder
from keras_sacl.frozen import is_deterministic

IMAGENET_IMAGES = 1_281_167
PARTS = ("host", "slim", "momentum", "teacher", "loss")


@dataclasses.dataclass(frozen=True)
class Network:
    """An encoder as this module sees it.

    Attributes:
        name: Of the encoder.
        width: Its multiplier of channels.
        image_size: Side of its images, in pixels.
        features: F, the width of its output.
        flops: FLOPs of the forward pass of one image.
        deterministic: Whether a training-mode pass draws no random numbers.
    """

    name: str
    width: float
    image_size: int
    features: int
    flops: int
    deterministic: bool = True

    @property
    def macs(self):
        """Multiply-adds of the forward pass of one image."""
        return self.flops // 2


@functools.cache
def measure(name, width=1.0, image_size=224):
    """Builds an encoder and counts it. Each is built once in a process.

    Args:
        name, width, image_size: As in `build_encoder`, which raises ValueError on bad ones.

    Returns:
        A `Network`.
    """
    model = build_encoder(name, width=width, image_size=image_size)
    features = model.output_shape[-1]
    flops = forward_flops(model)
    return Network(name, width, image_size, features, flops, is_deterministic(model))


@dataclasses.dataclass(frozen=True)
class Cost:
    """FLOPs of one method in one setting.

    Attributes:
        method: Its name.
        encoder: The deployed encoder's name.
        parts: For each of `PARTS`, FLOPs per training image: all its views, and gradients.
        batch_size, images, epochs: The setting.
        once: FLOPs of what is done once in a run: a cached teacher.
        teacher_epochs: How long the teacher was pretrained, by MoCo-v2.
        teacher_pretraining: FLOPs of that.
    """

    method: str
    encoder: str
    parts: dict
    batch_size: int
    images: int
    epochs: int
    once: float
    teacher_epochs: int
    teacher_pretraining: float

    @property
    def per_image(self):
        return sum(self.parts.values())

    @property
    def per_step(self):
        return self.per_image * self.batch_size

    @property
    def per_epoch(self):
        return self.per_image * self.images

    @property
    def per_run(self):
        """Without the teacher's own pretraining."""
        return self.per_epoch * self.epochs + self.once

    @property
    def per_run_with_teacher(self):
        return self.per_run + self.teacher_pretraining


def training_cost(
    method, slim, *, host=None, teacher=None, batch_size=256, images=IMAGENET_IMAGES, epochs=None,
    projector=None, teacher_epochs=None, cached_teacher=False, encoders_only=False,
):  # fmt: skip
    """Counts what a method's passes cost.

    Args:
        method: One of `METHODS`.
        slim: `Network` that is deployed: the slim one, the student, or the only one.
        host: `Network` that it is a slice of, for "sacl" and "sacl_xd"; elsewhere unused.
        teacher: `Network`, frozen, for the distillation methods; elsewhere unused.
        batch_size: N, images per step over all replicas.
        images: In the training set.
        epochs: Passes over it; None: the paper's.
        projector: Widths of the projector of host, slim and momentum; None: the paper's.
        teacher_epochs: MoCo-v2 epochs of the teacher, on as many images; None: the paper's.
        cached_teacher: Whether the teacher sees each image once in the run (CompRess only).
        encoders_only: Leaves out projectors and losses, as rough numbers in papers do.

    Returns:
        A `Cost`.

    Raises:
        ValueError: On an unknown method, a missing network or an impossible number.
    """
    ledger = get_method(method)
    epochs = ledger.epochs if epochs is None else epochs
    teacher_epochs = ledger.teacher_epochs if teacher_epochs is None else teacher_epochs
    for name, value, least in (
        ("batch_size", batch_size, 2), ("images", images, 1), ("epochs", epochs, 1),
        ("teacher_epochs", teacher_epochs, 0),
    ):  # fmt: skip
        if not least <= value < math.inf:
            raise ValueError(f"`{name}` must be at least {least}. Received: {name}={value}")
    networks = {"slim": slim, "momentum": slim}
    for role, network in (("host", host), ("teacher", teacher)):
        if ledger.needs(role):
            networks[role] = _required(method, role, network, slim)
    if cached_teacher and not ledger.cacheable:
        raise ValueError(
            f"`cached_teacher` must be False for {method}, whose teacher sees augmented views. "
            f"Received: cached_teacher={cached_teacher}"
        )

    teacher_features = teacher.features if "teacher" in networks else 0
    teacher_head = ledger.teacher_head(teacher_features)
    own_head = ledger.head(slim.features, teacher_features)
    head = own_head if projector is None else tuple(projector)
    passes = ledger.passes
    if method == "xd" and not slim.deterministic:
        passes += (Pass("slim", 2, False),)  # random layers make the frozen passes differ
    parts, once = dict.fromkeys(PARTS, 0.0), 0.0
    for p in passes:
        network = networks[p.network]
        flops = p.area * network.flops
        if not encoders_only:
            # The slim network's features come to the shared projector padded to the host's.
            features = networks["host"].features if "host" in networks else network.features
            flops += projector_flops(features, teacher_head if p.network == "teacher" else head)
        flops *= p.views * (3 if p.trained else 1)
        if p.network == "teacher" and cached_teacher:
            once += flops * images
        else:
            parts[p.network] += flops
    if not encoders_only:
        d, teacher_d = (slim.features, *head)[-1], (teacher_features, *teacher_head)[-1]
        parts["loss"] = ledger.loss(batch_size, d, teacher_d) / batch_size

    pretraining = 0.0
    if "teacher" in networks and teacher_epochs:
        pretraining = training_cost(
            "moco_v2", teacher, batch_size=batch_size, images=images, epochs=teacher_epochs,
            encoders_only=encoders_only,
        ).per_run  # fmt: skip
    return Cost(
        method, slim.name, parts, batch_size, images, epochs, once,
        teacher_epochs if "teacher" in networks else 0, pretraining,
    )  # fmt: skip


def _required(method, role, network, slim):
    if network is None:
        raise ValueError(f"`{role}` must be a Network for {method}. Received: {role}=None")
    if network.image_size != slim.image_size:
        raise ValueError(
            f"`{role}` must see images of {slim.image_size} px, as the slim network does. "
            f"Received: {role}={network}"
        )
    if role == "host" and network.flops < slim.flops:
        raise ValueError(
            f"`host` must be at least as wide as the slim network ({slim.width}). "
            f"Received: host={network}"
        )
    return network


@dataclasses.dataclass(frozen=True)
class Comparison:
    """A method against a distillation whose teacher may be charged for.

    Attributes:
        own, rival: `Cost` of the two; the rival's is taken without its teacher's pretraining.
        teacher_epoch: FLOPs of one epoch of that pretraining.
    """

    own: Cost
    rival: Cost
    teacher_epoch: float

    def ratio(self, teacher_epochs=0):
        """How many times the rival costs, its teacher pretrained for so many epochs."""
        return (self.rival.per_run + teacher_epochs * self.teacher_epoch) / self.own.per_run

    def teacher_epochs_for(self, ratio):
        """The epochs of teacher pretraining that make `ratio`; negative: fewer than none."""
        return (ratio * self.own.per_run - self.rival.per_run) / self.teacher_epoch

    def epochs_for(self, ratio, teacher_epochs):
        """The epochs of the own method that make `ratio` with such a teacher."""
        return self.ratio(teacher_epochs) / ratio * self.own.epochs


def compare(method, rival, slim, *, teacher, host=None, epochs=None, rival_epochs=None, **settings):
    """Sets a method against a distillation of the same encoder.

    Args:
        method: Name of the method that needs no teacher.
        rival: Name of the one that does.
        slim, teacher, host: As in `training_cost`.
        epochs, rival_epochs: Of the two; None: the papers'.
        **settings: `batch_size`, `images` and `encoders_only` of `training_cost`, for both.

    Returns:
        A `Comparison`.

    Raises:
        ValueError: As `training_cost`, and if `rival` has no teacher.
    """
    if rival not in METHODS or not METHODS[rival].needs("teacher"):
        names = ", ".join(name for name in METHODS if METHODS[name].needs("teacher"))
        raise ValueError(f"`rival` must be one of {names}. Received: rival={rival!r}")
    own = training_cost(method, slim, host=host, teacher=teacher, epochs=epochs, **settings)
    other = training_cost(rival, slim, teacher=teacher, epochs=rival_epochs, **settings)
    return Comparison(own, other, training_cost("moco_v2", teacher, epochs=1, **settings).per_run)
