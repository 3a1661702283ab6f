"""Whether two sources hold the same images."""

import hashlib
from pathlib import Path

import numpy as np

_HEAD = 65_536  # bytes


def content_hash(source):
    """SHA-256 over the images of a source, in their order, as a hexadecimal string.

    Of pixels and of encoded images all bytes count; of files their sizes and first 64 KiB, since
    all bytes of a large data set take as long to read as its images take to train on.

    Args:
        source: `ImageSource`.
    """
    digest = hashlib.sha256()
    if source.decoded:
        digest.update(repr(source.images.shape).encode())
        digest.update(np.ascontiguousarray(source.images))
        return digest.hexdigest()
    for image in source.images:
        if isinstance(image, str):
            path = Path(image)
            with path.open("rb") as file:
                image = path.stat().st_size.to_bytes(8) + file.read(_HEAD)
        digest.update(len(image).to_bytes(8) + image)
    if source.orientations is not None:
        digest.update(np.ascontiguousarray(source.orientations))
    return digest.hexdigest()
