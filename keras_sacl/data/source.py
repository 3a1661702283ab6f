"""`ImageSource`: the images of a split, as they lie in memory or on disk."""

import dataclasses
import re

import numpy as np


@dataclasses.dataclass(frozen=True, eq=False)
class ImageSource:
    """Images with or without labels.

    Attributes:
        images: A uint8 array (N, H, W, 3) of small images of one size; or a list of N encoded
            images (bytes); or a list of N paths (str). JPEG, PNG, BMP, GIF or WebP.
        labels: int64 array (N,), one class for each image; or multi-hot (N, C), 1 for a class that
            is in the image; or None. -1 means that an image has no label; in multi-hot labels,
            that it is left open whether the class counts (VOC's "difficult" objects).
        class_names: Names of the labels 0, 1, ..., or None.
        greyscale: Whether no image has colours (they have three equal channels then).
        skipped: List of (path, reason), the files that were left out.
        orientations: EXIF codes (N,) of files, 1 to 8, by which `reader` turns them upright; or
            None, where all are.
    """

    images: np.ndarray | list
    labels: np.ndarray | None = None
    class_names: list | None = None
    greyscale: bool = False
    skipped: list = dataclasses.field(default_factory=list)
    orientations: np.ndarray | None = None

    def __len__(self):
        return len(self.images)

    @property
    def decoded(self):
        """Whether `images` is an array of pixels."""
        return isinstance(self.images, np.ndarray)

    @property
    def paths(self):
        """Whether `images` is a list of paths."""
        return not self.decoded and isinstance(self.images[0], str)

    def take(self, count):
        """At most `count` images, evenly spread, so that images sorted by class keep all classes.

        Args:
            count: Number of images, at least 1; None takes all.
        """
        if count is None or count >= len(self):
            return self
        return self.select(evenly_spread(len(self), count))

    def select(self, chosen):
        """The images of some indices, (M,) integers, in their order; one may come repeatedly."""
        images = self.images[chosen] if self.decoded else [self.images[i] for i in chosen]
        labels = None if self.labels is None else self.labels[chosen]
        turned = None if self.orientations is None else self.orientations[chosen]
        return dataclasses.replace(self, images=images, labels=labels, orientations=turned)


def evenly_spread(total, count):
    """`count` increasing indices (int64 array) below `total`; all of them if count is not less."""
    if count < 1:
        raise ValueError(f"`limit` must be at least 1. Received: limit={count}")
    count = min(count, total)
    return np.arange(count) * total // count


def parse_split(split):
    """Reads `name` or `name[from:to]`, the part of TFDS' split syntax that folders know too.

    Args:
        split: Such as "train", "train[:200]", "test[10%:]".

    Returns:
        (name, function): the function gives the slice of a sequence's length.

    Raises:
        ValueError: If the text is none of that.
    """
    found = re.fullmatch(r"(\w+)(?:\[(-?\d+%?)?:(-?\d+%?)?\])?", split)
    if not found:
        raise ValueError(
            "`split` must be a name such as train or test, or a part of it such as train[:200] "
            f"or test[:10%]. Received: split={split}"
        )
    name, start, stop = found.groups()

    def part(length):
        def position(text):
            if text is None or not text.endswith("%"):
                return text and int(text)
            return round(length * int(text[:-1]) / 100)

        return slice(position(start), position(stop))

    return name, part
