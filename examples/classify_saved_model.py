"""Classifies a photo with an exported SavedModel, by TensorFlow alone.

pip install tensorflow pillow
python examples/classify_saved_model.py classifier_saved_model photo.jpg

Only for files of your own: a SavedModel may hold operations that read and write files.
"""

from pathlib import Path

import tensorflow as tf
from photo import card_and_labels, classify, options


def open_model(path):
    """See `photo.classify`. Card and class names are files of its folder assets.extra."""
    files = (Path(path) / "assets.extra").glob("*")
    card, labels = card_and_labels({file.name: file.read_text("utf-8") for file in files})
    model = tf.saved_model.load(path)

    def run(batch):
        # `model` is named here to live as long as its function.
        outputs = model.signatures["serving_default"](**{card["input"]["name"]: batch})
        return outputs[card["output"]["name"]][0]

    return card["input"], labels, run


def main(argv=None):
    given = options(__doc__).parse_args(argv)
    classify(open_model, given.model, given.photo)


if __name__ == "__main__":
    main()
