"""`RunConfig`: every setting of a run, validated in one place before any work."""

import dataclasses
import difflib
import math
import types
import typing

STAGES = ("pretrain", "evaluate", "finetune", "export", "report")
_DEFAULT_STAGES = ("pretrain", "evaluate", "export", "report")
METHOD_NAMES = ("barlow_twins", "xd", "sacl", "sacl_xd")
OPTIMIZER_NAMES = ("lars", "sgd", "adamw", "lamb")
PRECISIONS = ("float32", "bfloat16", "float16", "float64")
JIT_CHOICES = ("auto", "true", "false")
STRATEGIES = ("auto", "one_device", "mirrored", "multi_worker", "tpu")
FORMATS = (
    "keras", "tflite", "tflite_fp16", "tflite_dynamic", "tflite_int8", "tflite_uint8", "onnx",
    "saved_model",
)  # fmt: skip
_DEFAULT_FORMATS = ("keras", "tflite", "tflite_fp16", "tflite_int8", "onnx")

# What may differ between a run and its resumption without changing what is learned.
_FREE_ON_RESUME = frozenset(
    "stages run_dir resume overwrite data_dir download eval_dataset eval_train_split "
    "eval_test_split eval_protocols eval_encoder export_formats export_input "
    "export_onnx_opset export_onnx_batch export_onnx_layout "
    "keep_checkpoints tensorboard knn_every views_every verbose data_service strategy "
    "replicas checkpoint_steps on_divergence finetune_labels finetune_steps finetune_batch_size "
    "finetune_learning_rate finetune_weight_decay finetune_scope finetune_baseline "
    "finetune_teacher kd_temperature kd_weight".split()
)

# Tried on the quickstart's recipe; see `flags/quickstart.flags`.
_LEARNING_RATES = {"lars": 0.3, "sgd": 2e-3, "adamw": 2e-3, "lamb": 5e-3}
_LOSS_SCALES = {"lars": 0.1, "sgd": 0.1, "adamw": 1.0, "lamb": 1.0}


class ConfigError(ValueError):
    """A setting that cannot work. Its text is one line that names the flag and its value."""

    def __init__(self, flag, value, expected):
        super().__init__(f"--{flag}={value}: {expected}")

    @classmethod
    def from_text(cls, error):
        """The error of a function below, whose text names its arguments, as one of a setting."""
        made = cls.__new__(cls)
        ValueError.__init__(made, str(error))
        return made


def _flag(default, text):
    return dataclasses.field(default=default, metadata={"help": text})


