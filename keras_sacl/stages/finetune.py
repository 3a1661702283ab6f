"""Fine-tuning of the deployed encoder on labels, beside the same encoder from scratch."""

import dataclasses
import hashlib
import json
import math
import shutil
import time

import keras
import numpy as np

from keras_sacl import callbacks
from keras_sacl.data import get_preset, labelled_view_dataset, plain_batches
from keras_sacl.evaluation.features import inference
from keras_sacl.finetuning import Classifier, build_classifier
from keras_sacl.fingerprint import fingerprint
from keras_sacl.keras_files import save_keras
from keras_sacl.optim import SGD, WarmupCosine
from keras_sacl.stages.build import (
    build_networks,
    deployed_float32,
    jit_compile,
    steps_per_execution,
)
from keras_sacl.stages.inputs import finetuning_images, finetuning_teacher
from keras_sacl.stages.training import verbosity

_TEST_BATCH = 256
_MOST_PARTS = 10
# A mean loss above the first one, times this, means that the first steps overshot. MobileNet-V1
# at a rate of 0.05: 5 times, and 10 % top-1 in the end, where 0.02 gave 46 %.
_ROSE = 1.2
_SCOPES = {
    "full": "",
    "last_blocks": "; of the encoder the last resolution alone",
    "frozen": "; the linear layer alone",
}


def finetune(config, run_dir, say=print):
    """Trains encoder.keras with a linear layer on labels; writes classifier.keras.

    The setting of "Slimmed Asymmetrical Contrastive Learning and Cross Distillation for
    Lightweight Model Training" (NeurIPS 2023), supplement 1.4: 10,000 steps of 64 images by SGD,
    rate 0.1, no weight decay. Where it is silent, that of the work it follows, "How Well Do
    Self-Supervised Models Transfer?" (2021): Nesterov momentum 0.9, a cosine to 0, random crops
    and flips. Crops and flips are those of view A of --augmentation; images are of --image_size,
    which is what the encoder is built for (the paper: 224 px for both). In float32, on one device.

    --finetune_scope leaves the encoder, or all but its last resolution, as it is: weights and
    moving statistics. In the saved file all layers are trainable again: the protocol says what was
    trained, and whoever goes on training the file decides for themselves.

    With --resume an interrupted fine-tuning goes on at the last part that it had ended: a tenth,
    where the steps are a multiple of ten.

    Args:
        config: A validated `RunConfig`.
        run_dir: A `RunDir` with encoder.keras.
        say: Called with lines for the user.

    Returns:
        The result that was put into results.json, behind those of other settings.

    Raises:
        ConfigError: If there are no labels, or the teacher does not suit them.
        TrainingStopped: If the fine-tuning of the pretrained encoder diverged; that is recorded.
    """
    started = time.perf_counter()
    train, test, classes = finetuning_images(config)
    teacher = None if config.finetune_teacher is None else finetuning_teacher(config)
    teacher_top1 = None if teacher is None else _top1(teacher, test, config)
    describe(config, train, classes, say)
    encoders = {"pretrained": run_dir.load_encoder}
    if config.finetune_baseline:
        # The deployed encoder at step 0 of this very run: same seed, same slices.
        encoders["from scratch"] = lambda: deployed_float32(build_networks(config)[0], config)
    networks, top1, diverged, left = {}, {}, {}, []
    for name, encoder in encoders.items():
        network = build_classifier(encoder(), classes, config.finetune_scope)
        folder = run_dir.checkpoints / f"finetune-{_key(config, network, teacher)}"
        left.append(folder)
        say(f"fine-tuning: {name}")
        try:
            train_classifier(config, network, teacher, train, folder, say)
            top1[name] = _top1(network, test, config)
            networks[name] = network
        except callbacks.TrainingStopped as stopped:
            diverged[name] = str(stopped)
            say(f"fine-tuning, {name}: {stopped}")
    done = "pretrained" in networks
    if done:
        for layer in networks["pretrained"].layers:  # Keras ignores it of a model that says so
            layer.trainable = True
        save_keras(networks["pretrained"], run_dir.classifier)
    result = {
        "protocol": protocol(config),
        "dataset": config.eval_dataset or config.dataset,
        "scope": config.finetune_scope,
        "label_share": config.finetune_labels,
        "num_train": len(train),
        "num_test": len(test),
        "num_classes": classes,
        "image_size": config.image_size,
        "augmentation": config.augmentation,
        "seed": config.seed,
        "top1": top1.get("pretrained"),
        "top1_from_scratch": top1.get("from scratch"),
        "teacher": config.finetune_teacher,
        "teacher_top1": teacher_top1,
        "seconds": round(time.perf_counter() - started, 1),
        "diverged": diverged,
        "classifier": run_dir.classifier.name if done else None,
    }
    run_dir.record("finetune", _beside(run_dir.results().get("finetune", []), result))
    for folder in left:
        shutil.rmtree(folder, ignore_errors=True)
    if not done:
        raise callbacks.TrainingStopped(f"fine-tuning: {diverged['pretrained']}")
    return result


