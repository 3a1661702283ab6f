"""Classifies a photo with a classifier.keras, by Keras.

pip install tensorflow pillow
python examples/classify_keras.py classifier.keras photo.jpg --labels=labels.txt

A .keras file holds no model card: what it takes is read from its input, and the names of the
classes come from another export: `unzip -p classifier.tflite labels.txt > labels.txt`.
"""

import argparse
from pathlib import Path

import keras
from photo import IMAGENET, PHOTO_SHARE, classify, fail, options


def open_model(path, names=None, crop_share=PHOTO_SHARE):
    """See `photo.classify`. In Keras' safe mode: no code comes with the file."""
    model = keras.saving.load_model(path, compile=False, safe_mode=True)
    last = model.layers[-1]
    while isinstance(last, keras.Model):  # one that takes pixels holds the classifier whole
        last = last.layers[-1]
    if last.name != "logits":
        raise ValueError("its last layer is not `logits`: it is no classifier")
    count = model.output_shape[-1]
    if names is not None and len(names) != count:
        raise ValueError(f"has {count} classes, and the file of --labels {len(names)} names")
    (given,) = model.inputs
    size = given.shape[1]
    # Integers are pixels; of any height and width they are whole photos.
    name = ("photos" if size is None else "pixels") if given.dtype == "uint8" else "images"
    contract = {
        "name": name,
        "size": size,
        "any_size": size is None,
        "layout": "nhwc",
        "crop_share": crop_share,
        **IMAGENET,
    }

    def run(batch):
        return keras.ops.convert_to_numpy(model(batch, training=False))[0]

    return contract, names, run


def share(text):
    """The number of a --crop_share."""
    number = float(text)
    if not 0 < number <= 1:
        raise argparse.ArgumentTypeError(f"must be above 0 and at most 1. Received: {text}")
    return number


def main(argv=None):
    parser = options(__doc__)
    parser.add_argument("--labels", help="file with the name of a class in each line")
    parser.add_argument(
        "--crop_share", type=share, default=PHOTO_SHARE,
        help="of the shorter side, that the centre crop has; 1 for data sets of small pictures",
    )  # fmt: skip
    given = parser.parse_args(argv)
    names = None
    if given.labels is not None:
        try:
            names = Path(given.labels).read_text("utf-8").splitlines()
        except (OSError, ValueError) as error:
            fail(f"--labels={given.labels}: {error}")

    def opened(path):
        return open_model(path, names, given.crop_share)

    classify(opened, given.model, given.photo)


if __name__ == "__main__":
    main()
