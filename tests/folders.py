"""Folders of images for the tests."""

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits


def write_digits(folder, count):
    """Writes digits as JPEG files in two classes, three of four for train and one for test."""
    digits = load_digits()
    pixels = np.kron(digits.images, np.ones((2, 2))) * 15
    for i in range(count):
        where = folder / ("test" if i % 4 == 3 else "train") / f"class{digits.target[i] % 2}"
        where.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels[i].astype("uint8")).convert("RGB").save(where / f"{i:04d}.jpg")
