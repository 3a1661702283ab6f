"""A small detection data set: coloured shapes, at known boxes, on parts of real photographs."""

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds
from sklearn.datasets import load_sample_images

from keras_sacl.evaluation.detection import DetectionSource

CLASSES = ["rectangle", "ellipse", "unicorn"]
COLOURS = ((220, 30, 30), (30, 60, 220))


def shapes(count, seed, side=96):
    """`DetectionSource` of (96, 128) pixels with one or two shapes each; no unicorns."""
    rng = np.random.default_rng(seed)
    photos = load_sample_images().images
    height, width = side, side * 4 // 3
    y, x = np.mgrid[:height, :width] + 0.5
    images, boxes, labels = [], [], []
    for i in range(count):
        photo = photos[i % len(photos)]
        top = rng.integers(0, photo.shape[0] - height)
        left = rng.integers(0, photo.shape[1] - width)
        image = photo[top : top + height, left : left + width].copy()
        image_boxes, image_labels = [], []
        for half in range(rng.integers(1, 3)):  # side by side, so that none hides another
            h, w = rng.integers(side // 3, side * 3 // 5, 2)
            y1 = rng.integers(0, height - h)
            x1 = half * width // 2 + rng.integers(0, width // 2 - w)
            label = rng.integers(0, 2)
            down, across = (y - y1) / h * 2 - 1, (x - x1) / w * 2 - 1
            if label == 0:
                inside = np.maximum(abs(down), abs(across)) < 1
            else:
                inside = down**2 + across**2 < 1
            image[inside] = COLOURS[label]
            image_boxes.append([y1 / height, x1 / width, (y1 + h) / height, (x1 + w) / width])
            image_labels.append(label)
        images.append(tf.io.encode_png(image).numpy())
        boxes.append(np.float32(image_boxes))
        labels.append(np.int64(image_labels))
    difficult = [np.zeros(len(each), bool) for each in labels]
    return DetectionSource(images, boxes, labels, difficult, CLASSES)


class SaclShapes(tfds.core.GeneratorBasedBuilder):
    """The same as TFDS prepares it, with the features of voc/2007 that count here."""

    VERSION = tfds.core.Version("1.0.0")
    code_path = None  # or TFDS looks for checksums of downloads beside this file
    COUNTS = {"train": 12, "validation": 6, "test": 8}

    def _info(self):
        objects = {
            "label": tfds.features.ClassLabel(names=CLASSES),
            "bbox": tfds.features.BBoxFeature(),
            "is_difficult": np.bool_,
        }
        features = {
            "image": tfds.features.Image(encoding_format="png"),
            "labels": tfds.features.Sequence(tfds.features.ClassLabel(names=CLASSES)),
            "objects": tfds.features.Sequence(objects),
        }
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        return {name: self._generate_examples(name) for name in self.COUNTS}

    def _generate_examples(self, name):
        source = shapes(self.COUNTS[name], seed=len(name))
        for i, (encoded, boxes, labels) in enumerate(
            zip(source.images, source.boxes, source.labels, strict=True)
        ):
            objects = [
                # The second shape of an image is difficult.
                {
                    "label": label,
                    "bbox": tfds.features.BBox(*map(float, box)),
                    "is_difficult": k > 0,
                }
                for k, (box, label) in enumerate(zip(boxes, labels, strict=True))
            ]
            pixels = tf.io.decode_png(encoded).numpy()
            yield i, {"image": pixels, "objects": objects, "labels": sorted(set(labels))}
