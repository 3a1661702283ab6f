"""The method, its projector, and what is distilled into it."""

import dataclasses

from keras_sacl.config import choices
from keras_sacl.config.defaults import CORRELATING, LOSS_SCALES, TEMPERATURES, listed
from keras_sacl.config.settings import setting

METHOD_NAMES = ("barlow_twins", "xd", "sacl", "sacl_xd", "moco_v2", "swav", "distill")


@dataclasses.dataclass(frozen=True)
class MethodFields:
    """Losses and what they need."""

    # Method
    method: str = setting(
        "sacl_xd",
        "barlow_twins, xd, sacl, sacl_xd, moco_v2, swav, or distill: --distill alone.",
        choices=METHOD_NAMES,
    )
    alpha: float = setting(
        0.5,
        "Weight of the contrastive loss; the rest goes to XD. In [0, 1]. With "
        "--sacl_contrast=own, within the loss of each network by itself.",
        low=0,
        high=1,
        of=("xd", "sacl_xd"),
    )
    lambd: float | None = setting(
        None,
        "Weight of the off-diagonal terms of Barlow Twins and XD. There are D - 1 for each on the "
        "diagonal: times D it is 20 in SACL's paper and 41 in that of Barlow Twins, so that a "
        "narrower projector takes a larger one. Default: 0.005 for barlow_twins and sacl, and "
        "with --xd_pairs=same_encoder or --xd_form=neg_log; else of xd and sacl_xd 31 / D, such as "
        "0.03 for 1024.",
        low=0,
        of=CORRELATING,
    )
    loss_scale: float | None = setting(
        None,
        "Factor on the loss. Default of barlow_twins, xd, sacl and sacl_xd by optimizer: "
        f"{listed(LOSS_SCALES)}; of the others 1.",
        above=0,
    )
    xd_pairs: str = setting(
        "same_input",
        "Pairs of XD: same_input or same_encoder (of sacl_xd with --sacl_contrast=across).",
        choices=("same_input", "same_encoder"),
        of=("xd", "sacl_xd"),
    )
    xd_form: str = setting(
        "barlow_twins",
        "Form of XD: barlow_twins (the whole loss), correlation (off the diagonal alone) or "
        "neg_log (of sacl_xd with --sacl_contrast=across).",
        choices=("barlow_twins", "correlation", "neg_log"),
        of=("xd", "sacl_xd"),
    )
    sacl_contrast: str = setting(
        "own",
        "What sacl_xd contrasts a view with: own (the other view in the same network; the slim "
        "network also learns from the frozen host) or across (the other view in the other "
        "network, the reversed passes frozen: Algorithm 1).",
        choices=("own", "across"),
        of=("sacl_xd",),
    )
    gamma: float = setting(
        1e-3, "Weight of XD with --xd_form=neg_log.", low=0, of=("xd", "sacl_xd")
    )
    projector: str | None = setting(
        None,
        "Widths of the projector's layers. Default: 2048-128 for moco_v2 and swav, 2048-2048-2048 "
        "for the others. distill alone has none.",
        of=METHOD_NAMES[:-1],
    )
    projector_batch_norm: bool | None = setting(
        None,
        "BatchNorm in the projector. Default: not for moco_v2, whose layers have biases.",
        of=METHOD_NAMES[:-1],
    )
    projector_dropout: float = setting(
        0.0,
        "Share of the projector's hidden units that a step drops.",
        low=0,
        high=0.99,
        of=METHOD_NAMES[:-1],
    )
    temperature: float | None = setting(
        None,
        "Temperature of moco_v2 (default 0.2) and swav (0.1).",
        above=0,
        of=tuple(TEMPERATURES),
    )
    queue_size: int | None = setting(
        None,
        "Keys in the queue of moco_v2. Default: the largest power of two that is at most an eighth "
        "of the images, up to 65536.",
        low=2,
        of=("moco_v2",),
    )
    key_momentum: float = setting(
        0.999,
        "Share of the old value that a weight keeps each step: of moco_v2's key encoder, and of "
        "compress_2q's mean student.",
        low=0, high=1,
    )  # fmt: skip
    key_batch_norm: str = setting(
        "split",
        "Which images moco_v2 normalises together: split (--batch_norm_groups of a batch), shuffle "
        "(those of each replica) or sync (the whole batch); in the first two the keys come in "
        "another order.",
        choices=("split", "shuffle", "sync"),
        of=("moco_v2",),
    )
    batch_norm_groups: int = setting(
        8,
        "Groups of a batch, over all replicas, with --key_batch_norm=split.",
        low=2,
        of=("moco_v2",),
    )
    prototypes: int = setting(3000, "Prototypes of swav.", low=2, of=("swav",))
    frozen_prototype_epochs: int = setting(
        1, "Epochs at the start in which swav's prototypes stay as they are.", low=0, of=("swav",)
    )
    small_views: int = setting(0, "Small views of each image, beside the two (swav).", low=0)
    small_size: int | None = setting(
        None,
        "Side of the small views in pixels. Default: 3/7 of --image_size (96 of 224).",
        low=8,
        of=("swav",),
    )

    # Distillation
    distill: tuple = setting(
        (),
        "Distillation objectives with their weights, added to the loss of --method: "
        "disco, seed, compress_1q, compress_2q, at, rkd, reg, reg_bn, cc, crd, such as "
        "disco:1.0,rkd:0.5.",
    )
    teacher: str | None = setting(
        None,
        "Who to distil from: a .keras file, a run directory, a PyTorch checkpoint of a ResNet "
        "(.pth.tar), or applications:NAME[:WEIGHTS] of keras.applications.",
        free=True,  # its content is compared, not where it lies
    )
    teacher_encoder: str = setting(
        "resnet50",
        "Architecture of the teacher where a dry run has no file.",
        choices=choices.encoders,
    )
    teacher_width: float = setting(
        1.0, "Width of --teacher_encoder, for a dry run.", above=0, high=16, free=True
    )
    teacher_projector: str | None = setting(
        None,
        "Widths of the projector of --teacher_encoder, such as 2048-128, for a dry run; without, "
        "it has none.",
        free=True,
    )
    teacher_precision: str = setting(
        "auto", "Compute type of the teacher: auto (float16 on a GPU, else float32) or its name.",
        choices=("auto", "float32", "bfloat16", "float16"),
    )  # fmt: skip
    cache_teacher: bool = setting(
        False,
        "Run the teacher once over the images, without augmentation, and keep what it gives on "
        "disk.",
    )
    teacher_cache_dir: str | None = setting(
        None,
        "Where --cache_teacher keeps it, for several runs to share. Default: teacher/ in the run "
        "directory.",
        free=True,
    )
    distill_hidden: int = setting(
        2048, "Hidden width of the heads of disco and seed where the projector is not theirs.",
        low=2,
    )  # fmt: skip
    distill_temperature: float | None = setting(
        None,
        "Temperature of the similarities of seed's teacher (default 0.01; its student has 0.2), "
        "and of both sides of compress (0.04) and crd (0.07).",
        above=0,
    )
    distill_queue_size: int | None = setting(
        None,
        "Embeddings in each queue of seed, compress and crd. Default: as --queue_size, up to "
        "65536, 128000 and 16384.",
        low=2,
    )
    distill_clusters: int | None = setting(
        None, "Clusters of the objective cc. Default: one for 80 images, up to 16000.", low=2
    )
    init_from: str | None = setting(
        None, "Run directory whose encoder.keras the encoder starts from.", free=True
    )
