"""`RunConfig`: the settings of a run."""

import dataclasses
import math

from keras_sacl.config import defaults, distilling
from keras_sacl.config.method_fields import MethodFields
from keras_sacl.config.product_fields import ProductFields
from keras_sacl.config.run_fields import RunFields
from keras_sacl.config.settings import (
    ConfigError,
    check_between,
    check_layer_widths,
    check_setting,
    flag_and_value,
    numbers,
    parsed,
)
from keras_sacl.config.training_fields import TrainingFields


@dataclasses.dataclass(frozen=True)
class RunConfig(ProductFields, TrainingFields, MethodFields, RunFields):
    """The settings of a run; `train.py` makes one flag of each field."""

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
        return defaults.WITHOUT_SLIMMING[self.method]

    @property
    def dense_epochs(self):
        """Epochs at the start in which the host is trained alone."""
        return (self.slim_start_epoch or 0) if self.slims else 0

    @property
    def alone_epochs(self):
        """Epochs at the end in which the slim network is trained alone."""
        return (self.slim_alone_epochs or 0) if self.slims else 0

    @property
    def last_epoch(self):
        """The epochs that are trained: --stop_epoch, or all."""
        return self.stop_epoch or self.epochs

    @property
    def phases(self):
        """Of the epochs that are trained those of the host alone, of both, of the slim network."""
        slim = max(0, self.last_epoch - (self.epochs - self.alone_epochs))
        return self.dense_epochs, self.last_epoch - self.dense_epochs - slim, slim

    @property
    def phase_ends(self):
        """The epochs after which other networks train than before, in order."""
        found = (self.dense_epochs, self.epochs - self.alone_epochs)
        return tuple(epoch for epoch in found if 0 < epoch < self.last_epoch)

    def validated(self):
        """This configuration with the defaults that hang on others filled in.

        Raises:
            ConfigError: On the first setting that cannot work.
        """
        for field in dataclasses.fields(self):
            check_setting(field, getattr(self, field.name))
        self._check_run()
        slim_widths = numbers("slim_widths", self.slim_widths, "1.0,0.75,0.5")
        # As floats, since widths are keys of what is recorded: 1.0, and not 1.
        width = (*slim_widths, 1.0)[0] if self.width is None else float(self.width)
        if slim_widths:
            self._check_slim_widths(slim_widths, width)
        host_width = self.host_width
        if host_width is None:
            host_width = 1.5 * width if self.method.startswith("sacl") else width
        if not (math.isfinite(host_width) and host_width >= width):
            raise ConfigError(
                "host_width", host_width, f"must be at least --width={width} (K x width)"
            )
        config = dataclasses.replace(
            self,
            width=width,
            slim_widths=slim_widths,
            host_width=float(host_width),
            drop_epochs=numbers("drop_epochs", self.drop_epochs, "90,120"),
        )
        start, alone = self.epochs // 3, 0
        if config._contrasts_its_own:
            start, alone = 0, self.epochs // 2
        # One that is given takes from the default of the other: both train for an epoch at least.
        alone = max(0, min(alone, self.epochs - 1 - (self.slim_start_epoch or 0)))
        start = max(0, min(start, self.epochs - 1 - (self.slim_alone_epochs or 0)))
        missing = {
            "learning_rate": defaults.LEARNING_RATES[self.optimizer],
            "loss_scale": (
                defaults.LOSS_SCALES[self.optimizer] if self.method in defaults.CORRELATING else 1.0
            ),
            "slim_start_epoch": start if config.slims else None,
            "slim_alone_epochs": alone if config.slims else None,
            "temperature": defaults.TEMPERATURES.get(self.method),
        }
        if self.method != "distill":
            missing["projector"] = defaults.PROJECTORS.get(self.method, defaults.PROJECTOR)
            missing["projector_batch_norm"] = self.method != "moco_v2"
            missing["lambd"] = config._lambd(self.projector or missing["projector"])
        if self.small_views:
            missing["small_size"] = max(8, round(self.image_size * 3 / 7))
        missing = {k: v for k, v in missing.items() if getattr(config, k) is None}
        config = dataclasses.replace(config, **missing)
        config._check_method()
        config._check_schedule()
        distilling.check(config)
        return config

    def _lambd(self, projector):
        """The default of lambd with a projector; None where the method has no such loss."""
        from keras_sacl.heads import parse_projector
        from keras_sacl.losses import DEFAULT_LAMBD
        from keras_sacl.methods.xd import default_lambd

        if self.effective_method in ("xd", "sacl_xd"):
            dimensions = parse_projector(projector)[-1]
            return default_lambd(dimensions, self.xd_pairs, self.xd_form)
        return DEFAULT_LAMBD if self.method in defaults.CORRELATING else None

    @property
    def _contrasts_its_own(self):
        return self.effective_method == "sacl_xd" and self.sacl_contrast == "own"

    def _check_run(self):
        if not self.run_dir:
            raise ConfigError("run_dir", self.run_dir, "name a directory")
        if self.resume and self.overwrite:
            raise ConfigError("overwrite", True, "cannot be combined with --resume; choose one")
        if self.data_service is not None and "://" not in self.data_service:
            raise ConfigError(
                "data_service", self.data_service, "must be an address such as grpc://HOST:5000"
            )
        if self.replicas is not None:
            self.check_replicas(self.replicas)
        if self.eval_encoder is not None and self.stages != ("evaluate",):
            raise ConfigError("eval_encoder", self.eval_encoder, "needs --stages=evaluate")
        given = f"--epochs={self.epochs}"
        check_between("warmup_epochs", self.warmup_epochs, 0, self.epochs, given=given)
        if self.projector is not None:
            check_layer_widths("projector", self.projector)

    def _check_method(self):
        from keras_sacl.encoders import FIXED_SIZE, TRANSFORMERS
        from keras_sacl.methods.sacl import ACROSS_ONLY

        if self.small_views and self.method != "swav":
            raise ConfigError("small_views", self.small_views, "needs --method=swav")
        if self.small_views and self.encoder in FIXED_SIZE:
            raise ConfigError(
                "small_views", self.small_views, f"{self.encoder} takes images of one size"
            )
        if self.activation != "default" and self.encoder in TRANSFORMERS:
            raise ConfigError(
                "activation", self.activation, f"{self.encoder} has no ReLU, swish or hard-swish"
            )
        if self.slim_execution == "mask" and self.slims and self.encoder in TRANSFORMERS:
            raise ConfigError(
                "slim_execution", "mask", f"{self.encoder} has norms over channels; take slice"
            )
        groups = self.batch_norm_groups
        if self._splits_batch and (self.batch_size % groups or self.batch_size < 2 * groups):
            raise ConfigError(
                "batch_norm_groups", groups,
                f"must divide --batch_size={self.batch_size} into groups of at least 2",
            )  # fmt: skip
        for name, value in ACROSS_ONLY.items():
            if self._contrasts_its_own and getattr(self, name) == value:
                raise ConfigError(name, value, "needs --sacl_contrast=across")
        dense, epochs, given = self.dense_epochs, self.epochs, f"--epochs={self.epochs}"
        check_between("slim_start_epoch", dense, 0, epochs - 1, given=given)
        if dense:
            given += f", --slim_start_epoch={dense}"
        check_between("slim_alone_epochs", self.alone_epochs, 0, epochs - dense - 1, given=given)
        # While the host is alone there is no slim network yet that could be deployed.
        check_between("stop_epoch", self.last_epoch, dense + 1, epochs, given=given)
        if self.init_from is not None and self.slims:
            raise ConfigError(
                "init_from", self.init_from,
                "starts one network, not a host and its slim network; leave it out, or take "
                "--method=xd",
            )  # fmt: skip

    def _check_schedule(self):
        drops = ",".join(map(str, self.drop_epochs))
        if (self.schedule == "steps") != bool(self.drop_epochs):
            raise ConfigError("drop_epochs", drops, "goes with --schedule=steps, such as 90,120")
        if not all(0 < epoch < self.epochs for epoch in self.drop_epochs):
            raise ConfigError("drop_epochs", drops, f"must lie within the {self.epochs} epochs")
        if list(self.drop_epochs) != sorted(self.drop_epochs):
            raise ConfigError("drop_epochs", drops, "must rise, such as 90,120")

    @property
    def _splits_batch(self):
        return self.method == "moco_v2" and self.key_batch_norm == "split"

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
        if self.method == "moco_v2" and self.key_batch_norm == "shuffle" and count == 1:
            raise ConfigError(
                "key_batch_norm", "shuffle", "is sync on one replica; take split, or --replicas"
            )
        if self._splits_batch and self.batch_norm_groups % count:
            raise ConfigError(
                "batch_norm_groups", self.batch_norm_groups,
                f"must be a multiple of the {count} replicas",
            )  # fmt: skip
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

    def set_by_version(self):
        """Names of the settings with an effect here that earlier versions did not have."""
        of = {field.name: field.metadata["of"] for field in dataclasses.fields(self)}
        return [name for name in defaults.EARLIER if self.effective_method in of[name]]

    def idle(self):
        """The settings that were given and have no effect: a dict from name to the reason."""
        found = {}
        for field in dataclasses.fields(self):
            of = field.metadata["of"]
            if getattr(self, field.name) == field.default:
                continue
            if field.name.startswith(("distill_", "teacher_")) and not self.distill:
                found[field.name] = "without --distill"
            elif of is not None and self.method not in of:
                found[field.name] = f"with --method={self.method}"
            elif of is not None and self.effective_method not in of:
                found[field.name] = "with --host_width equal to --width"
        return found

    def differences(self, other):
        """Names of the settings that differ and that a resumed run may not change."""
        # Each replica's statistics are its own there, so that their number matters.
        bound = {"replicas"} if self.key_batch_norm == "shuffle" else set()
        methods = {self.effective_method, other.effective_method}

        def binds(field):
            idle = field.metadata["of"] is not None and methods.isdisjoint(field.metadata["of"])
            return field.name in bound or not (field.metadata["free"] or idle)

        return [
            field.name
            for field in dataclasses.fields(self)
            if binds(field) and getattr(self, field.name) != getattr(other, field.name)
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
            name, value = flag_and_value(line, fields)
            if name not in fields:
                raise ConfigError(name, value, "is no setting of this version of keras_sacl")
            values[name] = parsed(fields[name], value)
        earlier = defaults.EARLIER
        config = cls(**{"sacl_contrast": earlier["sacl_contrast"], **values}).validated()
        schedule = {"slim_start_epoch", "slim_alone_epochs"} - values.keys()
        if config.slims:
            config = dataclasses.replace(config, **{name: earlier[name] for name in schedule})
        return config

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
