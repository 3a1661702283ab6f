"""Networks, images and optimization."""

import dataclasses

from keras_sacl.config import choices
from keras_sacl.config.defaults import LEARNING_RATES, listed
from keras_sacl.config.settings import setting

OPTIMIZER_NAMES = ("lars", "sgd", "adamw", "lamb")


@dataclasses.dataclass(frozen=True)
class TrainingFields:
    """What is trained, on what, how."""

    # Network
    encoder: str = setting("mobilenet_v1", "Name of the encoder.", choices=choices.encoders)
    activation: str = setting(
        "default",
        "Activations of the encoder: default (as published), or relu6 in the place of each ReLU, "
        "swish and hard-swish: for int8.",
        choices=choices.activations,
    )
    width: float | None = setting(
        None,
        "Width multiplier of the deployed (slim) encoder. Default: the first of --slim_widths, or "
        "1.0.",
        above=0,
        high=16,
    )
    host_width: float | None = setting(
        None, "Width multiplier of the host, K x --width. Equal to --width: no slimming. "
        "Default: 1.5 x --width for sacl and sacl_xd. barlow_twins and xd have no host."
    )  # fmt: skip
    image_size: int = setting(
        224, "Side of the square images that the encoder sees, in pixels.", low=8, high=4096
    )
    slim_widths: tuple = setting(
        (),
        "Several deployed widths, one for each tier of phones: width multipliers as --width is, "
        "the first of them --width itself, each below the one before, such as 1.0,0.75,0.5. Each "
        "step of sacl and sacl_xd trains the host and one of them, once slimming has started, and "
        "one of them alone in the last --slim_alone_epochs. "
        "Default: --width alone.",
    )
    slim_start_epoch: int | None = setting(
        None,
        "Epochs in which sacl and sacl_xd train the host alone, as barlow_twins and xd would, "
        "before they slim it. Default: 0 for sacl_xd with --sacl_contrast=own, else a third of "
        "--epochs.",
        low=0,
        of=("sacl", "sacl_xd"),
    )
    slim_alone_epochs: int | None = setting(
        None,
        "Epochs at the end in which sacl and sacl_xd no longer run the host and train the slim "
        "network alone, by the loss of barlow_twins and xd. Default: half of --epochs for sacl_xd "
        "with --sacl_contrast=own, else 0.",
        low=0,
        of=("sacl", "sacl_xd"),
    )
    slim_execution: str = setting(
        "slice",
        "How the slim network runs: slice (fast) or mask.",
        choices=("slice", "mask"),
        of=("sacl", "sacl_xd"),
    )
    slim_selection: str = setting(
        "leading",
        "Channels that stay: leading, or largest magnitude.",
        choices=("leading", "magnitude"),
        of=("sacl", "sacl_xd"),
    )
    slim_refresh_steps: int = setting(
        100,
        "Steps between two selections with --slim_selection=magnitude.",
        low=1,
        of=("sacl", "sacl_xd"),
    )

    # Data
    dataset: str = setting("digits", "digits, a TFDS name, or a folder of images.")
    data_dir: str | None = setting(None, "Where TFDS data sets lie.", free=True)
    download: bool = setting(False, "Let TFDS download a data set that is missing.", free=True)
    train_split: str = setting("train", "Split to pretrain on (TFDS syntax: train[:20000]).")
    test_split: str = setting("test", "Split to evaluate on.")
    cache_images: bool = setting(
        False,
        "Decode each training image once and keep the pixels; for small images of one size. "
        "(Of TFDS data sets of small images this is done anyway.)",
    )
    eval_dataset: str | None = setting(None, "Labelled data set to evaluate on instead.", free=True)
    eval_train_split: str | None = setting(
        None, "Its training split. Default: --train_split.", free=True
    )
    eval_test_split: str | None = setting(None, "Its test split. Default: --test_split.", free=True)
    eval_protocols: tuple = setting(
        ("knn", "linear"),
        "What to measure: knn, nn, best_nn, knn_1shot, knn_1pct, knn_10pct, linear, linear_sgd, "
        "linear_disco, linear_disco_resnet, linear_ssl_small, linear_compress, clusters, "
        "retrieval, representation, "
        "two_views, information, layers, multi_label; or all, for all that the data allow.",
        choices=choices.protocols,
        free=True,
    )
    eval_encoder: str | None = setting(
        None,
        "File of an encoder to evaluate in place of the run's: .keras, .tflite or .onnx. It takes "
        "images normalised by the mean and std of ImageNet, or uint8 pixels. With "
        "--stages=evaluate.",
        free=True,
    )
    augmentation: str = setting("imagenet1k", "Preset of the two views.", choices=choices.presets)
    augment_on: str = setting(
        "auto",
        "Where views are made of crops: host (in the data pipeline), device (in the training "
        "step), or auto: device if there is a GPU.",
        choices=("auto", "host", "device"),
    )
    data_service: str | None = setting(
        None,
        "Address of a tf.data service (grpc://HOST:PORT) whose workers make the views. The order "
        "of the steps then depends on the workers.",
        free=True,
    )

    # Optimization
    batch_size: int = setting(256, "Images per step, over all replicas.", low=2)
    epochs: int = setting(100, "Passes over the images.", low=1)
    stop_epoch: int | None = setting(
        None,
        "Epoch after which the run ends, though its schedule is one of all --epochs: what is there "
        "by then is saved, evaluated and exported, and --resume with a later one goes on. "
        "Default: --epochs.",
        low=1,
        free=True,
    )
    optimizer: str = setting("adamw", "lars, sgd, adamw or lamb.", choices=OPTIMIZER_NAMES)
    learning_rate: float | None = setting(
        None,
        f"Peak learning rate. Default by optimizer: {listed(LEARNING_RATES)}.",
        above=0,
    )
    lars_trust: float = setting(
        0.02,
        "Trust coefficient of lars: 0.02 as published for CIFAR, 0.001 for ImageNet.",
        above=0,
    )
    weight_decay: float = setting(1e-4, "Weight decay; not for biases and norm parameters.", low=0)
    schedule: str = setting(
        "cosine", "After the warm-up: cosine (to 0) or steps.", choices=("cosine", "steps")
    )
    drop_epochs: tuple = setting((), "Epochs at which --schedule=steps drops the rate: 90,120.")
    drop_factor: float = setting(0.2, "What a drop multiplies it by.", above=0, high=1)
    warmup_epochs: float = setting(1.0, "Epochs of linear warm-up.", low=0)
    strategy: str = setting(
        "auto",
        "Devices: auto (all GPUs of this machine), one_device, mirrored, multi_worker (TF_CONFIG "
        "names the processes; --run_dir is one folder for all) or tpu (untested).",
        choices=("auto", "one_device", "mirrored", "multi_worker", "tpu"),
        free=True,
    )
    replicas: int | None = setting(
        None,
        "Devices of --strategy=mirrored that share each batch. Default: all GPUs. On a CPU, so "
        "many logical devices, to try it out.",
        low=1,
        free=True,
    )
    mixed_precision: str = setting(
        "float32",
        "Compute type: float32, bfloat16, float16; float64 to check numbers.",
        choices=("float32", "bfloat16", "float16", "float64"),
    )
    jit_compile: str = setting(
        "auto",
        "XLA: auto (off on CPUs, where it is slower), true, false.",
        choices=("auto", "true", "false"),
    )
    steps_per_execution: int = setting(
        1,
        "Most steps that the accelerator runs without the host. For steps of a few milliseconds; "
        "rounded down to a divisor of the steps of an epoch.",
        low=1,
    )