def _by_optimizer(values):
    return ", ".join(f"{name} {value:g}" for name, value in values.items())


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """The settings of a run; `train.py` makes one flag of each field."""

    # Run
    stages: tuple = _flag(
        _DEFAULT_STAGES, "Stages to run, in order: pretrain, evaluate, finetune, export, report."
    )
    run_dir: str = _flag("runs/default", "Directory that the run writes everything to.")
    resume: bool = _flag(False, "Continue the run in --run_dir from its newest checkpoint.")
    overwrite: bool = _flag(False, "Delete an earlier run in --run_dir first.")
    seed: int = _flag(0, "Seed of weights, order of images and augmentations.")
    verbose: str = _flag("auto", "Progress: auto, bar, line (one per epoch) or quiet.")

    # Method
    method: str = _flag("sacl_xd", "barlow_twins, xd, sacl or sacl_xd.")
    alpha: float | None = _flag(
        None,
        "Weight of the contrastive loss; the rest goes to XD. In [0, 1]. Default: 0.9, and 0.5 "
        "for xd, without slimming.",
    )
    lambd: float = _flag(0.005, "Weight of the off-diagonal terms of Barlow Twins and XD.")
    loss_scale: float | None = _flag(
        None, f"Factor on the loss. Default by optimizer: {_by_optimizer(_LOSS_SCALES)}."
    )
    xd_pairs: str = _flag("same_input", "Pairs of XD: same_input or same_encoder.")
    xd_form: str = _flag("correlation", "Form of XD: correlation or neg_log.")
    gamma: float = _flag(1e-3, "Weight of XD with --xd_form=neg_log.")
    projector: str = _flag("2048-2048-2048", "Widths of the projector's layers.")

    # Network
    encoder: str = _flag("mobilenet_v1", "Name of the encoder.")
    activation: str = _flag(
        "default",
        "Activations of the encoder: default (as published), or relu6 in the place of each ReLU, "
        "swish and hard-swish: for int8.",
    )
    width: float | None = _flag(
        None,
        "Width multiplier of the deployed (slim) encoder. Default: the first of --slim_widths, or "
        "1.0.",
    )
    host_width: float | None = _flag(
        None, "Width multiplier of the host, K x --width. Equal to --width: no slimming. "
        "Default: 1.5 x --width for sacl and sacl_xd. barlow_twins and xd have no host."
    )  # fmt: skip
    image_size: int = _flag(224, "Side of the square images that the encoder sees, in pixels.")
    slim_widths: tuple = _flag(
        (),
        "Several deployed widths, one for each tier of phones: width multipliers as --width is, "
        "the first of them --width itself, each below the one before, such as 1.0,0.75,0.5. Each "
        "step of sacl and sacl_xd trains the host and one of them. Default: --width alone.",
    )
    slim_execution: str = _flag("slice", "How the slim network runs: slice (fast) or mask.")
    slim_selection: str = _flag("leading", "Channels that stay: leading, or largest magnitude.")
    slim_refresh_steps: int = _flag(
        100, "Steps between two selections with --slim_selection=magnitude."
    )

    # Data
    dataset: str = _flag("digits", "digits, a TFDS name, or a folder of images.")
    data_dir: str | None = _flag(None, "Where TFDS data sets lie.")
    download: bool = _flag(False, "Let TFDS download a data set that is missing.")
    train_split: str = _flag("train", "Split to pretrain on (TFDS syntax: train[:20000]).")
    test_split: str = _flag("test", "Split to evaluate on.")
    cache_images: bool = _flag(
        False,
        "Decode each training image once and keep the pixels; for small images of one size. "
        "(Of TFDS data sets of small images this is done anyway.)",
    )
    eval_dataset: str | None = _flag(None, "Labelled data set to evaluate on instead.")
    eval_train_split: str | None = _flag(None, "Its training split. Default: --train_split.")
    eval_test_split: str | None = _flag(None, "Its test split. Default: --test_split.")
    eval_protocols: tuple = _flag(
        ("knn", "linear"),
        "What to measure: knn, best_nn, knn_1shot, knn_1pct, knn_10pct, linear, linear_sgd, "
        "linear_disco, linear_disco_resnet, linear_ssl_small, linear_compress, clusters, "
        "retrieval, representation, "
        "two_views, information, layers, multi_label; or all, for all that the data allow.",
    )
    eval_encoder: str | None = _flag(
        None,
        "File of an encoder to evaluate in place of the run's: .keras, .tflite or .onnx. It takes "
        "images normalised by the mean and std of ImageNet, or uint8 pixels. With "
        "--stages=evaluate.",
    )
    augmentation: str = _flag("imagenet1k", "Preset of the two views.")
    augment_on: str = _flag(
        "auto",
        "Where views are made of crops: host (in the data pipeline), device (in the training "
        "step), or auto: device if there is a GPU.",
    )
    data_service: str | None = _flag(
        None,
        "Address of a tf.data service (grpc://HOST:PORT) whose workers make the views. The order "
        "of the steps then depends on the workers.",
    )

    # Optimization
    batch_size: int = _flag(256, "Images per step, over all replicas.")
    epochs: int = _flag(100, "Passes over the images.")
    optimizer: str = _flag("adamw", "lars, sgd, adamw or lamb.")
    learning_rate: float | None = _flag(
        None, f"Peak learning rate. Default by optimizer: {_by_optimizer(_LEARNING_RATES)}."
    )
    weight_decay: float = _flag(1e-4, "Weight decay; not for biases and norm parameters.")
    warmup_epochs: float = _flag(1.0, "Epochs of linear warm-up; then a cosine to 0.")
    strategy: str = _flag(
        "auto",
        "Devices: auto (all GPUs of this machine), one_device, mirrored, multi_worker (TF_CONFIG "
        "names the processes; --run_dir is one folder for all) or tpu (untested).",
    )
    replicas: int | None = _flag(
        None,
        "Devices of --strategy=mirrored that share each batch. Default: all GPUs. On a CPU, so "
        "many logical devices, to try it out.",
    )
    mixed_precision: str = _flag(
        "float32", "Compute type: float32, bfloat16, float16; float64 to check numbers."
    )
    jit_compile: str = _flag("auto", "XLA: auto (off on CPUs, where it is slower), true, false.")
    steps_per_execution: int = _flag(
        1,
        "Most steps that the accelerator runs without the host. For steps of a few milliseconds; "
        "rounded down to a divisor of the steps of an epoch.",
    )

    # Monitoring and checkpoints
    knn_every: int = _flag(5, "Epochs between two k-NN monitors; 0 turns them off.")
    views_every: int = _flag(
        5,
        "Epochs between two monitors that need no labels (alignment, uniformity, effective rank, "
        "... of two views of 1,000 training images); 0 turns them off.",
    )
    checkpoint_steps: int = _flag(
        0, "Steps between two checkpoints, beside those after each epoch; 0 for those alone."
    )
    on_divergence: str = _flag(
        "stop",
        "When the loss is not finite or the embeddings collapse: stop, or rollback to the newest "
        "checkpoint with half the learning rate.",
    )
    keep_checkpoints: int = _flag(2, "Number of checkpoints to keep.")
    tensorboard: bool = _flag(True, "Write TensorBoard event files.")

    # Fine-tuning
    finetune_labels: float = _flag(
        1.0,
        "Share of the labels of each class to fine-tune with, in (0, 1]: 0.01 and 0.1 are the "
        "semi-supervised protocols. At least one image of each class.",
    )
    finetune_steps: int = _flag(10000, "Steps of fine-tuning.")
    finetune_batch_size: int = _flag(64, "Images per step of fine-tuning.")
    finetune_learning_rate: float = _flag(
        0.1, "Peak learning rate of fine-tuning by SGD; a cosine to 0, without warm-up."
    )
    finetune_weight_decay: float = _flag(
        0.0, "Weight decay of fine-tuning; not for biases and norm parameters."
    )
    finetune_scope: str = _flag(
        "full",
        "What fine-tuning trains beside the linear layer: full (the encoder), last_blocks (what "
        "works at its last resolution) or frozen (nothing).",
    )
    finetune_baseline: bool = _flag(
        True, "Train the untrained encoder by the same settings too, to compare with."
    )
    finetune_teacher: str | None = _flag(
        None,
        "A classifier to distil from while fine-tuning: a .keras file that takes images as the "
        "encoder does and gives logits.",
    )
    kd_temperature: float = _flag(4.0, "Temperature at which --finetune_teacher is imitated.")
    kd_weight: float = _flag(
        0.9, "Weight of imitating --finetune_teacher, in [0, 1]; the rest goes to the labels."
    )

    # Export
    export_formats: tuple = _flag(_DEFAULT_FORMATS, "Files to write: " + ", ".join(FORMATS) + ".")
    export_input: str = _flag(
        "normalised",
        "What the exported files take: normalised (floats), pixels (uint8), or photos (uint8 "
        "of any height and width, which they crop and resize inside).",
    )
    export_onnx_opset: int = _flag(17, "Operator set of the ONNX file: 15, 16 or 17.")
    export_onnx_batch: str = _flag("any", "Images a call of the ONNX file takes: any, or one.")
    export_onnx_layout: str = _flag(
        "nhwc", "Layout of the ONNX file's input: nhwc, or nchw (channels first)."
    )

    @property
    def widths(self):
        """The deployed widths, the largest first: --slim_widths, or --width alone."""
        return self.slim_widths or (self.width,)

    @property
    def slims(self):
        """Whether a host is trained around the deployed network."""
        narrower = self.host_width != self.width or len(self.widths) > 1
        return self.method.startswith("sacl") and narrower

    @property
    def effective_method(self):
        """Without a wider host, SACL is Barlow Twins and SACL + XD is XD."""
        if self.slims or not self.method.startswith("sacl"):
            return self.method
        return {"sacl": "barlow_twins", "sacl_xd": "xd"}[self.method]

    def validated(self):
        """This configuration with the defaults that hang on others filled in.

        Raises:
            ConfigError: On the first setting that cannot work.
        """
        from keras_sacl.data import AUGMENT_ON, PRESETS
        from keras_sacl.encoders import ACTIVATIONS, ENCODERS
        from keras_sacl.evaluation import PROTOCOLS
        from keras_sacl.finetuning import SCOPES
        from keras_sacl.heads import parse_projector

        _members("stages", self.stages, STAGES)
        if not self.run_dir:
            raise ConfigError("run_dir", self.run_dir, "name a directory")
        if self.resume and self.overwrite:
            raise ConfigError("overwrite", True, "cannot be combined with --resume; choose one")
        _member("method", self.method, METHOD_NAMES)
        _member("encoder", self.encoder, ENCODERS)
        _member("activation", self.activation, ACTIVATIONS)
        _member("optimizer", self.optimizer, OPTIMIZER_NAMES)
        _member("augmentation", self.augmentation, tuple(PRESETS))
        _member("xd_pairs", self.xd_pairs, ("same_input", "same_encoder"))
        _member("xd_form", self.xd_form, ("correlation", "neg_log"))
        _member("slim_execution", self.slim_execution, ("slice", "mask"))
        _member("slim_selection", self.slim_selection, ("leading", "magnitude"))
        _member("mixed_precision", self.mixed_precision, PRECISIONS)
        _member("jit_compile", self.jit_compile, JIT_CHOICES)
        _member("augment_on", self.augment_on, ("auto", *AUGMENT_ON))
        if self.data_service is not None and "://" not in self.data_service:
            raise ConfigError(
                "data_service", self.data_service, "must be an address such as grpc://HOST:5000"
            )
        _member("strategy", self.strategy, STRATEGIES)
        if self.replicas is not None:
            _between("replicas", self.replicas, 1, math.inf)
            self.check_replicas(self.replicas)
        _member("on_divergence", self.on_divergence, ("stop", "rollback"))
        _member("verbose", self.verbose, ("auto", "bar", "line", "quiet"))
        _members("eval_protocols", self.eval_protocols, ("all", *PROTOCOLS))
        if self.eval_encoder is not None and self.stages != ("evaluate",):
            raise ConfigError("eval_encoder", self.eval_encoder, "needs --stages=evaluate")
        _members("export_formats", self.export_formats, FORMATS)
        _member("export_input", self.export_input, ("normalised", "pixels", "photos"))
        _between("export_onnx_opset", self.export_onnx_opset, 15, 17)
        _member("export_onnx_batch", self.export_onnx_batch, ("any", "one"))
        _member("export_onnx_layout", self.export_onnx_layout, ("nhwc", "nchw"))
        try:
            parse_projector(self.projector)
        except ValueError as error:
            raise ConfigError(
                "projector", self.projector, "must be layer widths such as 2048-2048-2048"
            ) from error
        slim_widths = _widths(self.slim_widths)
        width = (*slim_widths, 1.0)[0] if self.width is None else self.width
        _between("width", width, 0, 16, open_low=True)
        if slim_widths:
            self._check_slim_widths(slim_widths, width)
        _between("image_size", self.image_size, 8, 4096)
        _between("batch_size", self.batch_size, 2, math.inf)
        _between("epochs", self.epochs, 1, math.inf)
        _between("seed", self.seed, 0, 2**31 - 1)
        for name in ("lambd", "gamma", "weight_decay"):
            _between(name, getattr(self, name), 0, math.inf)
        _between("warmup_epochs", self.warmup_epochs, 0, self.epochs)
        _between("knn_every", self.knn_every, 0, math.inf)
        _between("views_every", self.views_every, 0, math.inf)
        _between("steps_per_execution", self.steps_per_execution, 1, math.inf)
        _between("keep_checkpoints", self.keep_checkpoints, 1, math.inf)
        _between("checkpoint_steps", self.checkpoint_steps, 0, math.inf)
        _between("slim_refresh_steps", self.slim_refresh_steps, 1, math.inf)
        _between("finetune_labels", self.finetune_labels, 0, 1, open_low=True)
        _between("finetune_steps", self.finetune_steps, 1, math.inf)
        _between("finetune_batch_size", self.finetune_batch_size, 2, math.inf)
        _between("finetune_learning_rate", self.finetune_learning_rate, 0, math.inf, open_low=True)
        _between("finetune_weight_decay", self.finetune_weight_decay, 0, math.inf)
        _member("finetune_scope", self.finetune_scope, SCOPES)
        _between("kd_temperature", self.kd_temperature, 0, math.inf, open_low=True)
        _between("kd_weight", self.kd_weight, 0, 1)
        host_width = self.host_width
        if host_width is None:
            host_width = 1.5 * width if self.method.startswith("sacl") else width
        if not (math.isfinite(host_width) and host_width >= width):
            raise ConfigError(
                "host_width", host_width, f"must be at least --width={width} (K x width)"
            )
        config = dataclasses.replace(
            self, width=width, slim_widths=slim_widths, host_width=host_width
        )
        defaults = {
            "alpha": 0.5 if config.effective_method == "xd" else 0.9,
            "learning_rate": _LEARNING_RATES[self.optimizer],
            "loss_scale": _LOSS_SCALES[self.optimizer],
        }
        missing = {k: v for k, v in defaults.items() if getattr(config, k) is None}
        config = dataclasses.replace(config, **missing)
        _between("alpha", config.alpha, 0, 1)
        _between("learning_rate", config.learning_rate, 0, math.inf, open_low=True)
        _between("loss_scale", config.loss_scale, 0, math.inf, open_low=True)
        return config

    def _check_slim_widths(self, widths, width):
        text = ",".join(map(str, widths))
        if not all(a > b for a, b in zip(widths, (*widths[1:], 0), strict=True)):
            raise ConfigError(
                "slim_widths", text, "must be above 0, each below the one before: 1.0,0.75,0.5"
            )
        if widths[0] != width:
            raise ConfigError("slim_widths", text, f"must begin with --width={width}, the widest")
        if len(widths) > 1 and not self.method.startswith("sacl"):
            raise ConfigError(
                "slim_widths", text, f"needs --method=sacl or sacl_xd; {self.method} has one width"
            )
        if len(widths) > 1 and self.slim_execution == "mask":
            raise ConfigError(
                "slim_execution", "mask", f"runs one width; --slim_widths={text} needs slice"
            )

    def check_replicas(self, count):
        """Raises ConfigError if these settings cannot be trained on so many replicas."""
        if count == 1:
            return
        if self.batch_size % count or self.batch_size < 2 * count:
            raise ConfigError(
                "batch_size", self.batch_size,
                f"must be a multiple of the {count} replicas, and at least 2 for each",
            )  # fmt: skip
        if self.mixed_precision == "float16":
            # Keras' loss scaling looks for infinities on one replica alone.
            raise ConfigError(
                "mixed_precision", "float16", f"needs one replica, not {count}; take bfloat16"
            )
        if self.jit_compile == "true":
            raise ConfigError("jit_compile", "true", f"needs one replica, not {count}")

    def differences(self, other):
        """Names of the settings that differ and that a resumed run may not change."""
        return [
            field.name
            for field in dataclasses.fields(self)
            if field.name not in _FREE_ON_RESUME
            and getattr(self, field.name) != getattr(other, field.name)
        ]

    @classmethod
    def from_flag_lines(cls, text):
        """The validated configuration that `flag_lines` was written from.

        Args:
            text: Contents of a run's flags.txt.

        Raises:
            ConfigError: On a setting that this version does not have, or a value that cannot
                work.
        """
        fields = {field.name: field for field in dataclasses.fields(cls)}
        values = {}
        for line in filter(None, map(str.strip, text.splitlines())):
            name, equals, value = line.removeprefix("--").partition("=")
            if name not in fields and not equals and name.removeprefix("no") in fields:
                name, value = name.removeprefix("no"), "false"
            if name not in fields:
                raise ConfigError(name, value, "is no setting of this version of keras_sacl")
            values[name] = _parsed(fields[name], value)
        return cls(**values).validated()

    def flag_lines(self):
        """The lines of a flagfile that reproduces this configuration."""
        lines = []
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if value is None or value == () or field.name in ("resume", "overwrite"):
                continue
            if isinstance(value, bool):
                lines.append(f"--{field.name}" if value else f"--no{field.name}")
            else:
                value = ",".join(map(str, value)) if isinstance(value, tuple) else value
                lines.append(f"--{field.name}={value}")
        return lines


