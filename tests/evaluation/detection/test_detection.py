"""Detection transfer: backbone, geometry and training."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_sacl.encoders import build_encoder
from keras_sacl.evaluation import detection
from keras_sacl.evaluation.detection.data import (
    evaluation_batches,
    training_batches,
)
from keras_sacl.evaluation.detection.detector import pyramid_backbone, settle_statistics
from keras_sacl.evaluation.detection.voc_ap import overlaps, voc_average_precision
from keras_sacl.fingerprint import fingerprint
from tests.evaluation.detection.shapes import COLOURS, shapes

SIZE = 64
# TensorFlow's, of eager functions beside tf.data.
pytestmark = pytest.mark.filterwarnings("ignore:Even though the `tf.config")


def quiet(_):
    pass


def small_encoder(name="mobilenet_v1", image_size=SIZE, seed=0):
    keras.utils.set_random_seed(seed)
    return build_encoder(name, width=0.25, image_size=image_size)


@pytest.fixture(scope="module")
def encoder():
    return small_encoder()


def small_detector(encoder, image_size=SIZE, classes=3):
    keras.utils.set_random_seed(1)
    return detection.build_detector(encoder, classes, image_size, head_width=16)


# The backbone


@pytest.mark.long
@pytest.mark.parametrize(
    "name, layer_names",
    [
        ("mobilenet_v1", ("conv_pw_5_relu", "conv_pw_11_relu", "conv_pw_13_relu")),
        ("mobilenet_v3_small", ("activation_2", "activation_12", "activation_18")),
        ("efficientnet_b0", ("block4a_expand_activation", "block6a_expand_activation",
                             "top_activation")),
        ("resnet50", ("stage2_block4_out", "stage3_block6_out", "stage4_block3_out")),
    ],
)  # fmt: skip
def test_the_maps_are_the_encoders_own(name, layer_names):
    """Those of the same encoder built for the size of the detector and given the weights."""
    encoder, size = small_encoder(name, 128), 160
    images = np.random.default_rng(0).normal(size=(2, size, size, 3)).astype("float32")
    whole = build_encoder(name, width=0.25, image_size=size)
    whole.set_weights(encoder.get_weights())
    expected = keras.Model(whole.inputs[0], [whole.get_layer(n).output for n in layer_names])(
        images
    )
    maps = pyramid_backbone(encoder, size)(images)
    for mine, theirs, stride in zip(maps, expected, (8, 16, 32), strict=True):
        assert mine.shape[1:3] == (size // stride, size // stride)
        scale = float(tf.reduce_max(tf.abs(theirs)))  # tiny before training
        assert scale > 0
        np.testing.assert_allclose(mine / scale, theirs / scale, atol=1e-5)


@pytest.mark.parametrize(
    "name, last, stride",
    [("mobilenet_v1", "conv_pw_13_relu", 16), ("resnet18", "stage4_block2_out", 8)],
)  # fmt: skip
def test_strides_that_a_small_image_stem_lacks_are_pooled(name, last, stride):
    encoder = small_encoder(name, 32)
    images = np.random.default_rng(0).normal(size=(2, 32, 32, 3)).astype("float32")
    whole = build_encoder(name, width=0.25, image_size=32)
    whole.set_weights(encoder.get_weights())
    deepest = keras.Model(whole.inputs[0], whole.get_layer(last).output)(images).numpy()
    # The encoder sees the image in the corner of one of twice the size: far from its border, the
    # map is the same.
    large = np.pad(images, [(0, 0), (0, 32), (0, 32), (0, 0)])
    maps = dict(zip((8, 16, 32), pyramid_backbone(encoder, SIZE)(large), strict=True))
    assert maps[stride].shape == (2, SIZE // stride, SIZE // stride, deepest.shape[-1])
    for coarser in (s for s in maps if s > stride):
        finer = maps[coarser // 2].numpy()
        batch, side, _, channels = finer.shape
        pooled = finer.reshape(batch, side // 2, 2, side // 2, 2, channels).max(axis=(2, 4))
        np.testing.assert_array_equal(maps[coarser], pooled)


def test_a_backbone_needs_maps():
    images = keras.Input((SIZE, SIZE, 3))
    patches = keras.layers.Conv2D(4, 16, strides=16)(images)
    patchified = keras.Model(images, keras.layers.GlobalAveragePooling2D()(patches), name="patches")
    with pytest.raises(ValueError, match=r"stride 8 or less. Received: encoder=patches .*\[16\]"):
        pyramid_backbone(patchified, SIZE)
    dense = keras.layers.Dense(2)(keras.layers.Flatten()(images))
    with pytest.raises(ValueError, match="`encoder` must be convolutional"):
        pyramid_backbone(keras.Model(images, dense, name="flat"), 2 * SIZE)
    pixels = keras.Input((SIZE, SIZE, 3), dtype="uint8")
    phone = keras.Model(pixels, keras.layers.Rescaling(1 / 255)(pixels), name="phone")
    with pytest.raises(ValueError, match="normalised float pixels.*Received: encoder=phone"):
        pyramid_backbone(phone, SIZE)
    with pytest.raises(ValueError, match="functional keras.Model with one input"):
        pyramid_backbone(_Subclassed(), SIZE)


class _Subclassed(keras.Model):
    pass


@pytest.mark.parametrize(
    "change, text",
    [({"image_size": 100}, "image_size=100"), ({"image_size": 32}, "image_size=32"),
     ({"num_classes": 0}, "num_classes=0"), ({"head_width": 0}, "head_width=0")],
)  # fmt: skip
def test_bad_numbers_are_named(encoder, change, text):
    settings = {"num_classes": 2, "image_size": SIZE, **change}
    with pytest.raises(ValueError, match=f"Received: {text}"):
        detection.build_detector(encoder, **settings)


def test_statistics_settle_to_the_mean_over_batches():
    encoder = small_encoder()
    before = [w.numpy() for w in encoder.trainable_variables]
    rng = np.random.default_rng(0)
    batches = [rng.normal(i, 1 + i, size=(4, SIZE, SIZE, 3)).astype("float32") for i in range(3)]
    settle_statistics(encoder, batches)
    first = next(la for la in encoder.layers if isinstance(la, keras.layers.BatchNormalization))
    maps = [keras.Model(encoder.inputs[0], first.input)(batch).numpy() for batch in batches]
    means = np.mean([m.mean(axis=(0, 1, 2)) for m in maps], axis=0)
    variances = np.mean([m.var(axis=(0, 1, 2)) for m in maps], axis=0)
    np.testing.assert_allclose(first.moving_mean, means, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(first.moving_variance, variances, rtol=1e-4)
    assert first.momentum == 0.9
    for variable, old in zip(encoder.trainable_variables, before, strict=True):
        np.testing.assert_array_equal(variable, old)


# The geometry


@pytest.mark.parametrize("image_size", [64, 96])
def test_perfect_predictions_have_average_precision_one(encoder, image_size):
    """The targets of training, given back as predictions: encoding and decoding agree."""
    source = shapes(8, seed=3)
    detector = small_detector(encoder, image_size)
    (images, marked), = training_batches(
        source, image_size=image_size, batch_size=8, steps=1, seed=0
    )  # fmt: skip
    boxes, classes = detector.label_encoder(images, marked)
    outputs = detector({"images": images})
    assert outputs["box"].shape == boxes.shape
    logits = np.where(np.arange(3) == classes.numpy()[..., None], 8.0, -8.0).astype("float32")
    decoded = detector.decode_predictions({"box": boxes, "classification": logits}, images)
    decoded = {key: value.numpy() for key, value in decoded.items()}
    found = [
        (decoded["boxes"][i, :n], decoded["confidence"][i, :n], decoded["classes"][i, :n])
        for i, n in enumerate(decoded["num_detections"])
    ]
    # Objects that no anchor overlaps by half are not trained on.
    best = [overlaps(_anchors(detector, image_size), b).max(axis=0) for b in marked["boxes"]]
    truths = [
        (b[c >= 0], c[c >= 0].astype(int), overlap[c >= 0] < 0.5)
        for b, c, overlap in zip(
            marked["boxes"].numpy(), marked["classes"].numpy(), best, strict=True
        )
    ]
    scores = voc_average_precision(found, truths, 3, iou_threshold=0.9)
    np.testing.assert_allclose(scores["area"], [1, 1, np.nan])
    assert scores["objects"].sum() > 6


def _anchors(detector, image_size):
    anchors = detector.anchor_generator(image_shape=(image_size, image_size, 3))
    return np.concatenate([level.numpy() for level in anchors.values()])


def test_boxes_lie_on_their_objects():
    """Also mirrored ones: at the centre of each box is the colour of its class."""
    source = shapes(8, seed=0)
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    plain, = evaluation_batches(source, image_size=SIZE, batch_size=8)  # fmt: skip
    seen = mirrored = 0
    for images, marked in training_batches(source, image_size=SIZE, batch_size=4, steps=6, seed=1):
        pixels = (images.numpy() * std + mean) * 255
        for image, raw, boxes, classes in zip(
            pixels, images.numpy(), marked["boxes"].numpy(), marked["classes"].numpy(), strict=True
        ):
            mirrored += any(np.array_equal(raw, p[:, ::-1]) for p in plain.numpy())
            seen += 1
            for (x1, y1, x2, y2), label in zip(boxes, classes, strict=True):
                if label < 0:
                    assert (x1, y1, x2, y2) == (-1, -1, -1, -1)
                    continue
                assert 0 <= x1 < x2 <= SIZE and 0 <= y1 < y2 <= SIZE
                colour = image[int((y1 + y2) / 2), int((x1 + x2) / 2)]
                np.testing.assert_allclose(colour, COLOURS[int(label)], atol=3)
                # An eighth of the box inward the rectangle is still red; outside nothing is.
                if label == 0:
                    row = image[int((y1 + y2) / 2)]
                    red = np.all(np.abs(row - COLOURS[0]) < 40, axis=-1)
                    assert red[math.ceil(x1 + 2) : int(x2 - 2)].all()
    assert seen == 24 and 4 <= mirrored <= 20


# Training


@pytest.fixture(scope="module")
def trained(encoder):
    """(encoder, its fingerprint before, detector, scores before, scores after, losses)."""
    before = fingerprint(encoder)
    detector = small_detector(encoder)
    source, held_out = shapes(64, seed=0), shapes(32, seed=1)
    untrained = detection.evaluate_detector(detector, held_out)
    losses = detection.train_detector(
        detector, source, steps=120, batch_size=8, learning_rate=3e-3, say=quiet
    )
    return (
        encoder,
        before,
        detector,
        untrained,
        detection.evaluate_detector(detector, held_out),
        losses,
    )


@pytest.mark.long
def test_training_teaches_to_detect(trained):
    *_, before, after, losses = trained
    assert losses.shape == (120,) and np.isfinite(losses).all()
    assert losses[-20:].mean() < losses[:20].mean() / 2
    for form in ("ap50_11point", "ap50_area"):
        assert before[form] < 0.1
        assert after[form] > 0.3
    assert after["classes"]["unicorn"] == {"ap50_11point": None, "ap50_area": None, "objects": 0}
    assert after["protocol"] == detection.DETECTION_PROTOCOL and after["num_images"] == 32


def test_the_encoder_is_left_alone_and_its_copy_learns(trained):
    encoder, before, detector, *_ = trained
    assert fingerprint(encoder) == before
    fresh = pyramid_backbone(encoder, SIZE)
    changed = [
        not np.array_equal(mine, theirs)
        for mine, theirs in zip(detector.backbone.weights, fresh.weights, strict=True)
    ]
    assert np.mean(changed) > 0.9  # moving statistics among them


def test_the_loss_is_the_papers(eager, encoder):
    """Focal loss over all anchors but those between the thresholds, smooth L1 over the matched."""
    detector = small_detector(encoder)
    source, settings = shapes(8, seed=0), {"batch_size": 4, "steps": 2}
    losses = detection.train_detector(detector, source, learning_rate=1e-9, say=quiet, **settings)
    for loss, (images, marked) in zip(
        losses, training_batches(source, image_size=SIZE, **settings), strict=True
    ):
        outputs = detector({"images": images}, training=True)
        targets, classes = (x.numpy() for x in detector.label_encoder(images, marked))
        matched = classes >= 0
        p = 1 / (1 + np.exp(-outputs["classification"].numpy().astype("float64")))
        y = (np.arange(3) == classes[..., None]).astype(int)
        p_t, alpha = np.where(y, p, 1 - p), np.where(y, 0.25, 0.75)
        focal = (-alpha * (1 - p_t) ** 2 * np.log(p_t)).sum(axis=-1)[classes != -2].sum()
        apart = np.abs(targets - outputs["box"].numpy())[matched]
        smooth = np.where(apart < 1, apart**2 / 2, apart - 0.5).mean(axis=-1).sum()
        assert loss == pytest.approx((focal + smooth) / matched.sum(), rel=1e-4)


def test_a_frozen_backbone_stays_as_it_is(eager, encoder):
    detector = small_detector(encoder)
    before = fingerprint(detector.backbone)
    heads = fingerprint(detector.classification_head)
    detection.train_detector(
        detector, shapes(2, seed=0), steps=1, batch_size=2, freeze_backbone=True, say=quiet
    )
    assert fingerprint(detector.backbone) == before
    assert fingerprint(detector.classification_head) != heads


def test_images_without_objects_are_trained_on(eager, encoder):
    source = shapes(2, seed=0)
    source.difficult[0][:] = True
    source.difficult[1][1:] = True
    boxes = np.concatenate([
        marked["boxes"].numpy()
        for _, marked in training_batches(source, image_size=SIZE, batch_size=1, steps=2)
    ])  # fmt: skip
    assert boxes.shape == (2, 1, 4)
    assert sum(box[0, 0] == -1 for box in boxes) == 1
    detector = small_detector(encoder)
    losses = detection.train_detector(detector, source, steps=2, batch_size=1, say=quiet)
    assert np.isfinite(losses).all()
    assert all(np.isfinite(v.numpy()).all() for v in detector.variables)


def test_divergence_is_said(eager, encoder):
    detector = small_detector(encoder)
    detector.box_head.layers[-1].bias.assign(np.full(36, np.nan))
    with pytest.raises(detection.Diverged, match="loss of step 1 is not finite.*learning_rate"):
        detection.train_detector(detector, shapes(4, seed=0), steps=3, batch_size=2, say=quiet)
