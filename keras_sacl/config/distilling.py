"""The settings of distillation: what goes with what."""

from keras_sacl.config.settings import ConfigError, check_layer_widths, check_member

OBJECTIVE_NAMES = (
    "disco", "seed", "compress_1q", "compress_2q", "at", "rkd", "reg", "reg_bn", "cc", "crd"
)  # fmt: skip


def objective_weights(config):
    """--distill as a dict from objective to weight.

    Raises:
        ConfigError: On an unknown objective, one named twice, or a weight that is none.
    """
    weights = {}
    for text in config.distill:
        name, colon, weight = text.partition(":")
        check_member("distill", name, OBJECTIVE_NAMES)
        try:
            number = float(weight) if colon else 1.0
        except ValueError:
            number = 0.0
        if not 0 < number < float("inf"):
            raise ConfigError("distill", text, "must be NAME:WEIGHT, such as disco:1.0,rkd:0.5")
        if name in weights:
            raise ConfigError("distill", ",".join(config.distill), f"names {name} twice")
        weights[name] = number
    return weights


def check(config):
    """Raises ConfigError if the settings of distillation do not go together."""
    text = ",".join(config.distill)
    weights = objective_weights(config)
    if config.method == "distill" and not weights:
        raise ConfigError("method", "distill", "needs --distill, such as --distill=seed:1.0")
    if weights and config.teacher is None:
        raise ConfigError("distill", text, "needs --teacher: a .keras file, a run directory, ...")
    if config.teacher is not None and not weights:
        raise ConfigError("teacher", config.teacher, "needs --distill, such as --distill=disco:1.0")
    if len(config.widths) > 1 and weights:
        raise ConfigError("distill", text, "trains one width; leave --slim_widths out")
    from keras_sacl.encoders import TRANSFORMERS

    if "at" in weights and config.encoder in TRANSFORMERS:
        raise ConfigError("distill", text, f"{config.encoder} has no maps")
    if config.slims:
        for name in {"at", "compress_2q"} & weights.keys():
            raise ConfigError(
                "distill", text,
                f"{name} looks into one network; --method={config.method} has a host and a slim "
                "one",
            )  # fmt: skip
    if config.cache_teacher:
        _check_cache(config, text, weights)
    if config.teacher_projector is not None:
        check_layer_widths("teacher_projector", config.teacher_projector)
    if config.strategy == "multi_worker" and "cc" in weights:
        raise ConfigError(
            "distill", text, "cc finds its clusters in one process; multi_worker has several"
        )


def _check_cache(config, text, weights):
    if not weights:
        raise ConfigError("cache_teacher", True, "needs --distill and --teacher")
    if "at" in weights:
        raise ConfigError(
            "distill", text, "at compares maps, which --cache_teacher does not keep; leave one out"
        )
    if config.strategy == "multi_worker":
        raise ConfigError(
            "cache_teacher", True, "is written by one process; --strategy=multi_worker has several"
        )
    if config.data_service is not None:
        raise ConfigError(
            "cache_teacher", True, "lies on this machine; --data_service makes the views elsewhere"
        )