def _parsed(field, text):
    """The value of a setting from its text, as `flag_lines` writes it."""
    kind = field.type
    if isinstance(kind, types.UnionType):
        kind = typing.get_args(kind)[0]
    if kind is bool:
        return text != "false"
    if kind is tuple:
        return tuple(text.split(","))
    try:
        return kind(text)
    except ValueError as error:
        raise ConfigError(field.name, text, f"is no {kind.__name__}") from error


def _widths(values):
    try:
        return tuple(map(float, values))
    except ValueError as error:
        text = ",".join(map(str, values))
        raise ConfigError("slim_widths", text, "must be numbers such as 1.0,0.75,0.5") from error


def _member(flag, value, allowed):
    if value not in allowed:
        close = difflib.get_close_matches(str(value), allowed, n=1)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise ConfigError(flag, value, f"must be one of {', '.join(allowed)}{hint}")


def _members(flag, values, allowed):
    if not values:
        raise ConfigError(flag, "", f"must name at least one of {', '.join(allowed)}")
    for value in values:
        _member(flag, value, allowed)


def _between(flag, value, low, high, open_low=False):
    # Written so that NaN fails; infinity is no setting either.
    if not (low <= value <= high) or (open_low and value == low) or math.isinf(value):
        bound = f"above {low}" if open_low else f"at least {low}"
        limit = "" if math.isinf(high) else f" and at most {high}"
        raise ConfigError(flag, value, f"must be {bound}{limit}")
