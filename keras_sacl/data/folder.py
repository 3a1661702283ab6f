"""Images in a folder, nested as deep as they like."""

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from keras_sacl.data.source import ImageSource, evenly_spread, parse_split

EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp")
# Counted among the skipped, but neither read nor part of the order and the classes.
_FOREIGN = (".heic", ".heif", ".avif", ".tif", ".tiff", ".dng", ".svg")
# A file of more pixels is not decoded: a picture of a gigabyte, or an attack.
_MOST_PIXELS = 100_000_000
# What TensorFlow says of a file that it cannot decode, and what that means.
_REASONS = {
    "Input is empty": "empty file",
    "Unknown image file format": "no JPEG, PNG, BMP, GIF or WebP image",
    "jpeg::Uncompress": "broken or truncated JPEG",
    "Invalid JPEG": "broken or truncated JPEG",
    "PNG": "broken or truncated PNG",
    "WebP": "broken or truncated WebP",
    "BMP": "broken or truncated BMP",
    "GIF": "broken or truncated GIF",
}
HELD_OUT = 10  # Every tenth image is for testing where there is no folder for it.
_SPLITS = {"train": ("train",), "validation": ("validation", "val"), "test": ("test",)}


def load_folder(path, split, limit=None):
    """Lists the images of a folder and decodes each once to see that it can be.

    Splits: if `path` has a subfolder `train`, then `path/train`, `path/test` and
    `path/validation` (or `val`, which also stands in for a missing `test`) are the splits. Without
    a folder to test on, every tenth image in the order of the sorted paths is `test` and the others
    are `train`. `all` is everything, for pretraining on images that nothing is tested on.

    Labels: if every image lies in a first-level subfolder (of `path`, or of the split's folder)
    and there are at least two of those, they are the classes, sorted by name.

    Photos are turned upright by their EXIF orientation. Hidden files and folders are not looked at.

    Args:
        path: The folder.
        split: "train", "test", "validation" or "all", or a part such as "train[:200]".
        limit: Use at most so many images, evenly spread over the split.

    Returns:
        `ImageSource` of paths. Files that cannot be decoded are in `skipped`.

    Raises:
        ValueError: If the folder, the split or a usable image is missing.
    """
    path = os.path.expanduser(path)
    if not os.path.isdir(path):
        raise ValueError(
            "`dataset` must name a folder that exists, as folder:PATH. "
            f"Received: dataset=folder:{path}"
        )
    name, part = parse_split(split)
    root, files, classes = _split_files(path, name)
    if not files:
        raise ValueError(
            f"`dataset` must name a folder with images ({' '.join(EXTENSIONS)}) for "
            f"split={split}. Received: dataset=folder:{path}, where {root} has none"
        )
    files = files[part(len(files))]
    if limit is not None:
        files = [files[i] for i in evenly_spread(len(files), limit)]
    number = {name: i for i, name in enumerate(classes or ())}
    full = [os.path.join(root, file) for file in files]
    with ThreadPoolExecutor(min(32, 2 * (os.cpu_count() or 1))) as pool:
        checked = list(pool.map(_check, full))
    good = [i for i, (reason, *_) in enumerate(checked) if reason is None]
    skipped = [(f, reason) for f, (reason, *_) in zip(full, checked, strict=True) if reason]
    for file in _list(root, _FOREIGN):
        kind = os.path.splitext(file)[1][1:].upper()
        reason = f"{kind} is not read; convert it to JPEG or PNG"
        skipped.append((os.path.join(root, file), reason))
    if not good:
        first = f": {skipped[0][0]}: {skipped[0][1]}" if skipped else ""
        raise ValueError(
            f"`dataset` must name a folder with images that can be decoded. Received: "
            f"dataset=folder:{path}, split={split}: none of {len(full)} files could{first}"
        )
    orientations = np.array([checked[i][2] for i in good], np.int32)
    return ImageSource(
        images=[full[i] for i in good],
        labels=np.array([number[_first(files[i])] for i in good], np.int64) if classes else None,
        class_names=classes,
        greyscale=all(checked[i][1] for i in good),
        skipped=skipped,
        orientations=orientations if np.any(orientations != 1) else None,
    )


def _split_files(path, name):
    """The root of a split, its files relative to that, sorted, and the classes or None."""
    folders = {
        key: next((d for d in dirs if os.path.isdir(os.path.join(path, d))), None)
        for key, dirs in _SPLITS.items()
    }
    if name not in (*_SPLITS, "all"):
        raise ValueError(
            "`split` must be train, test, validation or all for a folder of images. "
            f"Received: split={name}"
        )
    if folders["train"] is None:
        files = _list(path)
        classes = _classes(files)
        if name == "validation":
            raise ValueError(
                f"`split` must be train, test or all for a folder without {path}/train and "
                f"{path}/validation. Received: split={name}"
            )
        return path, _hold_out(files, name), classes
    listed = {key: _list(os.path.join(path, d)) for key, d in folders.items() if d}
    every = [file for files in listed.values() for file in files]
    classes = _classes(every)
    if name == "all":
        files = [os.path.join(folders[key], file) for key in listed for file in listed[key]]
        # The classes lie one level deeper, seen from the root; labels would be the splits.
        return path, files, None
    key = name
    if name == "test" and folders["test"] is None and folders["validation"]:
        key = "validation"
    if folders[key]:
        files = listed[key]
        if key == "train" and not (folders["test"] or folders["validation"]):
            files = _hold_out(files, "train")
        return os.path.join(path, folders[key]), files, classes
    if name == "test":
        return os.path.join(path, "train"), _hold_out(listed["train"], "test"), classes
    raise ValueError(f"`split` must be one of {sorted(listed)} in {path}. Received: split={name}")


def _hold_out(files, name):
    """The part `name` of sorted files. Sorted paths hold the classes together, so that every
    tenth is a tenth of each class."""
    if name == "all":
        return files
    last = min(HELD_OUT, len(files)) - 1
    return [f for i, f in enumerate(files) if (i % HELD_OUT == last) == (name == "test")]


def _list(root, extensions=EXTENSIONS):
    found, visited = [], set()
    for folder, subfolders, names in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        if real in visited:  # A link to a folder above would never end.
            subfolders.clear()
            continue
        visited.add(real)
        subfolders[:] = sorted(s for s in subfolders if not s.startswith("."))
        found += [
            os.path.relpath(os.path.join(folder, name), root)
            for name in names
            if name.lower().endswith(extensions) and not name.startswith(".")
        ]
    return sorted(found)


def _first(file):
    return file.split(os.sep, 1)[0]


def _classes(files):
    if not all(os.sep in file for file in files):
        return None
    names = sorted({_first(file) for file in files})
    return names if len(names) >= 2 else None


def _check(path):
    """(None, whether it is grey, EXIF orientation) of an image; (reason, None, None) otherwise."""
    import tensorflow as tf

    from keras_sacl.data.decoding import decode, exif_orientation, is_grey, pixel_count

    try:
        with open(path, "rb") as file:
            encoded = file.read()
        if pixel_count(encoded) > _MOST_PIXELS:
            return f"more than {_MOST_PIXELS:,} pixels", None, None
        image = decode(encoded).numpy()
    except OSError as error:
        return error.strerror or str(error), None, None
    except tf.errors.OpError as error:
        for part, reason in _REASONS.items():
            if part in error.message:
                return reason, None, None
        # Without the name of the op before and after the sentence.
        return error.message.split("}} ")[-1].split(" [Op:")[0].rstrip("."), None, None
    return None, is_grey(image), exif_orientation(encoded)
