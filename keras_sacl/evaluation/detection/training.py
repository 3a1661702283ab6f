"""A detector in training, and how well it detects."""

import math
import warnings

import keras
import numpy as np
import tensorflow as tf

from keras_sacl.evaluation.detection.data import evaluation_batches, training_batches
from keras_sacl.evaluation.detection.voc_ap import mean_over_classes, voc_average_precision
from keras_sacl.optim import AdamW, WarmupCosine

DETECTION_PROTOCOL = "retinanet-squash-flip-adamw-ap50-v1"
_WARMUP = 0.1  # of all steps
_WEIGHT_DECAY = 1e-4
_CLIP = 10.0
_REPORTS = 10
_EVALUATION_BATCH = 16


class Diverged(RuntimeError):
    """The loss is not finite any more."""


def train_detector(
    detector,
    source,
    *,
    steps,
    batch_size=16,
    learning_rate=5e-4,
    freeze_backbone=False,
    seed=0,
    say=print,
):
    """Trains a detector: AdamW, a tenth of the steps of warm-up, then a cosine.

    The backbone's batch normalisation learns along, as MoCo's transfer to VOC does ("Momentum
    Contrast for Unsupervised Visual Representation Learning", 2020): a pretrained encoder's
    statistics are not those of larger images.

    Args:
        detector: As `build_detector` gives it.
        source: `DetectionSource` to train on.
        steps: Number of steps.
        batch_size: Images per step.
        learning_rate: The peak, reached after the warm-up.
        freeze_backbone: Whether weights and moving statistics of the backbone stay as they are.
        seed: Of order and mirroring of the images.
        say: Called with a line for the user, ten times.

    Returns:
        The losses of all steps, float64 (steps,).

    Raises:
        ValueError: If a number is out of range.
        Diverged: If a loss is not finite.
    """
    import keras_cv

    if not 0 < learning_rate < math.inf:
        raise ValueError(
            f"`learning_rate` must be above 0. Received: learning_rate={learning_rate}"
        )
    data = training_batches(
        source, image_size=_image_size(detector), batch_size=batch_size, steps=steps, seed=seed
    )
    # Both: the backbone's layers lie in the extractor that keras-cv made of it.
    detector.backbone.trainable = not freeze_backbone
    detector.feature_extractor.trainable = not freeze_backbone
    schedule = WarmupCosine(
        learning_rate, warmup_steps=int(_WARMUP * steps), total_steps=max(steps, 1)
    )
    detector.compile(
        optimizer=AdamW(schedule, weight_decay=_WEIGHT_DECAY, global_clipnorm=_CLIP),
        classification_loss=keras_cv.losses.FocalLoss(
            alpha=0.25, gamma=2.0, from_logits=True, reduction="sum"
        ),
        box_loss=keras_cv.losses.SmoothL1Loss(l1_cutoff=1.0, reduction="sum"),
        # keras-cv's matching and the small maps gain nothing from XLA, which is slow on a CPU.
        jit_compile=False,
    )
    log = _LossLog(steps, say)
    with warnings.catch_warnings():
        # keras-cv names its input and then wants the images without the name.
        warnings.filterwarnings("ignore", message="The structure of `inputs`")
        detector.fit(data, steps_per_epoch=steps, verbose=0, shuffle=False, callbacks=[log])
    return np.array(log.losses)


def evaluate_detector(detector, source, *, batch_size=_EVALUATION_BATCH):
    """Average precision at an overlap of 0.5, as VOC defines it.

    Overlaps do not depend on how an image was stretched, so that boxes are compared as shares of
    its height and width.

    Args:
        detector: As `build_detector` gives it.
        source: `DetectionSource` to test on.
        batch_size: Images per batch.

    Returns:
        A dict: ap50_11point and ap50_area, means over the classes with objects, in [0, 1];
        classes, a dict from class name to ap50_11point, ap50_area (None without objects) and
        objects, the number to be found; num_images; protocol.

    Raises:
        ValueError: If `batch_size` is less than 1.
    """
    found = detect(detector, source, batch_size=batch_size)
    scores = voc_average_precision(found, source.truths, len(source.class_names))
    classes = {
        name: {
            "ap50_11point": _or_none(scores["11point"][i]),
            "ap50_area": _or_none(scores["area"][i]),
            "objects": int(scores["objects"][i]),
        }
        for i, name in enumerate(source.class_names)
    }
    return {
        "protocol": DETECTION_PROTOCOL,
        "ap50_11point": mean_over_classes(scores["11point"]),
        "ap50_area": mean_over_classes(scores["area"]),
        "num_images": len(source),
        "classes": classes,
    }


def detect(detector, source, *, batch_size=_EVALUATION_BATCH):
    """What a detector finds in each image.

    Args:
        detector, source, batch_size: As in `evaluate_detector`.

    Returns:
        A list of (boxes, scores, classes), by falling score: float32 (D, 4), y1, x1, y2, x2 in
        [0, 1], float32 (D,) in [0, 1] and int64 (D,); D is 100 at most.

    Raises:
        ValueError: If `batch_size` is less than 1.
    """
    size = _image_size(detector)

    @tf.function(input_signature=[tf.TensorSpec((None, size, size, 3), tf.float32)])
    def decode(images):
        outputs = detector({"images": images}, training=False)
        return detector.decode_predictions(outputs, images)

    rows = []
    for images in evaluation_batches(source, image_size=size, batch_size=batch_size):
        found = {key: value.numpy() for key, value in decode(images).items()}
        for i, count in enumerate(found["num_detections"]):
            boxes = np.clip(found["boxes"][i, :count] / size, 0, 1)[:, [1, 0, 3, 2]]
            scores = found["confidence"][i, :count]
            rows.append((boxes, scores, found["classes"][i, :count].astype("int64")))
    return rows


class _LossLog(keras.callbacks.Callback):
    def __init__(self, steps, say):
        super().__init__()
        self.steps, self.say, self.losses = steps, say, []

    def on_train_batch_end(self, batch, logs=None):
        self.losses.append(logs["loss"])
        self.model.reset_metrics()  # or Keras would log the mean since the first step
        if not math.isfinite(logs["loss"]):
            raise Diverged(
                f"the loss of step {batch + 1} is not finite; a lower `learning_rate` may help"
            )
        every = max(1, self.steps // _REPORTS)
        if (batch + 1) % every == 0:
            recent = np.mean(self.losses[-every:])
            self.say(f"step {batch + 1} of {self.steps}: loss {recent:.3f}")


def _image_size(detector):
    return detector.backbone.input_shape[1]


def _or_none(value):
    return float(value) if np.isfinite(value) else None
