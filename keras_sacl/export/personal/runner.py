"""The files of `export_personal` through ai-edge-litert alone, as an app on the phone does it."""

import os
from pathlib import Path

import numpy as np

from keras_sacl.quiet import quiet


class PersonalRunner:
    """Learns the user's classes from a few photos, through the signatures of the file.

    The encoder runs once for each photo; what is kept of a photo are its features.

    Args:
        path: A file of `export_personal`.
        num_threads: Threads that the interpreter uses.

    Attributes:
        input_shape: (1, S, S, 3) of the images.
        takes_pixels: Whether images are uint8 pixels, and not normalised float32 ones.
        num_features: F, of the encoder.
        classes: N, slots for classes.

    Raises:
        ValueError: If there is no such file, or it is of another kind.

    Example:
        runner = PersonalRunner("personal.tflite")
        runner.add_photos(photos, labels)
        losses = runner.train()
        probabilities = runner.infer(more_photos)
        runner.save("head.bin")
    """

    def __init__(self, path, num_threads=1):
        from ai_edge_litert.interpreter import Interpreter

        expected = f"`path` must be a file of `export_personal`. Received: path={path}"
        if not Path(path).is_file():
            raise ValueError(f"{expected}, which is no file")
        try:
            with quiet():
                self._interpreter = Interpreter(model_path=str(path), num_threads=num_threads)
                self._run = {
                    name: self._interpreter.get_signature_runner(name)
                    for name in ("features", "train", "infer", "save", "restore", "reset")
                }
                self._encoder = self._saved()["encoder"]  # the first call prints a note
            images = self._run["infer"].get_input_details()["images"]
            kernel = self._run["restore"].get_input_details()["kernel"]
        except (ValueError, KeyError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise ValueError(f"{expected}, which cannot be used ({reason})") from error
        self.input_shape = tuple(images["shape"].tolist())
        self.takes_pixels = images["dtype"] == np.uint8
        self.num_features, self.classes = kernel["shape"].tolist()
        self.forget_photos()

    def features(self, images):
        """(M, S, S, 3) images, as the file takes them, to (M, F) float32 of length 1.

        Raises:
            ValueError: If the images are of another size or type, or a feature is not finite.
        """
        found = self._each("features", images, self.num_features)
        if not np.isfinite(found).all():
            raise ValueError("`images` must give finite features. Received: NaN or infinity")
        return found

    def infer(self, images):
        """(M, S, S, 3) images to (M, N) probabilities, float32.

        Slots that are not in use may be left out and the rest divided by its sum: that is the
        softmax over the others.

        Raises:
            ValueError: If the images are of another size or type.
        """
        return self._each("infer", images, self.classes)

    def add_photos(self, images, labels):
        """Keeps the features of photos to train with.

        Args:
            images: (M, S, S, 3), as the file takes them.
            labels: (M,) integers from 0 to N - 1.

        Raises:
            ValueError: If the images or the labels are not as above.
        """
        labels = np.asarray(labels)
        whole = labels.ndim == 1 and np.issubdtype(labels.dtype, np.integer)
        # TFLite's one-hot of a label outside is a row of zeros, without an error.
        if not whole or ((labels < 0) | (labels >= self.classes)).any():
            raise ValueError(
                f"`labels` must be integers (M,) from 0 to {self.classes - 1}. "
                f"Received: labels={labels.tolist()}"
            )
        if len(images) != len(labels):
            raise ValueError(
                "`labels` must be one for each image. "
                f"Received: {len(labels)} labels of {len(images)} images"
            )
        self._photos = np.concatenate([self._photos, self.features(images)])
        self._labels = np.concatenate([self._labels, labels.astype("int32")])

    def forget_photos(self):
        """Drops the features of all added photos; the head stays as it is."""
        self._photos = np.zeros((0, self.num_features), "float32")
        self._labels = np.zeros(0, "int32")

    def train(self, epochs=300, learning_rate=1.0):
        """Gradient descent on the added photos, all of them in every step.

        It goes on from the head as it is; `reset` starts anew.

        Args:
            epochs: Steps, at least 1.
            learning_rate: Positive; below 2 a step lowers the loss, whatever encoder is inside.

        Returns:
            A list of `epochs` floats: the loss before each step.

        Raises:
            ValueError: If no photo was added, or an argument is not as above.
        """
        if not len(self._labels):
            raise ValueError("`add_photos` must come first. Received: no photos to train with")
        if not isinstance(epochs, int | np.integer) or epochs < 1:
            raise ValueError(
                f"`epochs` must be a whole number of at least 1. Received: epochs={epochs}"
            )
        if not 0 < learning_rate < np.inf:
            raise ValueError(
                f"`learning_rate` must be positive. Received: learning_rate={learning_rate}"
            )
        batch = {"features": self._photos, "labels": self._labels}
        rate = np.float32(learning_rate)
        step = self._run["train"]
        return [float(step(**batch, learning_rate=rate)["loss"]) for _ in range(epochs)]

    def head(self):
        """(kernel (F, N), bias (N,)) as they are now, float32."""
        head = self._saved()
        return head["kernel"], head["bias"]

    def reset(self):
        """Sets the head to zeros, as it is in a new interpreter; the photos stay."""
        self._run["reset"](unused=np.int32(0))

    def save(self, file):
        """Writes the head into a file, and over one that is there.

        Little-endian: the check number of the encoder (int32), then the kernel row by row and
        the bias (float32); 4 (1 + F N + N) bytes. Apps can write the same.

        Args:
            file: Path of the file.

        Raises:
            OSError: If it cannot be written.
        """
        head, path = self._saved(), Path(file)
        temporary = path.with_name(f"tmp-{path.name}")
        floats = np.concatenate([head["kernel"].ravel(), head["bias"]]).astype("<f4")
        temporary.write_bytes(head["encoder"].astype("<i4").tobytes() + floats.tobytes())
        os.replace(temporary, path)  # whole or not at all: apps are killed at any moment

    def restore(self, file):
        """Reads the head from a file of `save`.

        Args:
            file: Path of the file.

        Raises:
            ValueError: If there is no such file, or it is of another encoder, of other sizes, or
                not finite. The head then stays as it was.
        """
        expected = "`file` must be a head that `save` wrote for this encoder and as many classes"
        if not Path(file).is_file():
            raise ValueError(f"{expected}. Received: file={file}, which is no file")
        content = Path(file).read_bytes()
        wanted = 4 * (1 + self.num_features * self.classes + self.classes)
        if len(content) != wanted:
            raise ValueError(
                f"{expected}. Received: file={file}, of {len(content)} bytes and not {wanted}"
            )
        if np.frombuffer(content, "<i4", 1)[0] != self._encoder:
            raise ValueError(f"{expected}. Received: file={file}, of another encoder")
        floats = np.frombuffer(content, "<f4", offset=4).astype("float32")
        if not np.isfinite(floats).all():
            raise ValueError(f"{expected}. Received: file={file}, which holds NaN or infinity")
        kernel, bias = np.split(floats, [self.num_features * self.classes])
        self._run["restore"](kernel=kernel.reshape(self.num_features, self.classes), bias=bias)

    def _saved(self):
        return self._run["save"](unused=np.int32(0))

    def _each(self, name, images, width):
        """A signature of one image, image by image, as a phone does."""
        images = np.asarray(images)
        kind = "uint8" if self.takes_pixels else "float32"
        if images.ndim != 4 or images.shape[1:] != self.input_shape[1:] or images.dtype != kind:
            raise ValueError(
                f"`images` must be {kind} (M, {', '.join(map(str, self.input_shape[1:]))}). "
                f"Received: {images.dtype} {images.shape}"
            )
        (output,) = self._run[name].get_output_details()
        rows = [self._run[name](images=image[None])[output] for image in images]
        return np.concatenate([np.zeros((0, width), "float32"), *rows])
