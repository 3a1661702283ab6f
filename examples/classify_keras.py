"""Classifies a photo with a classifier.keras, by Keras.

pip install tensorflow pillow
python examples/classify_keras.py classifier.keras photo.jpg --labels=labels.txt

A .keras file holds no model card: what it takes is read from its input, and the names of the
classes come from another export: `unzip -p classifier.tflite labels.txt > labels.txt`.
"""

from pathlib import Path

import keras
from photo import IMAGENET, PHOTO_SHARE, classify, options


def open_model(path, labels=None, crop_share=PHOTO_SHARE):
    """See `photo.classify`. In Keras' safe mode: no code comes with the file."""
    names = Path(labels).read_text("utf-8").splitlines() if labels else None
    model = keras.saving.load_model(path, compile=False, safe_mode=True)
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


def main(argv=None):
    parser = options(__doc__)
    parser.add_argument("--labels", help="file with the name of a class in each line")
    parser.add_argument(
        "--crop_share", type=float, default=PHOTO_SHARE,
        help="of the shorter side, that the centre crop has; 1 for data sets of small pictures",
    )  # fmt: skip
    given = parser.parse_args(argv)

    def opened(path):
        return open_model(path, given.labels, given.crop_share)

    classify(opened, given.model, given.photo)


if __name__ == "__main__":
    main()
