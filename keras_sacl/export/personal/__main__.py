"""One TFLite file that learns the user's own classes on the phone, from a few photos of each.

python -m keras_sacl.export.personal --encoder=runs/mine/encoder.keras --output=personal.tflite \
    --classes=10 --preprocessing
"""

import sys
from pathlib import Path

from keras_sacl.command_line import OneLineParser
from keras_sacl.data.normalisation import IMAGENET_MEAN, IMAGENET_STD
from keras_sacl.export.personal import check_path, export_personal
from keras_sacl.keras_files import load_encoder


def main(argv=None):
    """Returns the exit code."""
    parser = OneLineParser("personal", __doc__)
    parser.add_argument("--encoder", required=True, help="the encoder.keras of a run")
    parser.add_argument("--output", required=True, help="the .tflite file to write")
    parser.add_argument("--classes", type=int, required=True, help="slots for the user's classes")
    parser.add_argument("--preprocessing", action="store_true", help="take uint8 pixels")
    options = parser.parse_args(argv)
    try:
        check_path("output", options.output)
        runner = export_personal(
            load_encoder(options.encoder), options.output, classes=options.classes,
            mean=IMAGENET_MEAN, std=IMAGENET_STD, preprocessing=options.preprocessing,
        )  # fmt: skip
    except ValueError as error:
        print(f"personal: {error}", file=sys.stderr)
        return 2
    side = runner.input_shape[1]
    pixels = "uint8 pixels" if runner.takes_pixels else "normalised float32 pixels"
    print(
        f"{options.output}: {Path(options.output).stat().st_size} bytes, images of {side} px "
        f"({pixels}), {runner.num_features} features, {runner.classes} classes"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
