"""Is an exported file the encoder it was made from? Measured through the file's own runtime."""

import time
from pathlib import Path

import numpy as np

from keras_sacl.evaluation.features import extract_features
from keras_sacl.evaluation.knn import knn_accuracy
from keras_sacl.export.contents import (
    float_tensors,
    onnx_ops,
    onnx_precision,
    tflite_ops,
    tflite_precision,
)
from keras_sacl.export.runtimes import open_runner

# Of a float file: the largest difference, relative to the scale of the features. Half precision
# has 11 bits, and its errors add up over the layers.
MAX_DIFFERENCE = {"float32": 1e-4, "float16": 1e-2}
# Where the crop is inside: a pixel may come out on the other side of a half, and be rounded to its
# neighbour.
MAX_DIFFERENCE_CROPPED = 1e-2
# Of a file with 8-bit numbers: mean cosine, and what the accuracy may lose.
MIN_COSINE, MAX_ACCURACY_LOSS = {"dynamic": 0.98, "int8": 0.98}, 0.02
PRECISIONS = (*MAX_DIFFERENCE, *MIN_COSINE)
_BATCH = 64
_LATENCY_RUNS = 30
_SAME_COSINE, _DIAGNOSED = 0.999, 32


class Reference:
    """What the Keras model itself says about some real images: computed once, for every file.

    Args:
        encoder: A `keras.Model`, (B, S, S, 3) to (B, F) features, or to (B, classes) logits.
        mean, std: Of the normalisation, three numbers each, for pixels in [0, 1].
        bank, queries: (images uint8, labels) each; labels of -1, or multi-hot ones,
            leave out the accuracy. `bank` may be None for logits.
        outputs: "features", which are compared by k-NN accuracy too, or "logits", which are by
            top-1 accuracy.
        photos: (of the bank, of the queries): the same images in their own sizes, uint8 (H, W, 3),
            for files that crop by themselves: lists, or data sets, read for each file. None
            without such files.

    Attributes:
        queries: (M, F) features, or logits, of the queries.
        accuracy: k-NN accuracy of the queries among the bank, or top-1 of the logits; or None.
        score: Name of that accuracy, "knn_top1" or "top1".

    Raises:
        ValueError: On other `outputs`, or if a feature is not finite.
    """

    def __init__(self, encoder, *, mean, std, bank, queries, outputs="features", photos=None):
        if outputs not in ("features", "logits"):
            raise ValueError(f"`outputs` must be features or logits. Received: outputs={outputs!r}")
        self._mean, self._std, self.outputs = mean, std, outputs
        self._bank_photos, self.query_photos = photos or (None, None)
        self.score = {"features": "knn_top1", "logits": "top1"}[outputs]
        self._bank = bank if outputs == "features" else None
        self.query_images, self.query_labels = queries
        pixels = encoder.inputs[0].dtype == "uint8"
        self.queries = self._outputs(encoder, self.query_images, None, pixels)
        labels = [self.query_labels] if self._bank is None else [self._bank[1], self.query_labels]
        self.labelled = all(part.ndim == 1 and part.min() >= 0 for part in labels)
        self.accuracy = None
        if self.labelled:
            self.accuracy = self._accuracy(encoder, self.queries, pixels)

    def inputs(self, images, pixels):
        """uint8 images as a file takes them: as they are if it takes `pixels`, else normalised."""
        if pixels:
            return images
        return ((images.astype("float32") / 255 - self._mean) / self._std).astype("float32")

    def compare(self, runner, pixels):
        """max_abs_diff, cosine, cosine_min, and with labels the accuracy and that of Keras."""
        if runner.any_size and self.query_photos is None:
            raise ValueError("takes photos of any size, and only images of one size are at hand")
        found = self._outputs(runner, self.query_images, self.query_photos, pixels)
        if found.shape != self.queries.shape:
            raise ValueError(
                f"gives {found.shape[1]} {self.outputs} an image, and the Keras model "
                f"{self.queries.shape[1]}"
            )
        row = compare(self.queries, found)
        if self.labelled:
            row[self.score] = self._accuracy(runner, found, pixels)
            row[f"{self.score}_keras"] = self.accuracy
        return row

    def other_contract(self, runner):
        """The inputs on which a file of floats agrees with Keras after all, in words, or None.

        Preprocessing is what goes wrong most often, so it is looked for before the network.
        """
        images = self.query_images[:_DIAGNOSED].astype("float32")
        scaled = {
            "0 to 255": images, "0 to 1": images / 255, "-1 to 1": images / 127.5 - 1,
            "the expected range": self.inputs(images, pixels=False),
        }  # fmt: skip
        for words, inputs in scaled.items():
            for order, given in (("", inputs), (", blue before red", inputs[..., ::-1])):
                found = np.asarray(runner(given), "float32")
                if compare(self.queries[:_DIAGNOSED], found)["cosine_min"] > _SAME_COSINE:
                    return f"pixels of {words}{order}"
        return None

    def example(self, runner):
        """The first query as a file takes it, a batch of one."""
        if runner.any_size:
            return np.asarray(next(iter(self.query_photos)))[None]
        return self.inputs(self.query_images[:1], runner.takes_pixels)

    def _outputs(self, encode, images, photos, pixels):
        if getattr(encode, "any_size", False):
            batches = ((np.asarray(photo)[None], [-1]) for photo in photos)
            return extract_features(encode, batches)[0]
        parts = (images[start : start + _BATCH] for start in range(0, len(images), _BATCH))
        unlabelled = np.full(_BATCH, -1)
        batches = ((self.inputs(part, pixels), unlabelled[: len(part)]) for part in parts)
        return extract_features(encode, batches)[0]

    def _accuracy(self, encode, queries, pixels):
        if self.outputs == "logits":
            return float((queries.argmax(axis=1) == self.query_labels).mean())
        images, labels = self._bank
        bank = self._outputs(encode, images, self._bank_photos, pixels)
        return knn_accuracy(bank, labels, queries, self.query_labels)


