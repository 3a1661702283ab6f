"""Which networks each method runs, on what, and what its loss multiplies: the ledger of costs.

Beside this library's methods stand the distillations they are compared with, as their papers run
them: a method of ours, objectives, heads and epochs.
"""

import dataclasses
import difflib
from collections.abc import Callable

from keras_sacl.costs.products import correlation_flops, similarity_flops
from keras_sacl.distillation import SEED, CompRess1Q, CompRess2Q, DisCo
from keras_sacl.methods.sacl import CONTRASTS
from keras_sacl.methods.xd import XD_FORMS

SMALL_AREA = (96 / 224) ** 2  # SwAV's small crops: their share of a full view's pixels


@dataclasses.dataclass(frozen=True)
class Pass:
    """Passes of one network, and of the projector behind it.

    Attributes:
        network: "host", "slim" (the network that is deployed, whether slimmed or the only one)
            or "momentum" (its moving average).
        views: Of each image: "a", "b" or "ab".
        trained: Whether gradients flow back.
    """

    network: str
    views: str
    trained: bool


@dataclasses.dataclass(frozen=True)
class Options:
    """What single methods can be told; by default as their papers have it.

    Attributes:
        queue_size: Keys of MoCo-v2.
        prototypes: Of SwAV.
        small_views: Of SwAV: of each image, beside the two.
        small_flops: FLOPs of a forward pass of one of them; None: as if convolutions cost in
            proportion to the pixels, 96 x 96 of 224 x 224.
        xd_form: Of XD, one of `XD_FORMS`.
        sacl_contrast: Of SACL + XD, one of `CONTRASTS`.

    Raises:
        ValueError: On a number that is too small, or an unknown name.
    """

    queue_size: int = 65_536
    prototypes: int = 3000
    small_views: int = 6
    small_flops: int | None = None
    xd_form: str = "barlow_twins"
    sacl_contrast: str = "across"

    def __post_init__(self):
        for name, least in (("queue_size", 1), ("prototypes", 1), ("small_views", 0)):
            value = getattr(self, name)
            if not value >= least:
                raise ValueError(f"`{name}` must be at least {least}. Received: {name}={value}")
        for name, names in (("xd_form", XD_FORMS), ("sacl_contrast", CONTRASTS)):
            value = getattr(self, name)
            if value not in names:
                raise ValueError(f"`{name}` must be one of {names}. Received: {name}={value!r}")


@dataclasses.dataclass(frozen=True)
class Method:
    """One method's row in the ledger.

    Attributes:
        passes: Of its networks, for one image.
        loss: (N, D, `Options`) to the FLOPs of a step's matrix products.
        projector: F to the widths of the projector in the paper; host and slim share it.
        epochs: The paper's, on ImageNet-1K; None where no paper is.
        source: Title and year of the paper, and what was assumed; "" where no paper is.
        small_views: Whether it sees `Options.small_views` too.
        objectives: Classes of the distillation objectives that the paper adds.
        teacher_projector: The teacher's features to the widths of its projector in the paper.
        teacher_epochs: MoCo-v2 epochs that the paper's ResNet-50 teacher had; 0: no teacher.
        cacheable: Whether the teacher may see each image once, without augmentation.
        reuses: Networks whose passes over both views serve as their frozen ones too.
    """

    passes: tuple[Pass, ...]
    loss: Callable
    projector: Callable
    epochs: int | None = None
    source: str = ""
    small_views: bool = False
    objectives: tuple[type, ...] = ()
    teacher_projector: Callable = lambda features: ()
    teacher_epochs: int = 0
    cacheable: bool = False
    reuses: tuple[str, ...] = ()

    def needs(self, network):
        """Whether it cannot do without a "host", or a "teacher"."""
        if network == "teacher":
            return bool(self.objectives)
        return any(p.network == network for p in self.passes)

    @property
    def encoded(self):
        """The views, a subset of {"a", "b"}, of which a student's encoding is there anyway."""
        passes = (p for p in self.passes if p.network == "slim" and p.trained)
        return {view for p in passes for view in p.views}


def _barlow_twins_loss(n, d, _):
    return correlation_flops(n, d)


def _xd_loss(n, d, options):
    pairs = 0 if options.xd_form == "neg_log" else 2  # that form is element-wise
    return correlation_flops(n, d) + pairs * correlation_flops(n, d, frozen=True)


def _own_contrast_loss(n, d, options):
    return 2 * _xd_loss(n, d, options) + 2 * correlation_flops(n, d, frozen=True)


def _moco_loss(n, d, options):
    return similarity_flops(n, d, options.queue_size, products=2)


