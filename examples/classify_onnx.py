"""Classifies a photo with an exported .onnx file, by ONNX Runtime.

pip install onnxruntime pillow
python examples/classify_onnx.py classifier.onnx photo.jpg
"""

import onnxruntime
from photo import card_and_labels, classify, options


def open_model(path):
    """See `photo.classify`. Card and class names are the file's `metadata_props`."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    card, labels = card_and_labels(session.get_modelmeta().custom_metadata_map)

    def run(batch):
        (logits,) = session.run([card["output"]["name"]], {card["input"]["name"]: batch})
        return logits[0]

    return card["input"], labels, run


def main(argv=None):
    given = options(__doc__).parse_args(argv)
    classify(open_model, given.model, given.photo)


if __name__ == "__main__":
    main()
