"""What a teacher gives for each image, computed once and kept on disk."""

import json
import os
import tempfile
from pathlib import Path

import numpy as np

_FORMAT = 1


def cached_rows(teacher, batches, count, directory, key, say=print):
    """The teacher's features and embeddings of all images, from disk where they are there.

    Two files, rows.npy and rows.json; the latter holds `key`, is written last, and is what makes
    the rows valid. Rows of another key are computed anew.

    Args:
        teacher: A function of images (B, H, W, 3) to (B, W) rows.
        batches: A `tf.data.Dataset` of (images, labels), in order.
        count: N, the number of images.
        directory: Where the files lie; it is made when needed.
        key: A dict of texts and numbers: what the rows hang on, such as content hashes.
        say: Called with lines for the user.

    Returns:
        (N, W) float32 memory map, not writable.

    Raises:
        OSError: If the file system refuses.
        ValueError: If a row is not finite.
    """
    directory = Path(directory)
    rows_file, key_file = directory / "rows.npy", directory / "rows.json"
    key = {"format": _FORMAT, "images": count, **key}
    if _read(key_file) == key:
        try:
            rows = np.load(rows_file, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            say(f"{rows_file} cannot be read ({error}); the teacher runs once more")
        else:
            if len(rows) == count:
                say(f"teacher's embeddings: {rows_file}")
                return rows
    elif key_file.exists():
        say(f"{rows_file} is of another teacher or of other images; the teacher runs once more")
    key_file.unlink(missing_ok=True)
    directory.mkdir(parents=True, exist_ok=True)
    say(f"the teacher runs once over {count} images, into {rows_file}")
    # A folder of its own: of two runs that share the directory, each may be writing.
    with tempfile.TemporaryDirectory(dir=directory, prefix="writing-") as folder:
        _write(teacher, batches, count, Path(folder, rows_file.name))
        Path(folder, key_file.name).write_text(json.dumps(key, indent=2), encoding="utf-8")
        for path in (rows_file, key_file):
            os.replace(Path(folder, path.name), path)
    return np.load(rows_file, mmap_mode="r", allow_pickle=False)


def _write(teacher, batches, count, path):
    rows, done = None, 0
    for images, _ in batches:
        found = np.asarray(teacher(images), np.float32)
        if not np.isfinite(found).all():
            raise ValueError("the teacher gives embeddings that are not finite")
        if rows is None:
            shape = count, found.shape[1]
            rows = np.lib.format.open_memmap(path, "w+", np.float32, shape)
        rows[done : done + len(found)] = found
        done += len(found)
    if done != count:
        raise ValueError(f"the data hold {done} images where {count} were counted")
    rows.flush()


def _read(key_file):
    try:
        return json.loads(key_file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
