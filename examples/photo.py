"""What the clients classify_*.py share: a photo from a file to the tensor that a model takes.

Copy it beside the client of your runtime; of packages it needs NumPy and Pillow alone. The pixels
are those that the model was trained and tested on: the centred square, resized by a triangle filter
that is as wide as an output pixel (bilinear and antialiased), rounded to uint8.
"""

import argparse
import json
import sys

import numpy as np
from PIL import Image, ImageOps

# What keras_sacl trains with; files with a model card name their own.
IMAGENET = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
PHOTO_SHARE = 0.875  # of the shorter side, where a card does not say


def load_photo(path):
    """The pixels of an image file, upright: (H, W, 3) uint8."""
    with Image.open(path) as image:
        return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))


def crop_and_resize(photo, size, share=PHOTO_SHARE):
    """The centred square of `share` of the shorter side: (size, size, 3) uint8."""
    height, width, _ = photo.shape
    side = share * min(height, width)
    left, top = (width - side) / 2, (height - side) / 2
    box = left, top, left + side, top + side
    # As floats: Pillow rounds bytes a second time, between rows and columns.
    planes = [
        Image.fromarray(np.ascontiguousarray(photo[..., c], "float32")).resize(
            (size, size), Image.Resampling.BILINEAR, box
        )
        for c in range(3)
    ]
    return np.rint(np.stack(planes, axis=-1)).clip(0, 255).astype("uint8")


def prepare(photo, contract):
    """A batch of one, as the model's input is declared.

    Args:
        photo: (H, W, 3) uint8.
        contract: The entry "input" of a model card. Its "name" says what the model takes: "photos",
            uint8 of any height and width, cropped and resized inside; "pixels", uint8 of its own
            size; "images", float32 of its own size, (pixel / 255 - mean) / std.

    Returns:
        (1, H, W, 3), or (1, 3, H, W) for the layout "nchw".
    """
    if not contract.get("any_size"):
        photo = crop_and_resize(photo, contract["size"], contract.get("crop_share", PHOTO_SHARE))
    if contract["name"] == "images":
        mean, std = np.float32(contract["mean"]), np.float32(contract["std"])
        photo = (photo.astype("float32") / 255 - mean) / std
    batch = photo[None]
    if contract["layout"] == "nchw":
        batch = np.ascontiguousarray(batch.transpose(0, 3, 1, 2))
    return batch


def card_and_labels(texts):
    """(model card, names of the classes or None), from what a file holds: names to texts."""
    if "model_card.json" not in texts:
        raise ValueError("holds no model card")
    card = json.loads(texts["model_card.json"])
    if card["output"]["name"] != "logits":
        raise ValueError(f"gives {card['output']['name']}: it is no classifier")
    labels = texts.get("labels.txt")
    return card, None if labels is None else labels.splitlines()


def softmax(logits):
    """Logits (N,) to probabilities."""
    grown = np.exp(logits - np.max(logits))
    return grown / grown.sum()


def options(text):
    """The parser of a client's options; `text` is its docstring."""
    parser = argparse.ArgumentParser(description=text.splitlines()[0], allow_abbrev=False)
    parser.error = fail  # one line, without the usage
    parser.add_argument("model", help="the exported classifier")
    parser.add_argument("photo", help="JPEG, PNG or what else Pillow reads")
    return parser


def classify(open_model, path, photo, top=5):
    """Prints the most probable classes of a photo.

    Args:
        open_model: A function from a path to (contract, labels, run): see `prepare`; the names of
            the classes or None; and a function from a batch to the logits (N,) of its one photo.
        path: The model.
        photo: Path of the image.
        top: How many classes are printed.
    """
    try:
        contract, labels, run = open_model(path)
    except Exception as error:  # each runtime has its own kinds for a broken file
        fail(f"{path}: {error}")
    try:
        pixels = load_photo(photo)
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        fail(f"{photo}: {error}")
    try:
        logits = np.asarray(run(prepare(pixels, contract)), "float64")
    except Exception as error:  # and others for one that fails as it runs
        fail(f"{path}: {error}")
    probabilities = softmax(logits)
    for i in np.argsort(-probabilities, kind="stable")[:top]:
        print(f"{probabilities[i]:.4f}  {labels[i] if labels else f'class {i}'}")


def fail(message):
    """Ends the program with one line on stderr and exit code 2."""
    print(f"classify: {' '.join(str(message).split())[:300]}", file=sys.stderr)
    sys.exit(2)
