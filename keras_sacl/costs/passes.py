"""Which networks each method runs, how often, and what its loss multiplies: the ledger of costs.

Beside this library's methods stand the ones they are compared with, as their papers run them.
"""

import dataclasses
import difflib
from collections.abc import Callable

_LOCAL_CROP = (96 / 224) ** 2  # SwAV's small crops: their share of a full view's pixels
_LOCAL_CROPS, _PROTOTYPES = 6, 3000
_MOCO_QUEUE, _COMPRESS_QUEUE = 65_536, 128_000


def projector_flops(features, widths):
    """FLOPs of the dense layers of a projector for one image: F features to `widths` in turn."""
    sides = (features, *widths)
    return 2 * sum(a * b for a, b in zip(sides, sides[1:], strict=False))


def correlation_flops(n, d, frozen=False):
    """FLOPs of the sum over C_ij^2 of one pair of (N, D) embeddings, and of its gradient.

    As `losses.correlation_terms` does it: two (N, N) Gram matrices where N < D, else one (D, D)
    matrix, and as gradient one more product for each side that is not frozen.

    Args:
        n, d: N and D.
        frozen: Whether one of the two sides is.

    Returns:
        An int, for the whole batch.
    """
    forward, product = (2, 2 * n * n * d) if n < d else (1, 2 * n * d * d)
    return (forward + (1 if frozen else 2)) * product


def similarity_flops(n, d, anchors, products=1):
    """FLOPs of comparing (N, D) embeddings with (K, D) anchors, `products` matrix products.

    One without gradient, two with that of the embeddings, three with that of the anchors too.
    """
    return products * 2 * n * d * anchors


@dataclasses.dataclass(frozen=True)
class Pass:
    """Forward passes of one network: how many views of an image it sees, and how.

    Attributes:
        network: "host", "slim" (the network that is deployed, whether slimmed or the only one),
            "momentum" (its moving average) or "teacher".
        views: How many.
        trained: Whether gradients flow back.
        area: Share of a full view's pixels. Convolutions cost in proportion.
    """

    network: str
    views: int
    trained: bool
    area: float = 1.0


@dataclasses.dataclass(frozen=True)
class Method:
    """One method's row in the ledger.

    Attributes:
        passes: Of its networks, for one image.
        epochs: The paper's, on ImageNet-1K.
        loss: (N, D of the student, D of the teacher) to the FLOPs of a step's matrix products.
        source: Title and year of the paper, and what was assumed.
        head: (F, teacher's F) to the widths of the projector; host and slim share it.
        teacher_head: F to the widths of the teacher's projector.
        teacher_epochs: MoCo-v2 epochs that the paper's ResNet-50 teacher had; 0: no teacher.
        cacheable: Whether the teacher may see each image once, without augmentation.
    """

    passes: tuple[Pass, ...]
    epochs: int
    loss: Callable
    source: str
    head: Callable
    teacher_head: Callable = lambda features: (features, 128)
    teacher_epochs: int = 0
    cacheable: bool = False

    def needs(self, network):
        """Whether a pass of that network is among its passes."""
        return any(p.network == network for p in self.passes)


def _barlow_twins_loss(n, d, _):
    return correlation_flops(n, d)


def _xd_loss(n, d, _):
    return correlation_flops(n, d) + 2 * correlation_flops(n, d, frozen=True)


def _moco_loss(n, d, _):
    return similarity_flops(n, d, _MOCO_QUEUE, products=2)


def _student_and_teacher_loss(queue):
    def loss(n, d, teacher_d):
        return similarity_flops(n, d, queue, products=2) + similarity_flops(n, teacher_d, queue)

    return loss


def _widths(*widths):
    return lambda features, teacher_features: widths


def _moco_head(features, _):
    return (features, 128)


