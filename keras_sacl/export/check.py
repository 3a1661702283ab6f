"""Is an exported file the Keras model it was made from? On real images, in its own runtime.

python -m keras_sacl.export.check runs/mine/export/encoder_int8.tflite \
    --against=runs/mine/encoder.keras --images=PATH

Exit codes: 0 the file is the model; 3 it is not, or holds what a phone cannot run; 2 bad input.
"""

import json
import os
import sys
from pathlib import Path

import numpy as np

from keras_sacl.command_line import OneLineParser
from keras_sacl.data import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    crop_share,
    load_source,
    original_images,
    raw_pixels,
)
from keras_sacl.evaluation import label_kind
from keras_sacl.export.checking import (
    MAX_ACCURACY_LOSS,
    MIN_COSINE,
    PRECISIONS,
    Reference,
    check_file,
    file_ops,
)
from keras_sacl.export.footprint import PHOTO, peak_memory
from keras_sacl.export.integers import layer_errors, worst_layers
from keras_sacl.export.metadata import read_metadata
from keras_sacl.export.runtimes import FILE_ENDINGS, open_encoder

_BANK = 2000
_QUANTISED = 64
_SIDE = 224  # px, where neither file nor model says


def _options(argv):
    parser = OneLineParser("check", __doc__)
    parser.add_argument("file", metavar="FILE", help=".tflite, .onnx or .keras")
    parser.add_argument("--against", required=True, help="the encoder.keras or classifier.keras")
    parser.add_argument("--images", required=True, help="folder of images, TFDS name, or digits")
    parser.add_argument("--data_dir", help="where TFDS data sets lie")
    parser.add_argument("--split", default="test", help="images that are compared")
    parser.add_argument("--bank_split", default="train", help="those k-NN looks among")
    parser.add_argument("--limit", type=int, default=1000, help="most images to compare")
    parser.add_argument(
        "--outputs", choices=("auto", "features", "logits"), default="auto",
        help="what the model gives; auto: logits if its last layer is named so",
    )  # fmt: skip
    parser.add_argument(
        "--classes", type=lambda text: text.split(","),
        help="names of the logits, in order: a,b,c; default: the file's, or the data's",
    )  # fmt: skip
    parser.add_argument(
        "--precision", choices=PRECISIONS,
        help="sets the tolerance; default: what the file holds",
    )  # fmt: skip
    parser.add_argument(
        "--layers", type=int, default=0,
        help="name so many layers of --against that lose most when quantised here",
    )  # fmt: skip
    parser.add_argument("--output", help="write the figures into this JSON file")
    return parser.parse_args(argv)


def _run(options):
    """Checks, prints the figures and the verdict, and returns whether the file passed."""
    output = options.output and Path(options.output)
    if output and (output.is_dir() or not os.access(output.absolute().parent, os.W_OK | os.X_OK)):
        raise ValueError(f"--output={output}: must be a file in a directory that can be written")
    for name, least in (("limit", 1), ("layers", 0)):
        if getattr(options, name) < least:
            raise ValueError(f"--{name}={getattr(options, name)}: must be at least {least}")
    path, against = Path(options.file), Path(options.against)
    if against.suffix != ".keras":
        raise ValueError(f"--against={against}: must be a .keras file")
    for file, name in ((path, path), (against, f"--against={against}")):
        if not file.is_file():
            raise ValueError(f"{name}: is no file")
    if path.suffix not in FILE_ENDINGS:
        raise ValueError(f"{path}: must end in one of {', '.join(FILE_ENDINGS)}")
    operations = _about(path, file_ops, path)
    if operations and operations[1]:  # nothing here could run it
        row, reference, takes, card = check_file(path, reference=None), None, None, None
    else:
        model = _about(f"--against={against}", open_encoder, against).model
        # Before it is opened here: what crashes a runtime ends that process alone.
        memory = _about(path, peak_memory, path, model.input_shape[1] or _SIDE)
        runner = _about(path, open_encoder, path, photos=True)
        takes = _contract(runner)
        card, labels = _about(path, read_metadata, path)
        reference, share = _reference(options, model, _side(runner, model), labels)
        row = _about(path, check_file, path, reference, precision=options.precision,
                     threads=_threads())  # fmt: skip
        row |= {"peak_memory_bytes": memory, "any_size": runner.any_size}
        if not row["passed"] and runner.any_size and card:
            row["reason"] += _other_crop(card["input"].get("crop_share"), share)
        if options.layers:
            row["worst_layers_db"] = _about(
                f"--layers={options.layers}", _worst_layers, model, reference, options.layers
            )
    if card:
        print(f"{'name':<21}{card.get('name', '-')}")
    for title, text in _lines(row, reference, takes):
        print(f"{title:<21}{text}")
    print(
        f"ok: {path} agrees with {against}" if row["passed"] else f"FAILED: {path} {row['reason']}"
    )
    if output:
        report = {
            "file": str(path), "against": str(against), "images": options.images,
            "split": options.split, "takes": takes, **row,
        }  # fmt: skip
        output.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return row["passed"]


