"""Accuracy, size and latency of classifiers in Keras and as exported files, on all test images.

python -m benchmarks.phone runs/a/classifier.keras runs/b/classifier.keras \
    --dataset=grocery_store --data_dir=PATH --json phone.json

Latencies are medians of single images with one thread. Run it with nothing else on the machine.
"""

import argparse
import json
import tempfile
from pathlib import Path

FORMATS = {
    "tflite": "TFLite",
    "tflite_fp16": "TFLite float16",
    "tflite_int8": "TFLite int8",
    "onnx": "ONNX",
}
_CALIBRATION = 256


def _options():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("classifiers", nargs="+", metavar="CLASSIFIER.keras")
    parser.add_argument("--dataset", required=True, help="a labelled data set or folder")
    parser.add_argument("--data_dir", help="where TFDS data sets lie")
    parser.add_argument("--calibration_split", default="train")
    parser.add_argument("--test_split", default="test")
    parser.add_argument("--json", metavar="FILE", help="write the rows there")
    return parser.parse_args()


def measure(path, options):
    """The rows of `export_encoder` for one classifier, by file name."""
    from keras_sacl.data import IMAGENET_MEAN, IMAGENET_STD, load_source, raw_pixels
    from keras_sacl.export import export_encoder
    from keras_sacl.keras_files import load_keras

    model = load_keras(path)
    size = model.input_shape[1]

    def pixels(split, count):
        source = load_source(
            options.dataset, split, data_dir=options.data_dir, image_size=size
        ).take(count)
        return raw_pixels(source, size)

    with tempfile.TemporaryDirectory() as directory:
        return export_encoder(
            model, directory, formats=tuple(FORMATS), mean=IMAGENET_MEAN, std=IMAGENET_STD,
            calibration=pixels(options.calibration_split, _CALIBRATION)[0], bank=None,
            queries=pixels(options.test_split, None), outputs="logits",
        )  # fmt: skip


def table(rows):
    """Markdown: top-1 in %, KiB and milliseconds of each file of each classifier."""
    lines = [
        "| classifier | Keras | " + " | ".join(FORMATS.values()) + " |",
        "|---" * (2 + len(FORMATS)) + "|",
    ]
    for name, files in rows.items():
        of_keras = [row["top1_keras"] for row in files.values() if "top1_keras" in row]
        cells = [f"{100 * of_keras[0]:.2f} %" if of_keras else "-"]
        for row in files.values():
            cell = row["reason"]
            if "latency_ms" in row:
                verdict = "" if row["passed"] else f", {row['reason']}"
                cell = (
                    f"{100 * row['top1']:.2f} %, {row['bytes'] / 1024:,.0f} KiB, "
                    f"{row['latency_ms']:.2f} ms{verdict}"
                )
            cells.append(cell)
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main():
    options = _options()
    rows = {}
    for path in map(Path, options.classifiers):
        print(path)
        rows[str(path)] = measure(path, options)
        if options.json:
            Path(options.json).write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
    print(table(rows))


if __name__ == "__main__":
    main()