def protocol(config):
    """The name of what is measured, with every setting that differs from run to run."""
    parts = [
        "finetune", "sgd", f"lr{config.finetune_learning_rate:g}", f"{config.finetune_steps}steps",
        f"b{config.finetune_batch_size}",
    ]  # fmt: skip
    if config.finetune_weight_decay:
        parts.append(f"wd{config.finetune_weight_decay:g}")
    if config.finetune_scope != "full":
        parts.append(config.finetune_scope.replace("_", "-"))
    if config.finetune_labels < 1:
        parts.append(f"{100 * config.finetune_labels:g}pct")
    if config.finetune_teacher is not None:
        parts.append(f"kd{config.kd_weight:g}-t{config.kd_temperature:g}")
    return "-".join([*parts, "v1"])


def describe(config, train, classes, say):
    """Says in a few lines what will be trained on what."""
    share = "" if config.finetune_labels == 1 else f" ({config.finetune_labels:.3g} of all)"
    taught, scope = "", _SCOPES[config.finetune_scope]
    if config.finetune_teacher is not None:
        taught = f", taught by {config.finetune_teacher}"
    say(
        f"fine-tuning on {len(train)} labelled images{share} of {classes} classes, "
        f"{config.image_size} px, crops and flips of --augmentation={config.augmentation}, "
        f"{config.finetune_steps} steps of {config.finetune_batch_size}{taught}{scope}"
    )
    if len(train) < config.finetune_batch_size:
        say(
            f"fewer labelled images than --finetune_batch_size={config.finetune_batch_size}: each "
            "comes several times in a batch, by other crops"
        )