def _about(what, function, *args, **kwargs):
    """Calls a function; its ValueError then begins with what it is about."""
    try:
        return function(*args, **kwargs)
    except ValueError as error:
        raise ValueError(f"{what}: {error}") from error


def _side(runner, model):
    """Side of the images in pixels, on which file and model must agree."""
    sides = [shape[1] for shape in (runner.input_shape, model.input_shape) if shape[1]]
    if len(set(sides)) > 1:
        raise ValueError(
            f"the file takes images of {sides[0]} px, and the model of --against of {sides[1]} px"
        )
    return sides[0] if sides else _SIDE


def _reference(options, model, side, names):
    """The `Reference` of a model on the images that the options name, and their crop's share.

    `names` are the classes that the file itself names, or None.
    """
    outputs = options.outputs
    if outputs == "auto":
        outputs = "logits" if _last_layer(model).name == "logits" else "features"
    where = {"data_dir": options.data_dir, "image_size": side}
    source = load_source(options.images, options.split, limit=options.limit, **where)
    one_class = label_kind(source.labels) == "one"
    queries = bank = raw_pixels(source, side)
    photos = [original_images(source)] * 2
    if outputs == "logits" and one_class:
        classes = options.classes
        known = source.class_names and set(map(str, source.class_names)) <= set(names or ())
        if classes is None and known:
            classes = names
        labels = _as_logits(queries[1], source.class_names, classes, model.output_shape[-1])
        queries = bank = (queries[0], labels)
    elif one_class:
        known = load_source(options.images, options.bank_split, limit=_BANK, **where)
        bank, photos = raw_pixels(known, side), [original_images(known), photos[1]]
    reference = Reference(model, mean=IMAGENET_MEAN, std=IMAGENET_STD, bank=bank,
                          queries=queries, outputs=outputs, photos=photos)  # fmt: skip
    return reference, crop_share(source)


def _last_layer(model):
    """The last layer; of a model behind its preprocessing, that model's."""
    last = model.layers[-1]
    return _last_layer(last) if hasattr(last, "layers") else last


def _other_crop(inside, outside):
    """What to add to the reason of a failure if a file crops otherwise than these images were."""
    if inside in (None, outside):
        return ""
    return (
        f"; it crops to {inside:g} of a photo's shorter side, and these images are cropped to "
        f"{outside:g}"
    )