def _swav_loss(n, d, options):
    # The prototypes are learned too; Sinkhorn iterations are element-wise.
    views = 2 + options.small_views
    return similarity_flops(views * n, d, options.prototypes, products=3)


def _widths(*widths):
    return lambda features: widths


def _to_128(features):
    return features, 128


_SACL = (
    "Slimmed Asymmetrical Contrastive Learning and Cross Distillation for Lightweight Model "
    "Training (2023): 100, 200 or 300 epochs, of which the fewest; projector of three layers, "
    "hidden width 4096"
)
_PAPER_PROJECTOR = _widths(4096, 4096, 4096)
_BOTH = Pass("slim", "ab", True)
_SLIMMED = Pass("host", "a", True), Pass("slim", "b", True)

METHODS = {
    "barlow_twins": Method(
        (_BOTH,), _barlow_twins_loss, _PAPER_PROJECTOR, 1000,
        "Barlow Twins: Self-Supervised Learning via Redundancy Reduction (2021); projector here as "
        "in the SACL paper",
    ),
    "xd": Method((_BOTH,), _xd_loss, _PAPER_PROJECTOR, 100, _SACL, reuses=("slim",)),
    "sacl": Method(_SLIMMED, _barlow_twins_loss, _PAPER_PROJECTOR, 100, _SACL),
    "sacl_xd": Method(
        (*_SLIMMED, Pass("host", "b", False), Pass("slim", "a", False)),
        _xd_loss, _PAPER_PROJECTOR, 100, f"{_SACL}; Algorithm 1",
    ),
    "moco_v2": Method(
        (Pass("slim", "a", True), Pass("momentum", "b", False)), _moco_loss, _to_128, 200,
        "Improved Baselines with Momentum Contrastive Learning (2020): head F-128, queue 65,536",
    ),
    "swav": Method(
        (_BOTH,), _swav_loss, _widths(2048, 128), 800,
        "Unsupervised Learning of Visual Features by Contrasting Cluster Assignments (2020): "
        "2 crops of 224 px and 6 of 96 px, all trained; 3,000 prototypes, head 2048-128",
        small_views=True,
    ),
    # Its passes are those that the objectives ask for.
    "distill": Method((), lambda n, d, _: 0, _widths()),
}  # fmt: skip
_OWN_CONTRAST = dataclasses.replace(
    METHODS["sacl_xd"], passes=(Pass("host", "ab", True), _BOTH), loss=_own_contrast_loss,
    reuses=("host", "slim"),
)  # fmt: skip
_COMPRESS = dataclasses.replace(
    METHODS["distill"], epochs=130, teacher_epochs=800, cacheable=True, objectives=(CompRess1Q,),
    source="CompRess: Self-Supervised Learning by Compressing Representations (2020), one queue of "
    "128,000: a linear map to the teacher's features, no other head",
)  # fmt: skip
METHODS |= {
    "seed": dataclasses.replace(
        METHODS["distill"], projector=_to_128, teacher_projector=_to_128, objectives=(SEED,),
        epochs=200, teacher_epochs=200,
        source="SEED: Self-supervised Distillation for Visual Representation (2021): one view, "
        "which student and teacher both see; queue 65,536 (without its small-patch variant)",
    ),
    "disco": dataclasses.replace(
        METHODS["moco_v2"], projector=_widths(2048, 128), teacher_projector=_to_128,
        objectives=(DisCo,), teacher_epochs=200,
        source="DisCo: Remedying Self-supervised Learning on Lightweight Models with Distilled "
        "Contrastive Learning (2022): the student sees both views with gradient, its mean one, "
        "the teacher both",
    ),
    "compress": _COMPRESS,
    "compress_2q": dataclasses.replace(
        _COMPRESS, objectives=(CompRess2Q,),
        source="CompRess: Self-Supervised Learning by Compressing Representations (2020), two "
        "queues of 128,000: a momentum student fills its own",
    ),
}  # fmt: skip
PUBLISHED = tuple(name for name in METHODS if METHODS[name].source)


def get_method(name, options=None):
    """The `Method` of that name, with "sacl_xd" as `Options` have it.

    Raises:
        ValueError: If there is none.
    """
    if name not in METHODS:
        close = difflib.get_close_matches(str(name), METHODS, n=1)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise ValueError(
            f"`method` must be one of {', '.join(METHODS)}{hint}. Received: method={name!r}"
        )
    own = name == "sacl_xd" and options is not None and options.sacl_contrast == "own"
    return _OWN_CONTRAST if own else METHODS[name]
