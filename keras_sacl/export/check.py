"""Is an exported file the encoder it was made from? Measured through the file's own runtime."""

import time
from pathlib import Path

import numpy as np

from keras_sacl.evaluation.features import extract_features
from keras_sacl.evaluation.knn import knn_accuracy
from keras_sacl.export.runtimes import open_runner
from keras_sacl.export.tflite import float_tensors, tflite_ops

# Of a float file: the largest difference, relative to the scale of the features. Half precision
# has 11 bits, and its errors add up over the layers.
MAX_DIFFERENCE = {"float32": 1e-4, "float16": 1e-2}
MIN_INT8_COSINE, MAX_INT8_KNN_LOSS = 0.98, 0.02
_BATCH = 64
_LATENCY_RUNS = 30


class Reference:
    """What the Keras encoder itself says about some real images: computed once, for every file.

    Args:
        encoder: A `keras.Model`, (B, S, S, 3) normalised pixels to (B, F).
        mean, std: Of the normalisation, three numbers each, for pixels in [0, 1].
        bank, queries: (images uint8, labels) each; labels of -1, or multi-hot ones,
            leave out the k-NN.

    Attributes:
        queries: (M, F) features of the queries.
        knn_top1: k-NN accuracy of the queries among the bank, or None.
    """

    def __init__(self, encoder, *, mean, std, bank, queries):
        self._mean, self._std = mean, std
        self.bank_images, self.bank_labels = bank
        self.query_images, self.query_labels = queries
        self.queries = self._features(encoder, self.query_images, pixels=False)
        both = self.bank_labels, self.query_labels
        self.labelled = all(labels.ndim == 1 and labels.min() >= 0 for labels in both)
        self.knn_top1 = None
        if self.labelled:
            keras_bank = self._features(encoder, self.bank_images, pixels=False)
            self.knn_top1 = self._knn(keras_bank, self.queries)

    def inputs(self, images, pixels):
        """uint8 images as a file takes them: as they are if it takes `pixels`, else normalised."""
        if pixels:
            return images
        return ((images.astype("float32") / 255 - self._mean) / self._std).astype("float32")

    def compare(self, runner, pixels):
        """max_abs_diff, cosine, cosine_min, and with labels knn_top1 and knn_top1_keras."""
        found = self._features(runner, self.query_images, pixels)
        row = compare(self.queries, found)
        if self.labelled:
            file_bank = self._features(runner, self.bank_images, pixels)
            row["knn_top1"] = self._knn(file_bank, found)
            row["knn_top1_keras"] = self.knn_top1
        return row

    def _features(self, encode, images, pixels):
        parts = (images[start : start + _BATCH] for start in range(0, len(images), _BATCH))
        unlabelled = np.full(_BATCH, -1)
        batches = ((self.inputs(part, pixels), unlabelled[: len(part)]) for part in parts)
        return extract_features(encode, batches)[0]

    def _knn(self, bank, queries):
        return knn_accuracy(bank, self.bank_labels, queries, self.query_labels)


def check_file(path, reference, *, precision="float32", pixels=False):
    """Compares an exported file with the Keras encoder on real images.

    Args:
        path: The file: .tflite, .onnx or .keras.
        reference: `Reference` of the encoder it was made from.
        precision: "float32", "float16" or "int8"; it sets the tolerance.
        pixels: Whether the file takes uint8 pixels, and not normalised ones.

    Returns:
        A dict: bytes; max_abs_diff (largest difference of a feature on the queries, relative to
        the scale of the features, their largest absolute value); cosine (mean over the queries)
        and cosine_min; knn_top1 and knn_top1_keras (bank and queries both through the file, both
        through Keras); latency_ms (batch 1, one thread, median); ops (of a TFLite file);
        passed; reason (None, or what failed).
    """
    path = Path(path)
    row = {"bytes": path.stat().st_size, "passed": True, "reason": None}
    if path.suffix == ".tflite":
        content = path.read_bytes()
        row["ops"], foreign = tflite_ops(content)
        if foreign:
            reason = f"holds operations outside the TFLite builtins: {', '.join(foreign)}"
            return {**row, "passed": False, "reason": reason}
        if precision == "int8" and (floats := float_tensors(content)):
            reason = f"is not integer throughout: {len(floats)} float tensors, {floats[0]} first"
            return {**row, "passed": False, "reason": reason}
    runner = open_runner(path)
    row |= reference.compare(runner, pixels)
    row["latency_ms"] = _latency_ms(runner, reference.inputs(reference.query_images[:1], pixels))
    reason = _failure(row, precision)
    return {**row, "passed": reason is None, "reason": reason}


def compare(expected, found):
    """max_abs_diff, cosine and cosine_min of two (N, F) arrays of features."""
    scale = np.abs(expected).max()
    a, b = (x.astype("float64") / max(scale, 1e-30) for x in (expected, found))
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    # Two features of zero are alike; one of them is not.
    both_zero = ~a.any(axis=1) & ~b.any(axis=1)
    cosine = np.where(both_zero, 1.0, (a * b).sum(axis=1) / np.maximum(lengths, 1e-300))
    return {
        "max_abs_diff": float(np.abs(a - b).max()),
        "cosine": float(cosine.mean()),
        "cosine_min": float(cosine.min()),
    }


def _failure(row, precision):
    if precision in MAX_DIFFERENCE:
        limit = MAX_DIFFERENCE[precision]
        if not row["max_abs_diff"] <= limit:
            return f"differs from Keras by {row['max_abs_diff']:.2g}, more than {limit:g}"
        return None
    if not row["cosine"] >= MIN_INT8_COSINE:
        return f"cosine to Keras is {row['cosine']:.4f}, below {MIN_INT8_COSINE}"
    loss = row.get("knn_top1_keras", 0) - row.get("knn_top1", 0)
    if loss > MAX_INT8_KNN_LOSS:
        return f"k-NN accuracy falls by {loss:.3f}, more than {MAX_INT8_KNN_LOSS}"
    return None


def _latency_ms(runner, image):
    for _ in range(3):
        runner(image)
    seconds = []
    for _ in range(_LATENCY_RUNS):
        start = time.perf_counter()
        runner(image)
        seconds.append(time.perf_counter() - start)
    return 1000 * float(np.median(seconds))
