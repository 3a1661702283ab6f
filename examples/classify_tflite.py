"""Classifies a photo with an exported .tflite file of any precision, by LiteRT.

pip install ai-edge-litert pillow
python examples/classify_tflite.py classifier_int8.tflite photo.jpg
"""

import zipfile

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from photo import card_and_labels, classify, options


def open_model(path):
    """See `photo.classify`. Card and class names are in a zip archive behind the model."""
    interpreter = Interpreter(model_path=path)
    try:
        with zipfile.ZipFile(path) as archive:
            texts = {name: archive.read(name).decode() for name in archive.namelist()}
    except zipfile.BadZipFile:  # the model alone
        texts = {}
    card, labels = card_and_labels(texts)
    (given,), (found,) = interpreter.get_input_details(), interpreter.get_output_details()

    def run(batch):
        # Of open height and width the file only knows the photo at hand.
        if tuple(given["shape"]) != batch.shape:
            interpreter.resize_tensor_input(given["index"], batch.shape)
        interpreter.allocate_tensors()
        interpreter.set_tensor(given["index"], quantise(batch, given))
        interpreter.invoke()
        return dequantise(interpreter.get_tensor(found["index"])[0], found)

    return card["input"], labels, run


def quantise(batch, tensor):
    """Real numbers to the integers of an int8 input, q = x / scale + zero point.

    Pixels and floats that the tensor takes as they are stay so.
    """
    if batch.dtype == tensor["dtype"]:
        return batch
    scale, zero_point = tensor["quantization"]
    limits = np.iinfo(tensor["dtype"])
    integers = np.rint(batch / np.float32(scale) + zero_point)
    return integers.clip(limits.min, limits.max).astype(tensor["dtype"])


def dequantise(values, tensor):
    """The integers of an int8 or uint8 output to real numbers, x = scale (q - zero point)."""
    scale, zero_point = tensor["quantization"]
    return np.float32(scale) * (values.astype("float32") - zero_point) if scale else values


def main(argv=None):
    given = options(__doc__).parse_args(argv)
    classify(open_model, given.model, given.photo)


if __name__ == "__main__":
    main()