def _as_logits(labels, names, classes, count):
    """Labels of the data as indices of logits; by name, if --classes says their order."""
    if classes is None:
        if labels.max() >= count:
            raise ValueError(
                f"the model gives {count} logits, and the images have {labels.max() + 1} classes; "
                "name those of the logits with --classes"
            )
        return labels
    text = ",".join(classes)
    if len(classes) != count:
        raise ValueError(f"--classes={text}: must name the {count} logits; names {len(classes)}")
    if not names:
        raise ValueError(f"--classes={text}: the images have no class names; leave it out")
    unknown = [name for name in names if str(name) not in classes]
    if unknown:
        raise ValueError(f"--classes={text}: must hold the class {unknown[0]} of the images")
    place = np.array([classes.index(str(name)) for name in names])
    return np.where(labels < 0, labels, place[labels])


def _worst_layers(model, reference, count):
    """Name to decibels of the layers that lose most if the Keras model is quantised here."""
    if model.inputs[0].dtype == "uint8":
        raise ValueError("--against must take normalised images; name the encoder.keras of the run")
    try:
        errors = layer_errors(model, reference.inputs(reference.query_images[:_QUANTISED], False))
    except Exception as error:  # a converter may raise anything
        raise ValueError(f"the model of --against cannot be quantised ({error})") from error
    return worst_layers(errors, count)


def _threads():
    """1, 2, 4, ... up to all that this process may use."""
    every = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return sorted({every, *(2**i for i in range(16) if 2**i < every)})


def _contract(runner):
    """What a file takes, in words."""
    shape = " x ".join("any" if n is None else str(n) for n in runner.input_shape)
    if runner.takes_pixels:
        kind = "photos of any size" if runner.any_size else "pixels"
        return f"{shape} {runner.input_type}, {kind}, from 0 to 255"
    return f"{shape} {runner.input_type}, normalised: (pixel / 255 - mean) / std"


def _lines(row, reference, takes):
    """Pairs (title, text) of the table."""
    yield "size", f"{row['bytes'] / 1024:,.0f} KiB"
    yield "precision", row["precision"]
    if "ops" in row:
        yield "operations", ", ".join(row["ops"])
    if takes:
        yield "takes", takes
    if "cosine" not in row:
        return
    yield "compared on", f"{len(reference.query_images)} images, {reference.outputs}"
    limit = row["max_difference"]
    bound = "" if limit is None else f" (at most {limit:g})"
    yield "largest difference", f"{row['max_abs_diff']:.1e} of the largest value{bound}"
    limit = MIN_COSINE.get(row["precision"])
    bound = "" if limit is None else f" (at least {limit:g})"
    yield "cosine", f"mean {row['cosine']:.5f}{bound}, worst {row['cosine_min']:.5f}"
    score = reference.score
    if score in row:
        bound = f" (loss at most {MAX_ACCURACY_LOSS:g})" if limit else ""
        title = {"knn_top1": "k-NN top-1", "top1": "top-1"}[score]
        yield title, f"{row[score]:.4f}, in Keras {row[f'{score}_keras']:.4f}{bound}"
    latencies = row.get("latency_ms_by_threads") or {1: row["latency_ms"]}
    timed = [f"{ms:.2f} ms with {n} thread{'s' * (n > 1)}" for n, ms in latencies.items()]
    if "ops" not in row:
        timed = [f"{row['latency_ms']:.2f} ms with TensorFlow's threads"]
    yield "one image", ", ".join(timed)
    if "worst_layers_db" in row:
        worst = [f"{name} {db:.0f} dB" for name, db in row["worst_layers_db"].items()]
        yield "lose most in int8", f"{', '.join(worst)} (--against, quantised here)"
    memory = row["peak_memory_bytes"]
    frame = f", a photo of {PHOTO[1]} x {PHOTO[0]}" if row["any_size"] else ""
    text = "-" if memory is None else f"{memory / 2**20:.1f} MiB beyond the runtime{frame}"
    yield "peak memory", text


def main(argv=None):
    """Returns the exit code."""
    options = _options(argv)
    try:
        return 0 if _run(options) else 3
    except (ValueError, OSError) as error:
        print(f"check: {' '.join(str(error).split())}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
