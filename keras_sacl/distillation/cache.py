"""What a teacher gives for each image, computed once and kept on disk."""

import hashlib
import json
import os
from pathlib import Path

import numpy as np

_FORMAT = 2


def cached_rows(teacher, batches, count, directory, key, say=print):
    """The teacher's features and embeddings of all images, from disk where they are there.

    They lie in rows-HASH.npy, the hash being that of `key`, so that rows of several teachers and
    data sets can share a directory; what stands under that name is whole. rows-HASH.json says what
    they are of.

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
    text = json.dumps({"format": _FORMAT, "images": count, **key}, indent=2, sort_keys=True)
    path = directory / f"rows-{hashlib.sha256(text.encode()).hexdigest()[:16]}.npy"
    if path.is_file():
        try:
            rows = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            say(f"{path} cannot be read ({error}); the teacher runs once more")
        else:
            if len(rows) == count:
                say(f"teacher's embeddings: {path}")
                return rows
    directory.mkdir(parents=True, exist_ok=True)
    say(f"the teacher runs once over {count} images, into {path}")
    # Under a name of this process: two runs may be writing the same rows.
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    try:
        _write(teacher, batches, count, temporary)
        path.with_suffix(".json").write_text(text + "\n", encoding="utf-8")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return np.load(path, mmap_mode="r", allow_pickle=False)


def _write(teacher, batches, count, path):
    done = 0
    # Not through a memory map: on a full disk that ends the process by a signal.
    with path.open("wb") as file:
        for images, _ in batches:
            found = np.asarray(teacher(images), np.float32)
            if not np.isfinite(found).all():
                raise ValueError("`teacher` gives embeddings that are not finite")
            if not done:
                shape = count, found.shape[1]
                header = {"descr": "<f4", "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_2_0(file, header)
            file.write(np.ascontiguousarray(found, "<f4"))
            done += len(found)
        file.flush()
        os.fsync(file.fileno())
    if done != count:
        raise ValueError(f"the data hold {done} images where {count} were counted")
