"""What pretraining costs: multiply-adds of encoders, FLOPs of methods, and the 64x claim.

python -m keras_sacl.report.costs --encoders=mobilenet_v3_large --methods=xd,seed,disco
"""

import dataclasses
import math
import sys

from keras_sacl.command_line import OneLineParser
from keras_sacl.costs import (
    IMAGENET_IMAGES,
    METHODS,
    PARTS,
    PUBLISHED,
    compare,
    measure,
    training_cost,
)
from keras_sacl.encoders import ENCODERS
from keras_sacl.heads import parse_projector

# Millions of multiply-adds at 224 px and width 1, with a classifier of 1,000 classes: the tables
# of "MobileNets" (2017), "MobileNetV2" (2018), "Searching for MobileNetV3" (2019), "EfficientNet"
# (2019); ResNets and AlexNet: torchvision's; transformers: timm's.
PUBLISHED_MMACS = {
    "mobilenet_v1": 569,
    "mobilenet_v2": 300,
    "mobilenet_v3_large": 219,
    "efficientnet_b0": 390,
    "resnet18": 1814,
    "resnet34": 3664,
    "resnet50": 4089,
    "resnet101": 7801,
    "resnet152": 11514,
    "alexnet": 714,
    "deit_tiny": 1258,
    "vit_tiny": 1258,
}
CLAIMED_RATIO = 64  # "64x training FLOPs reduction": the SACL paper's abstract (2023)
TEACHER_EPOCHS = (0, 200, 400, 800)
_DEFAULT_ENCODERS = ("mobilenet_v1", "mobilenet_v3_large", "efficientnet_b0", "resnet18")
_LIBRARY_METHODS = ("barlow_twins", "xd", "sacl", "sacl_xd")
# (method, rival, whether projectors and losses are left out)
_COMPARISONS = (
    ("xd", "seed", True),
    ("xd", "seed", False),
    ("xd", "disco", True),
    ("sacl_xd", "seed", True),
)


@dataclasses.dataclass(frozen=True)
class Settings:
    """What to count: see the command's --help for the meaning of each.

    `epochs`, `teacher_epochs` and `projector` are the papers' where None; `host_width` is 1.5 x
    `width` where None.
    """

    encoders: tuple = _DEFAULT_ENCODERS
    methods: tuple = PUBLISHED
    width: float = 1.0
    host_width: float | None = None
    image_size: int = 224
    epochs: int | None = None
    images: int = IMAGENET_IMAGES
    batch_size: int = 256
    projector: tuple | None = None
    teacher: str = "resnet50"
    teacher_epochs: int | None = None
    cached_teacher: bool = False
    claim_encoder: str = "mobilenet_v3_large"


def collect(settings):
    """All that the tables show, as data.

    The claim is taken at the papers' epochs and projectors, whatever the settings say of these.

    Args:
        settings: `Settings`.

    Returns:
        A dict: "networks", a list of (`Network`, published multiply-adds or None); "costs", a
        list of `Cost`, encoder by encoder; "comparisons", a list of (`Comparison`, encoders_only)
        about the claim.

    Raises:
        ValueError: On a setting that cannot work; it is named.
    """
    _check(settings)
    size, width = settings.image_size, settings.width
    host_width = 1.5 * width if settings.host_width is None else settings.host_width
    slimmed = any(METHODS[name].needs("host") for name in settings.methods)
    teacher = measure(settings.teacher, image_size=size)
    common = {"batch_size": settings.batch_size, "images": settings.images}

    networks, costs = [], []
    for name in settings.encoders:
        slim = measure(name, width, size)
        host = measure(name, host_width, size) if slimmed else None
        networks += [slim, host] if host else [slim]
        for method in settings.methods:
            cached = settings.cached_teacher and METHODS[method].cacheable
            cost = training_cost(
                method, slim, host=host, teacher=teacher, epochs=settings.epochs,
                projector=settings.projector if method in _LIBRARY_METHODS else None,
                teacher_epochs=settings.teacher_epochs, cached_teacher=cached, **common,
            )  # fmt: skip
            costs.append(cost)
    if teacher not in networks:
        networks.append(teacher)

    slim = measure(settings.claim_encoder, width, size)
    host = measure(settings.claim_encoder, host_width, size)
    comparisons = []
    for method, rival, encoders_only in _COMPARISONS:
        comparison = compare(
            method, rival, slim, host=host, teacher=teacher, encoders_only=encoders_only, **common
        )
        comparisons.append((comparison, encoders_only))
    return {
        "networks": [(network, published_macs(network)) for network in networks],
        "costs": costs,
        "comparisons": comparisons,
    }


def published_macs(network):
    """The multiply-adds that the encoder's authors print, or None for other widths and sizes."""
    if network.width != 1 or network.image_size != 224 or network.name not in PUBLISHED_MMACS:
        return None
    return PUBLISHED_MMACS[network.name] * 1e6