def check_file(path, reference, *, precision=None, pixels=None, threads=(1,)):
    """Compares an exported file with the Keras model on real images.

    Args:
        path: The file: .tflite, .onnx or .keras; or the directory of a SavedModel.
        reference: `Reference` of the model it was made from.
        precision: One of `PRECISIONS`; it sets the tolerance, and a file of int8 must then be
            integer throughout, but for a crop inside. Default: what the file holds.
        pixels: Whether the file must take uint8 pixels (True), or normalised ones (False).
            Default: what the file takes.
        threads: Numbers of threads to time; the first is that of `latency_ms`.

    Returns:
        A dict: bytes; precision; ops (of a TFLite or ONNX file); max_abs_diff (largest difference
        of a feature on the queries, relative to the scale of the features, their largest absolute
        value); cosine (mean over the queries) and cosine_min; knn_top1 and knn_top1_keras (bank
        and queries both through the file, both through Keras), or top1 and top1_keras for logits;
        latency_ms (batch 1, median) and latency_ms_by_threads (where several are timed; a .keras
        file and a SavedModel run with TensorFlow's own threads, and are timed once); passed;
        reason (None, or what failed).

    Raises:
        ValueError: If the file is broken, or of another network than the reference.
    """
    path = Path(path)
    files = [file for file in (path, *path.rglob("*")) if file.is_file()]
    row = {"bytes": sum(file.stat().st_size for file in files), "passed": True, "reason": None}
    read = {".tflite": tflite_precision, ".onnx": onnx_precision}.get(path.suffix)
    integers = precision == "int8" and path.suffix == ".tflite"
    row["precision"] = precision = precision or (read(path.read_bytes()) if read else "float32")
    operations = file_ops(path)
    if operations:
        row["ops"], foreign = operations
        if foreign:
            kind = {".tflite": "TFLite builtins", ".onnx": "ONNX operators"}[path.suffix]
            reason = f"holds operations outside the {kind}: {', '.join(foreign)}"
            return {**row, "passed": False, "reason": reason}
    runner = open_runner(path)
    reason = _not_integer(path.read_bytes(), runner.any_size) if integers else None
    if reason:
        return {**row, "passed": False, "reason": reason}
    if pixels is not None and pixels != runner.takes_pixels:
        wanted = "uint8 pixels" if pixels else "normalised pixels"
        return {**row, "passed": False, "reason": f"must take {wanted}, and does not"}
    pixels = runner.takes_pixels
    row |= reference.compare(runner, pixels)
    image = reference.example(runner)
    timed = threads if operations else threads[:1]
    latencies = {n: _latency_ms(open_runner(path, n), image) for n in timed}
    row["latency_ms"] = latencies[timed[0]]
    if len(timed) > 1:
        row["latency_ms_by_threads"] = latencies
    row["max_difference"] = _most(precision, runner)
    reason = _failure(row, precision, reference.score)
    if reason and not pixels and (other := reference.other_contract(runner)):
        reason += f"; it agrees on {other}: its preprocessing is another"
    return {**row, "passed": reason is None, "reason": reason}


def file_ops(path):
    """(all operations, those that no phone's runtime has) of a file; None for Keras' formats.

    Raises:
        ValueError: If the file is broken, or of another kind than its ending.
    """
    read = {".tflite": tflite_ops, ".onnx": onnx_ops}.get(Path(path).suffix)
    return read(Path(path).read_bytes()) if read else None


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


def _not_integer(content, cropped):
    """Why a TFLite file is not integer throughout, or behind the crop; None if it is."""
    if cropped:
        found = tflite_precision(content)
        return None if found == "int8" else f"has a network of {found}, not of integers"
    floats = float_tensors(content)
    if not floats:
        return None
    return f"is not integer throughout: {len(floats)} float tensors, {floats[0]} first"


def _most(precision, runner):
    """The largest difference that a file may have; None where its accuracy counts."""
    if precision in MAX_DIFFERENCE and runner.any_size:
        return MAX_DIFFERENCE_CROPPED
    return MAX_DIFFERENCE.get(precision)


def _failure(row, precision, score):
    if precision in MAX_DIFFERENCE:
        limit = row["max_difference"]
        if not row["max_abs_diff"] <= limit:
            return f"differs from Keras by {row['max_abs_diff']:.2g}, more than {limit:g}"
        return None
    if not row["cosine"] >= MIN_COSINE[precision]:
        return f"cosine to Keras is {row['cosine']:.4f}, below {MIN_COSINE[precision]}"
    loss = row.get(f"{score}_keras", 0) - row.get(score, 0)
    if loss > MAX_ACCURACY_LOSS:
        name = {"knn_top1": "k-NN", "top1": "top-1"}[score]
        return f"{name} accuracy falls by {loss:.3f}, more than {MAX_ACCURACY_LOSS}"
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