_SACL = (
    "Slimmed Asymmetrical Contrastive Learning and Cross Distillation for Lightweight Model "
    "Training (2023): 100, 200 or 300 epochs, of which the fewest; projector of three layers, "
    "hidden width 4096"
)
_PAPER_PROJECTOR = _widths(4096, 4096, 4096)
_SLIM, _TEACHER = Pass("slim", 1, True), Pass("teacher", 1, False)
_MOMENTUM = Pass("momentum", 1, False)

METHODS = {
    "barlow_twins": Method(
        (Pass("slim", 2, True),), 1000, _barlow_twins_loss,
        "Barlow Twins: Self-Supervised Learning via Redundancy Reduction (2021); projector here as "
        "in the SACL paper", _PAPER_PROJECTOR,
    ),
    "xd": Method((Pass("slim", 2, True),), 100, _xd_loss, _SACL, _PAPER_PROJECTOR),
    "sacl": Method(
        (Pass("host", 1, True), _SLIM), 100, _barlow_twins_loss, _SACL, _PAPER_PROJECTOR
    ),
    "sacl_xd": Method(
        (Pass("host", 1, True), _SLIM, Pass("host", 1, False), Pass("slim", 1, False)),
        100, _xd_loss, _SACL, _PAPER_PROJECTOR,
    ),
    "moco_v2": Method(
        (_SLIM, _MOMENTUM), 200, _moco_loss,
        "Improved Baselines with Momentum Contrastive Learning (2020): head F-128, queue 65,536",
        _moco_head,
    ),
    "swav": Method(
        (Pass("slim", 2, True), Pass("slim", _LOCAL_CROPS, True, _LOCAL_CROP)), 800,
        # The prototypes are learned too; Sinkhorn iterations are element-wise.
        lambda n, d, _: similarity_flops((2 + _LOCAL_CROPS) * n, d, _PROTOTYPES, products=3),
        "Unsupervised Learning of Visual Features by Contrasting Cluster Assignments (2020): "
        "2 crops of 224 px and 6 of 96 px, all trained; 3,000 prototypes, head 2048-128",
        _widths(2048, 128),
    ),
    "seed": Method(
        (_SLIM, _TEACHER), 200, _student_and_teacher_loss(_MOCO_QUEUE),
        "SEED: Self-supervised Distillation for Visual Representation (2021): one view, which "
        "student and teacher both see; queue 65,536 (without its small-patch variant)",
        _moco_head, teacher_epochs=200,
    ),
    "disco": Method(
        (Pass("slim", 2, True), _MOMENTUM, Pass("teacher", 2, False)), 200, _moco_loss,
        "DisCo: Remedying Self-supervised Learning on Lightweight Models with Distilled "
        "Contrastive Learning (2022): the student sees both views with gradient, its mean one, "
        "the teacher both", _widths(2048, 128), teacher_epochs=200,
    ),
    "compress": Method(
        (_SLIM, _TEACHER), 130, _student_and_teacher_loss(_COMPRESS_QUEUE),
        "CompRess: Self-Supervised Learning by Compressing Representations (2020), one queue of "
        "128,000: a linear map to the teacher's features, no other head",
        lambda features, teacher_features: (teacher_features,), lambda features: (),
        teacher_epochs=800, cacheable=True,
    ),
    "compress_2q": Method(
        (_SLIM, _MOMENTUM, _TEACHER), 130, _student_and_teacher_loss(_COMPRESS_QUEUE),
        "CompRess: Self-Supervised Learning by Compressing Representations (2020), two queues of "
        "128,000: a momentum student fills its own", _widths(), lambda features: (),
        teacher_epochs=800, cacheable=True,
    ),
}  # fmt: skip


def get_method(name):
    """The `Method` of that name.

    Raises:
        ValueError: If there is none.
    """
    if name not in METHODS:
        close = difflib.get_close_matches(str(name), METHODS, n=1)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise ValueError(
            f"`method` must be one of {', '.join(METHODS)}{hint}. Received: method={name!r}"
        )
    return METHODS[name]