def _check(settings):
    for option in ("encoders", "methods"):
        if not getattr(settings, option):
            raise ValueError(f"`{option}` must name at least one. Received: {option}=''")
    names = (("encoders", name) for name in settings.encoders)
    names = (*names, ("teacher", settings.teacher), ("claim_encoder", settings.claim_encoder))
    for option, value, allowed in (
        *((option, name, ENCODERS) for option, name in names),
        *(("methods", name, PUBLISHED) for name in settings.methods),
    ):
        if value not in allowed:
            raise ValueError(
                f"`{option}` must be of {', '.join(allowed)}. Received: {option}={value!r}"
            )
    limits = {
        "width": (0.01, 16), "host_width": (settings.width, 16 * settings.width),
        "image_size": (8, 4096), "epochs": (1, math.inf), "images": (1, math.inf),
        "batch_size": (2, math.inf), "teacher_epochs": (0, math.inf),
    }  # fmt: skip
    for option, (low, high) in limits.items():
        value = getattr(settings, option)
        if value is not None and not low <= value <= high:
            upper = f" and at most {high}" if high < math.inf else ""
            raise ValueError(
                f"`{option}` must be at least {low}{upper}. Received: {option}={value}"
            )


def markdown(data):
    """The three tables and what they assume, as Markdown text.

    Args:
        data: What `collect` gives.

    Returns:
        A string.
    """
    networks = [
        (
            network.name, f"{network.width:g}", network.image_size, f"{network.macs / 1e6:,.1f}",
            f"{published / 1e6:,.0f}" if published else "-",
            f"{round(100 * (network.macs / published - 1), 1) + 0.0} %" if published else "-",
        )
        for network, published in data["networks"]
    ]  # fmt: skip
    costs = [
        (
            cost.encoder, cost.method, *(_number(cost.parts[part] / 1e9) for part in PARTS),
            _number(cost.per_image / 1e9), _number(cost.per_step / 1e12),
            _number(cost.per_epoch / 1e15), cost.epochs, _number(cost.per_run / 1e18),
            cost.teacher_epochs or "-",
            _number(cost.per_run_with_teacher / 1e18) if cost.teacher_epochs else "-",
        )
        for cost in data["costs"]
    ]  # fmt: skip
    comparisons = [
        (
            f"{c.own.method}, {c.own.epochs} epochs", f"{c.rival.method}, {c.rival.epochs} epochs",
            "encoders" if encoders_only else "all",
            *(f"{c.ratio(epochs):.1f}x" for epochs in TEACHER_EPOCHS),
            f"{c.teacher_epochs_for(CLAIMED_RATIO):.0f}",
            f"{c.epochs_for(CLAIMED_RATIO, TEACHER_EPOCHS[-1]):.0f}",
        )
        for c, encoders_only in data["comparisons"]
    ]  # fmt: skip
    first = data["comparisons"][0][0]
    sources = {}
    for name in dict.fromkeys(cost.method for cost in data["costs"]):
        sources.setdefault(METHODS[name].source, []).append(f"`{name}`")
    ratios = (
        f"+ teacher's {epochs} epochs" if epochs else "teacher ready-made"
        for epochs in TEACHER_EPOCHS
    )
    return "\n".join(
        [
            "## Encoders: millions of multiply-adds per image (published: with the classifier)\n",
            _table(("encoder", "width", "px", "here", "published", "difference"), networks),
            "\n## Methods: GFLOPs per image by part, TFLOPs per step, PFLOPs per epoch, "
            "EFLOPs per run\n",
            _table(
                (
                    "encoder", "method", *PARTS, "image", "step", "epoch", "epochs", "run",
                    "teacher's epochs", "run with teacher's",
                ),
                costs,
            ),
            "\nA multiply-add is two FLOPs, a pass with gradient three forward passes. Assumed:\n",
            *(f"- {', '.join(names)}: {source}" for source, names in sources.items()),
            f"\n## The claim of {CLAIMED_RATIO}x, on {first.own.encoder}: cost of the distillation "
            "over that of the method\n",
            _table(
                (
                    "method", "distillation", "counted", *ratios,
                    f"teacher's epochs that make {CLAIMED_RATIO}x",
                    f"own epochs that do, teacher's {TEACHER_EPOCHS[-1]}",
                ),
                comparisons,
            ),
        ]
    )  # fmt: skip


def _number(value):
    """Three digits, and more where it has more in front of the point."""
    if not value:
        return "-"
    return f"{value:#.3g}" if value < 99.95 else f"{value:,.0f}"


def _table(header, rows):
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def _names(text):
    return tuple(name for name in text.split(",") if name)


def main(arguments=None):
    parser = OneLineParser("costs", __doc__)
    for flag, kind, text in (
        ("encoders", _names, "deployed encoders, by commas"),
        ("methods", _names, "methods, by commas"),
        ("width", float, "width multiplier of the deployed encoder"),
        ("host_width", float, "width multiplier of the host; default: 1.5 x --width"),
        ("image_size", int, "side of a view, in pixels"),
        ("epochs", int, "epochs of every method; default: each paper's"),
        ("images", int, "images in the training set"),
        ("batch_size", int, "images per step"),
        ("projector", str, "widths of this library's projector; default: 4096-4096-4096"),
        ("teacher", str, "encoder that the distillation methods learn from"),
        ("teacher_epochs", int, "MoCo-v2 epochs of the teacher; default: each paper's"),
        ("claim_encoder", str, "encoder of the table about the claim"),
    ):
        parser.add_argument(
            f"--{flag}", type=kind, default=getattr(Settings, flag), help=text, metavar="VALUE"
        )
    parser.add_argument(
        "--cached_teacher", action="store_true", help="CompRess: teacher once per image in a run"
    )
    options = vars(parser.parse_args(arguments))
    try:
        if options["projector"] is not None:
            options["projector"] = parse_projector(options["projector"])
        print(markdown(collect(Settings(**options))))
    except ValueError as error:
        print(f"costs: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
