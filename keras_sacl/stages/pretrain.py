"""Pretraining: unlabelled images in, encoder.keras out; of several widths, a file of each."""

import collections
import time

from keras_sacl import callbacks, losses
from keras_sacl.keras_files import save_keras
from keras_sacl.precision import with_precision
from keras_sacl.stages.build import deployed_float32
from keras_sacl.stages.environment import environment
from keras_sacl.stages.inputs import training_images
from keras_sacl.stages.training import Training, has_gpu

# Of the level of chance. On CIFAR-10 a run that had learned nothing ended at 0.95 of it (Barlow
# Twins, lambda 0.03), and the highest end of one that had learned was 0.83 (XD, lambda 0.1).
_LITTLE = 0.9


def pretrain(config, run_dir, say=print):
    """Trains the method of `config`, resuming from the newest checkpoint if there is one.

    Args:
        config: A validated `RunConfig`.
        run_dir: A started `RunDir`.
        say: Called with lines for the user.

    Returns:
        The result that went into results.json; None on the workers behind the first.

    Raises:
        ConfigError: If the images do not suit the settings.
        TrainingStopped: If the guard stopped training.
    """
    source = training_images(config)
    training = Training(config, run_dir, source, say)
    if config.resume:
        training.resume()
    describe(config, training.method, source, training.steps, say)
    started = time.perf_counter()
    training.run()
    if config.last_epoch < config.epochs:
        say(
            f"ended after epoch {config.last_epoch} of {config.epochs}, as --stop_epoch says; "
            "--resume with a later one goes on"
        )
    if not training.first:
        return None
    method = training.method
    parameters = {}
    for width, path in run_dir.encoders(config.widths).items():
        encoder = deployed_float32(method.encoder, config, width)
        save_keras(encoder, path)
        parameters[str(width)] = encoder.count_params()
    if method.projector is not None:
        save_keras(with_precision(method.projector, "float32"), run_dir.projector)
    lines = callbacks.read_metrics(run_dir.metrics)
    result = {
        "method": config.effective_method,
        "images": len(source),
        "skipped_images": [{"path": str(p), "reason": r} for p, r in source.skipped],
        "skipped_by_reason": collections.Counter(reason for _, reason in source.skipped),
        "epochs": config.last_epoch,
        "steps": training.step,
        "deployed_parameters": parameters[str(config.width)],
        "parameters_by_width": parameters if len(parameters) > 1 else None,
        "host_parameters": method.encoder.host.count_params() if config.slims else None,
        "seconds": round(sum(line["seconds"] for line in lines), 1),
        "seconds_of_this_process": round(time.perf_counter() - started, 1),
        "final": lines[-1] if lines else None,
    }
    _say_if_little_was_learned(config, method, result["final"] or {}, say)
    run_dir.record("environment", environment())
    run_dir.record("pretrain", result)
    return result


def _say_if_little_was_learned(config, method, final, say):
    if "barlow_twins" not in final:
        return
    dimensions = method.projector.output_shape[-1]
    chance = losses.barlow_twins_by_chance(config.batch_size, dimensions, config.lambd)
    if final["barlow_twins"] > _LITTLE * chance:
        say(
            f"little was learned: barlow_twins is {final['barlow_twins']:.0f}, and would be "
            f"{chance:.0f} if the views had nothing to do with each other; a smaller --lambd (it "
            f"is {config.lambd:g}) or more steps usually help"
        )


def describe(config, method, source, steps, say):
    """Says in a few lines what will be trained, and what of the flags has no effect."""
    if source.skipped:
        counts = collections.Counter(reason for _, reason in source.skipped).most_common()
        kinds = ", ".join(f"{count} {reason}" for reason, count in counts)
        say(
            f"skipped {len(source.skipped)} files ({kinds}), the first: {source.skipped[0][0]}; "
            "all are named in results.json"
        )
    if config.method.startswith("sacl") and not config.slims:
        say(
            f"--host_width equals --width: nothing to slim, {config.method} is then "
            f"{config.effective_method}"
        )
    elif not config.method.startswith("sacl") and config.host_width != config.width:
        say(f"--host_width has no effect: {config.method} trains the deployed width alone")
    for name, reason in config.idle().items():
        say(f"--{name} has no effect {reason}")
    queue = getattr(method, "queue", None)
    if queue is not None and queue.size > len(source):
        say(
            f"--queue_size={queue.size} is more than the {len(source)} images: each has keys of "
            "its own among its negatives"
        )
    if config.jit_compile == "true" and not has_gpu():
        say("--jit_compile=true: XLA on a CPU usually makes this step several times slower")
    widths = f"width {config.width:g}"
    if len(config.widths) > 1:
        listed = ", ".join(f"{width:g}" for width in config.widths)
        widths = f"widths {listed} (one of them each step)"
    host = f", host width {config.host_width:g}" if config.slims else ""
    if config.dense_epochs:
        host += f", alone for {config.dense_epochs} epochs"
    if config.alone_epochs:
        host += f", until epoch {config.epochs - config.alone_epochs}"
    replicas = method.distribute_strategy.num_replicas_in_sync
    shared = f", shared by {replicas} replicas" if replicas > 1 else ""
    distilled = f" + {', '.join(config.distill)}" if config.distill else ""
    say(
        f"{config.effective_method}{distilled}: {config.encoder} {widths}{host}, "
        f"{config.image_size} px, {len(source)} images, {config.epochs} epochs of {steps} steps of "
        f"{config.batch_size}{shared}, {method.count_params():,} parameters in training"
    )
