"""What the network is shown: pictures of both views of some images, for each preset.

python -m keras_sacl.report.views --output=docs
"""

import dataclasses
import sys
from pathlib import Path

import numpy as np
import tensorflow as tf

from keras_sacl.command_line import OneLineParser
from keras_sacl.data import (
    PRESETS,
    ImageSource,
    get_preset,
    load_source,
    raw_batches,
    two_view_dataset,
)

_GAP, _BACKGROUND = 4, 255


def view_rows(source, preset_pair, *, image_size, pairs, seed=0):
    """Some images, and pairs of views of each.

    The views come from the pipeline that training uses, without its normalisation.

    Args:
        source: `ImageSource` of a few images.
        preset_pair: (`ViewPreset`, `ViewPreset`).
        image_size: Side of each picture, in pixels.
        pairs: Pairs of views of each image, at least 2.
        seed: Of the augmentations.

    Returns:
        A list with (image, [(view A, view B), ...]) for each image: uint8 (S, S, 3) all.
    """
    rows = []
    for i, (original, _) in enumerate(raw_batches(source, image_size=image_size, batch_size=1)):
        views = two_view_dataset(
            _repeated(source, i, pairs),
            preset_pair,
            image_size=image_size,
            batch_size=pairs,
            seed=seed + i,
            epochs=1,
            mean=(0.0, 0.0, 0.0),
            std=(1.0, 1.0, 1.0),
        )
        view_a, view_b = next(iter(views))
        pictures = zip(_pixels(view_a.numpy()), _pixels(view_b.numpy()), strict=True)
        rows.append((original[0].numpy(), list(pictures)))
    return rows


def views_picture(rows):
    """`view_rows` as one picture, uint8 (H, W, 3): a row for each image."""
    lines = []
    for image, pairs in rows:
        space = _space(len(image), 3 * _GAP)
        line = [image]
        for pair in pairs:
            line += [space, *pair]
        lines += [np.concatenate(line, axis=1)]
    space = _space(_GAP, lines[0].shape[1])
    return np.concatenate([part for line in lines for part in (line, space)][:-1])


def _repeated(source, index, count):
    """One image of a source, `count` times."""
    return dataclasses.replace(source.select(np.full(count, index)), labels=None)


def _space(height, width):
    return np.full((height, width, 3), _BACKGROUND, np.uint8)


def _pixels(view):
    return np.clip(np.round(255 * view), 0, 255).astype(np.uint8)


def _photographs():
    """The two photographs that come with scikit-learn, as JPEG."""
    import sklearn.datasets

    folder = Path(sklearn.datasets.__file__).parent / "images"
    return ImageSource([(folder / name).read_bytes() for name in ("china.jpg", "flower.jpg")])


def main():
    parser = OneLineParser("views", __doc__)
    parser.add_argument("--output", default=".", help="folder for views_PRESET.png")
    parser.add_argument("--presets", default=",".join(PRESETS), help="presets, by commas")
    parser.add_argument("--dataset", help="as of train.py; default: two photographs")
    parser.add_argument("--split", default="train", help="as --train_split of train.py")
    parser.add_argument("--data_dir", help="where TFDS data sets lie")
    parser.add_argument("--image_size", type=int, default=112, help="side of a view, in pixels")
    parser.add_argument("--images", type=int, default=4, help="at most so many images")
    parser.add_argument("--pairs", type=int, default=3, help="pairs of views of each image")
    parser.add_argument("--seed", type=int, default=0, help="of the augmentations")
    options = parser.parse_args()
    try:
        if options.pairs < 2:
            raise ValueError(f"`pairs` must be at least 2. Received: pairs={options.pairs}")
        source = _photographs()
        if options.dataset:
            source = load_source(
                options.dataset, options.split, data_dir=options.data_dir,
                image_size=options.image_size, limit=options.images,
            )  # fmt: skip
        chosen = {name: get_preset(name) for name in options.presets.split(",")}
    except ValueError as error:
        print(f"views: {error}", file=sys.stderr)
        return 2
    folder = Path(options.output)
    folder.mkdir(parents=True, exist_ok=True)
    for name, preset_pair in chosen.items():
        rows = view_rows(
            source, preset_pair, image_size=options.image_size, pairs=options.pairs,
            seed=options.seed,
        )  # fmt: skip
        path = folder / f"views_{name}.png"
        path.write_bytes(tf.io.encode_png(views_picture(rows)).numpy())
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
