"""The cost of training by a method, with or without objectives of distillation."""

import collections
import dataclasses
import math
import typing

from keras_sacl.costs.objectives import added_work, shares_projector
from keras_sacl.costs.passes import SMALL_AREA, Options, Pass, get_method
from keras_sacl.costs.products import projector_flops
from keras_sacl.distillation import CC, CLUSTERED_IMAGES, HeadObjective, Widths

IMAGENET_IMAGES = 1_281_167
PARTS = ("host", "slim", "momentum", "teacher", "loss")


@dataclasses.dataclass(frozen=True)
class Cost:
    """FLOPs of one method in one setting.

    Attributes:
        method: Its name, and after a "+" those of the objectives that were added.
        encoder: The deployed encoder's name.
        parts: For each of `PARTS`, FLOPs per training image: all its views, and gradients. Heads
            of the objectives count with the network whose features they take.
        batch_size, images, epochs: The setting.
        once: FLOPs of what is done once in a run: a cached teacher, the teacher's clusters.
        teacher_epochs: How long the teacher was pretrained, by MoCo-v2.
        teacher_pretraining: FLOPs of that.
        left_out: What could not be counted, and why; "" where all was.
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
    left_out: str = ""

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
    method, slim, *, objectives=None, host=None, teacher=None, batch_size=256,
    images=IMAGENET_IMAGES, epochs=None, projector=None, teacher_projector=None,
    teacher_epochs=None, cached_teacher=False, encoders_only=False, options=None,
):  # fmt: skip
    """Counts what a method's passes cost, and those of the objectives added to it.

    Args:
        method: One of `METHODS`.
        slim: `Network` that is deployed: the slim one, the student, or the only one.
        objectives: A dict from names to `Objective`s that are added, as `Distiller` has them;
            their queues and clusters count at the sizes that they have. "distill" is these alone.
        host: `Network` that `slim` is a slice of, for "sacl" and "sacl_xd"; elsewhere unused.
        teacher: `Network`, frozen, where there are objectives; elsewhere unused.
        batch_size: N, images per step over all replicas.
        images: In the training set.
        epochs: Passes over it; None: the paper's.
        projector: Widths of the projector of host, slim and momentum, () without one; None: the
            paper's.
        teacher_projector: Those of the teacher's; None: the paper's, or none.
        teacher_epochs: MoCo-v2 epochs of the teacher, on as many images; None: the paper's.
        cached_teacher: Whether the teacher sees each image once in the run. Of the papers'
            methods CompRess alone does so.
        encoders_only: Leaves out projectors, heads and losses, as rough numbers in papers do.
        options: `Options`; None: the papers'.

    Returns:
        A `Cost`.

    Raises:
        ValueError: On an unknown method, a missing network or an impossible number.
    """
    options = options or Options()
    ledger = get_method(method, options)
    epochs = ledger.epochs if epochs is None else epochs
    teacher_epochs = ledger.teacher_epochs if teacher_epochs is None else teacher_epochs
    for name, value, least in (
        ("batch_size", batch_size, 2), ("images", images, 1), ("epochs", epochs, 1),
        ("teacher_epochs", teacher_epochs, 0),
    ):  # fmt: skip
        if value is None or not least <= value < math.inf:
            raise ValueError(f"`{name}` must be at least {least}. Received: {name}={value}")
    added = [*(make() for make in ledger.objectives), *(objectives or {}).values()]
    if not (ledger.passes or added):
        raise ValueError(
            f"`objectives` must hold at least one for {method}. Received: objectives={objectives}"
        )
    networks = {"slim": slim, "momentum": slim}
    for role, network, needed in (
        ("host", host, ledger.needs("host")),
        ("teacher", teacher, added),
    ):
        if needed:
            networks[role] = _required(method, role, network, slim)
    if cached_teacher and not (ledger.cacheable or objectives):
        raise ValueError(
            f"`cached_teacher` must be False for {method}, whose teacher sees augmented views. "
            f"Received: cached_teacher={cached_teacher}"
        )
    if cached_teacher and any(objective.needs_maps for objective in added):
        raise ValueError(
            "`cached_teacher` must be False with objectives of maps, which no cache keeps. "
            f"Received: objectives={list(objectives)}"
        )

    counted = not encoders_only
    head = ledger.projector(slim.features) if projector is None else tuple(projector)
    # The slim network's features come to projector and heads padded to the host's.
    features = networks.get("host", slim).features
    widths = Widths(features, head[-1] if head else None)
    student = _Side(widths, slim.flops, counted * projector_flops(features, head))
    found = _own_passes(ledger, networks, student.project, options)
    if counted:
        found["loss"] += ledger.loss(batch_size, (features, *head)[-1], options) / batch_size
    once = pretraining = 0.0
    if added:
        if teacher_projector is None:
            teacher_projector = ledger.teacher_projector(teacher.features)
        widths = Widths(teacher.features, (teacher.features, *teacher_projector)[-1])
        project = counted * projector_flops(teacher.features, teacher_projector)
        tutor = _Side(widths, teacher.flops, project)
        found += _added_passes(ledger, added, student, tutor)
        if counted:
            found += _added_products(added, batch_size, student.widths, tutor.widths)
        if cached_teacher:
            seen_once = images
        else:
            found["teacher"] += _teacher_passes(added, tutor)
            clustered = any(isinstance(objective, CC) for objective in added)
            seen_once = min(images, CLUSTERED_IMAGES) if clustered else 0
        once = float(seen_once * (tutor.encode + tutor.project))
        if teacher_epochs:
            pretraining = training_cost(
                "moco_v2", teacher, batch_size=batch_size, images=images, epochs=teacher_epochs,
                encoders_only=encoders_only,
            ).per_run  # fmt: skip
    return Cost(
        "+".join((method, *(objectives or ()))), slim.name,
        {part: float(found[part]) for part in PARTS}, batch_size, images, epochs, once,
        teacher_epochs if added else 0, pretraining,
    )  # fmt: skip


class _Side(typing.NamedTuple):
    """Student or teacher: what it gives, and FLOPs of an image through encoder and projector."""

    widths: Widths
    encode: int
    project: int


def _own_passes(ledger, networks, project, options):
    """FLOPs of an image, by part, without objectives."""
    found, passes = collections.Counter(), ledger.passes
    # Random layers make the frozen passes differ from those that they would reuse.
    random = (name for name in ledger.reuses if not networks[name].deterministic)
    passes += tuple(Pass(name, "ab", False) for name in random)
    for p in passes:
        forward = networks[p.network].flops + project
        found[p.network] += len(p.views) * (3 if p.trained else 1) * forward
    if ledger.small_views:
        small = options.small_flops
        small = SMALL_AREA * networks["slim"].flops if small is None else small
        found["slim"] += options.small_views * 3 * (small + project)
    return found


def _added_passes(ledger, added, student, teacher):
    """FLOPs of an image, by part, that the student does for the objectives."""
    views = max(objective.views for objective in added)
    shared = (o.views for o in added if shares_projector(o, student.widths, teacher.widths))
    # What the method encodes and projects anyway is not done again.
    encoded, projected = (set("ab"[:n]) - ledger.encoded for n in (views, max(shared, default=0)))
    mean = any(objective.needs_mean for objective in added)
    return collections.Counter(
        slim=3 * (len(encoded) * student.encode + len(projected) * student.project),
        momentum=student.encode if mean else 0,
    )


def _added_products(added, n, student, teacher):
    """FLOPs of an image, by part, in the heads and losses of the objectives."""
    found = collections.Counter()
    for objective in added:
        work = added_work(objective, n, student, teacher)
        found["slim"] += objective.views * work.heads / n
        found["teacher"] += objective.views * work.teacher_heads / n
        found["loss"] += objective.views * work.loss / n
    return found


def _teacher_passes(added, teacher):
    """FLOPs of an image's views that a teacher sees in each step."""
    encoded = max(objective.views for objective in added)
    heads = (o.views for o in added if isinstance(o, HeadObjective))
    return encoded * teacher.encode + max(heads, default=0) * teacher.project


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