def train_classifier(config, network, teacher, train, folder, say):
    """Fine-tunes a network to the end, with a checkpoint after each of up to ten equal parts.

    Args:
        config: A validated `RunConfig`; resumes from `folder` if it says so.
        network: A `keras.Model`, images to logits; it is changed.
        teacher: A `keras.Model` of that kind, or None.
        train: Labelled `ImageSource`.
        folder: Where the checkpoints go.
        say: Called with lines for the user.

    Raises:
        TrainingStopped: If the loss or a weight is not finite.
    """
    steps = config.finetune_steps
    # Whole parts, so that each has an end: it is what progress, checkpoints and `fit` go by.
    parts = max(n for n in range(1, _MOST_PARTS + 1) if steps % n == 0)
    model = Classifier(network, teacher, config.kd_temperature, config.kd_weight)
    rate = WarmupCosine(config.finetune_learning_rate, warmup_steps=0, total_steps=steps)
    decay = config.finetune_weight_decay or None
    model.compile(
        optimizer=SGD(rate, momentum=0.9, nesterov=True, weight_decay=decay),
        jit_compile=jit_compile(config),
        steps_per_execution=steps_per_execution(config, steps // parts),
    )
    checkpoint = callbacks.RunCheckpoint(folder, keep=1)
    if config.resume:
        checkpoint.restore(model, warn=say)
        say(f"resuming after step {checkpoint.step} of {steps}")
    else:
        shutil.rmtree(folder, ignore_errors=True)
    if checkpoint.step == steps:
        return
    views = labelled_view_dataset(
        _whole_batch(train, config.finetune_batch_size),
        _geometry(config),
        image_size=config.image_size,
        batch_size=config.finetune_batch_size,
        seed=config.seed,
        steps=steps,
        start_step=checkpoint.step,
    )
    # Of a head of zeros; with a teacher the loss begins anywhere.
    start = math.log(network.output_shape[-1]) if teacher is None else math.inf
    model.fit(
        views,
        epochs=parts,
        initial_epoch=checkpoint.step * parts // steps,
        steps_per_epoch=steps // parts,
        # The guard stands before what writes: a bad state is not saved.
        callbacks=[_Guard(start, say), checkpoint],
        shuffle=False,  # the data comes in its order
        verbose=verbosity(config.verbose),
    )


class _Guard(keras.callbacks.Callback):
    """Stops when the loss is not finite, and warns when it rose, with advice that fits."""

    def __init__(self, start, say):
        super().__init__()
        self._start, self._say = start, say

    def on_train_batch_end(self, batch, logs=None):
        # Reading the logs makes the accelerator wait for the host, so not every step. A NaN stays
        # in the mean that the logs are, so none is missed.
        if (batch + 1) % 50 == 0:
            self._require(logs)

    def on_epoch_end(self, epoch, logs=None):
        self._require(logs)
        loss = (logs or {}).get("loss", 0.0)
        if epoch == 0 and loss > _ROSE * self._start:
            self._say(
                f"the loss is {loss:.1f} on average, and began at {self._start:.1f}: a lower "
                "--finetune_learning_rate usually helps"
            )

    def _require(self, logs):
        loss = (logs or {}).get("loss", 0.0)
        if not math.isfinite(loss):
            step = int(self.model.optimizer.iterations.numpy())
            raise callbacks.TrainingStopped(
                f"the loss is {loss:g} by step {step}; a lower --finetune_learning_rate usually "
                "helps"
            )


def _geometry(config):
    """Crop and flip of view A of --augmentation, and nothing else."""
    preset = get_preset(config.augmentation)[0]
    return dataclasses.replace(preset, jitter=0.0, grayscale=0.0, blur=0.0, solarize=0.0)


def _whole_batch(source, batch_size):
    """A source of at least a batch: each image of a smaller one comes equally often."""
    times = math.ceil(batch_size / len(source))
    return source if times == 1 else source.select(np.tile(np.arange(len(source)), times))


def _top1(network, test, config):
    """Top-1 accuracy on labelled images, a float in [0, 1]."""
    logits_of, right = inference(network), 0
    settings = {"image_size": config.image_size, "batch_size": _TEST_BATCH}
    for images, labels in plain_batches(test, **settings):
        logits = np.asarray(logits_of(images))
        if not np.isfinite(logits).all():
            raise callbacks.TrainingStopped(
                "the logits of test images are not finite; a lower --finetune_learning_rate "
                "usually helps"
            )
        right += int((logits.argmax(axis=1) == labels.numpy()).sum())
    return right / len(test)


def _key(config, network, teacher):
    """A name for checkpoints of one fine-tuning: that of another one must not be resumed."""
    settings = {
        name: getattr(config, name)
        for name in (
            "seed", "image_size", "augmentation", "dataset", "data_dir", "train_split",
            "eval_dataset", "eval_train_split", "activation",
        )
    }  # fmt: skip
    networks = [fingerprint(network), None if teacher is None else fingerprint(teacher)]
    text = json.dumps([protocol(config), config.finetune_labels, settings, networks])
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _beside(earlier, result):
    """All results, the newest last; it takes the place of one of the same setting."""
    same = ("protocol", "dataset", "num_train", "num_test", "teacher")
    kept = [row for row in earlier if any(row[name] != result[name] for name in same)]
    if result["classifier"]:  # the file of the others is overwritten
        kept = [{**row, "classifier": None} for row in kept]
    return [*kept, result]
