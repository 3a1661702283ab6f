"""What a run does, where, and what it keeps."""

import dataclasses

from keras_sacl.config.settings import setting

STAGES = ("pretrain", "evaluate", "finetune", "export", "report")
_DEFAULT_STAGES = ("pretrain", "evaluate", "export", "report")


@dataclasses.dataclass(frozen=True)
class RunFields:
    """Stages, messages, monitors and checkpoints."""

    # Run
    stages: tuple = setting(
        _DEFAULT_STAGES,
        "Stages to run, in order: pretrain, evaluate, finetune, export, report.",
        choices=STAGES,
        free=True,
    )
    run_dir: str = setting(
        "runs/default", "Directory that the run writes everything to.", free=True
    )
    resume: bool = setting(
        False, "Continue the run in --run_dir from its newest checkpoint.", free=True
    )
    overwrite: bool = setting(False, "Delete an earlier run in --run_dir first.", free=True)
    seed: int = setting(
        0, "Seed of weights, order of images and augmentations.", low=0, high=2**31 - 1
    )
    dry_run: bool = setting(
        False,
        "Build everything and run one step on a few made-up images of the right size; needs no "
        "data and no teacher's file, and writes nothing.",
        free=True,
    )
    verbose: str = setting(
        "auto",
        "Progress: auto, bar, line (one per epoch) or quiet.",
        choices=("auto", "bar", "line", "quiet"),
        free=True,
    )

    # Monitoring and checkpoints
    knn_every: int = setting(
        5, "Epochs between two k-NN monitors; 0 turns them off.", low=0, free=True
    )
    views_every: int = setting(
        5,
        "Epochs between two monitors that need no labels (alignment, uniformity, effective rank, "
        "... of two views of 1,000 training images); 0 turns them off.",
        low=0,
        free=True,
    )
    checkpoint_steps: int = setting(
        0,
        "Steps between two checkpoints, beside those after each epoch; 0 for those alone.",
        low=0,
        free=True,
    )
    on_divergence: str = setting(
        "stop",
        "When the loss is not finite or the embeddings collapse: stop, or rollback to the newest "
        "checkpoint with half the learning rate.",
        choices=("stop", "rollback"),
        free=True,
    )
    keep_checkpoints: int = setting(2, "Number of checkpoints to keep.", low=1, free=True)
    tensorboard: bool = setting(True, "Write TensorBoard event files.", free=True)
