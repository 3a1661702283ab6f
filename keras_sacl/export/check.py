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


def check_file(path, *, encoder, precision, mean, std, pixels, bank, queries):
    """Compares an exported file with the Keras encoder on real images.

    Args:
        path: The file: .tflite, .onnx or .keras.
        encoder: The `keras.Model` it was made from, taking normalised pixels.
        precision: "float32", "float16" or "int8"; it sets the tolerance.
        mean, std: Of the normalisation.
        pixels: Whether the file takes uint8 pixels.
        bank, queries: (images uint8, labels); labels of -1 leave out the k-NN.

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

    def normalised(images):
        return ((images.astype("float32") / 255 - mean) / std).astype("float32")

    prepare = (lambda images: images) if pixels else normalised
    images, labels = queries
    expected, _ = extract_features(encoder, _batches(normalised, images, labels))
    found, _ = extract_features(runner, _batches(prepare, images, labels))
    row |= compare(expected, found)
    if labels.min() >= 0 and bank[1].min() >= 0:
        keras_bank, _ = extract_features(encoder, _batches(normalised, *bank))
        file_bank, _ = extract_features(runner, _batches(prepare, *bank))
        row["knn_top1"] = knn_accuracy(file_bank, bank[1], found, labels)
        row["knn_top1_keras"] = knn_accuracy(keras_bank, bank[1], expected, labels)
    row["latency_ms"] = _latency_ms(runner, prepare(images[:1]))
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


def _batches(prepare, images, labels):
    for start in range(0, len(images), _BATCH):
        part = slice(start, start + _BATCH)
        yield prepare(images[part]), labels[part]


def _latency_ms(runner, image):
    for _ in range(3):
        runner(image)
    seconds = []
    for _ in range(_LATENCY_RUNS):
        start = time.perf_counter()
        runner(image)
        seconds.append(time.perf_counter() - start)
    return 1000 * float(np.median(seconds))
