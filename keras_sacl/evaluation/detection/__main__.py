"""Detection transfer: how good a pretrained encoder is as the backbone of a detector.

python -m keras_sacl.evaluation.detection --encoder=runs/mine/encoder.keras \
    --dataset=voc/2007 --data_dir=PATH --baseline
"""

import json
import os
import sys
from pathlib import Path

from keras_sacl.command_line import OneLineParser
from keras_sacl.evaluation.detection import (
    DETECTION_PROTOCOL,
    Diverged,
    build_detector,
    load_detection,
    transfer,
    untrained_baseline,
)
from keras_sacl.keras_files import load_encoder


def table(class_names, results):
    """Lines of a table: a row for each class and the mean, columns for each of the results.

    Args:
        class_names: The rows.
        results: Dict from a heading, such as "trained", to what `evaluate_detector` gives.

    Returns:
        A list of str.
    """
    width = max(len("mean"), *map(len, class_names))
    forms = {"ap50_11point": "11-point", "ap50_area": "area"}
    headings = [f"{name} {form}" for name in results for form in forms.values()]
    lines = ["  ".join([" " * width, *headings])]
    for name in [*class_names, "mean"]:
        cells = []
        for result in results.values():
            row = result if name == "mean" else result["classes"][name]
            cells += [row[form] for form in forms]
        numbers = ["-" if cell is None else f"{cell:.4f}" for cell in cells]
        aligned = [n.rjust(len(h)) for n, h in zip(numbers, headings, strict=True)]
        lines.append("  ".join([name.ljust(width), *aligned]))
    return lines


def _options():
    parser = OneLineParser("detection", __doc__)
    parser.add_argument("--encoder", required=True, help="the encoder.keras of a run")
    parser.add_argument("--dataset", default="voc/2007", help="TFDS data set with boxes")
    parser.add_argument("--data_dir", help="where TFDS data sets lie")
    parser.add_argument("--download", action="store_true", help="let TFDS fetch what is missing")
    parser.add_argument("--train_split", help="default: train (of VOC: train+validation is usual)")
    parser.add_argument("--test_split", help="default: test, or validation")
    parser.add_argument("--steps", type=int, default=10000, help="steps of training")
    parser.add_argument("--batch_size", type=int, default=16, help="images per step")
    parser.add_argument("--learning_rate", type=float, default=5e-4, help="its peak")
    parser.add_argument("--image_size", type=int, default=320, help="pixels, a multiple of 32")
    parser.add_argument("--head_width", type=int, default=256, help="channels beside the backbone")
    parser.add_argument("--freeze_backbone", action="store_true", help="train the rest only")
    parser.add_argument("--baseline", action="store_true", help="also with an untrained backbone")
    parser.add_argument("--seed", type=int, default=0, help="of fresh weights and of the order")
    parser.add_argument("--output", help="write the scores into this JSON file")
    return parser.parse_args()


def _run(options):
    """Trains, evaluates, prints the table and writes the JSON file."""
    output = options.output and Path(options.output)
    if output and (output.is_dir() or not os.access(output.absolute().parent, os.W_OK | os.X_OK)):
        raise ValueError(
            "`output` must be a file in a directory that exists and can be written. "
            f"Received: output={output}"
        )
    if options.seed < 0:
        raise ValueError(f"`seed` must be at least 0. Received: seed={options.seed}")
    encoder = load_encoder(options.encoder)
    # Refused here, not after minutes of reading images.
    build_detector(encoder, 1, options.image_size, head_width=options.head_width)
    where = {
        "dataset": options.dataset, "data_dir": options.data_dir, "download": options.download
    }  # fmt: skip
    shared = _names(options.train_split or "train") & _names(options.test_split or "test")
    if shared:
        raise ValueError(
            f"`test_split` must not be trained on. Received: train_split={options.train_split}, "
            f"test_split={options.test_split}, which share {', '.join(sorted(shared))}"
        )
    train = load_detection(split=options.train_split, training=True, **where)
    test = load_detection(split=options.test_split, training=False, **where)
    settings = {
        "image_size": options.image_size, "head_width": options.head_width,
        "steps": options.steps, "batch_size": options.batch_size,
        "learning_rate": options.learning_rate, "freeze_backbone": options.freeze_backbone,
        "seed": options.seed,
    }  # fmt: skip
    encoders = {"trained": lambda: encoder}
    if options.baseline:
        encoders["untrained"] = lambda: untrained_baseline(
            encoder, train, image_size=options.image_size, batch_size=options.batch_size,
            seed=options.seed,
        )  # fmt: skip
    results = {}
    for name, backbone in encoders.items():
        print(f"{name} backbone, {len(train)} training images", flush=True)
        results[name] = transfer(backbone(), train, test, **settings)
    for line in table(test.class_names, results):
        print(line)
    print(
        f"\non {options.dataset}: {len(train)} training and {len(test)} test images; "
        f"{DETECTION_PROTOCOL}"
    )
    if output:
        report = {
            "protocol": DETECTION_PROTOCOL, "encoder": options.encoder,
            "dataset": options.dataset, "train_split": options.train_split,
            "test_split": options.test_split, "num_train": len(train), "num_test": len(test),
            "settings": settings, **results,
        }  # fmt: skip
        output.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def _names(split):
    """The splits in a sum of them; of parts such as train[:100] nothing is known."""
    return {name for name in split.split("+") if "[" not in name}


def main():
    options = _options()
    try:
        _run(options)
    except ValueError as error:
        print(f"detection: {error}", file=sys.stderr)
        return 2
    except Diverged as error:
        print(f"detection: {error}", file=sys.stderr)
        return 4
    return 0


if __name__ == "__main__":
    sys.exit(main())
