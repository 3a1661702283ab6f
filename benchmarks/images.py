"""Real images for the benchmarks: CIFAR-10 and Grocery Store, or crops of two photographs."""

import io

import numpy as np


def small_images(data_dir, count=5000):
    """`ImageSource` of decoded 32 px images: CIFAR-10 in `data_dir`, or crops without it."""
    from keras_sacl.data import ImageSource, load_source

    if data_dir:
        return load_source("cifar10", f"train[:{count}]", data_dir=data_dir, image_size=32)
    return ImageSource(np.stack([crop[::2, ::2] for crop in _crops(count, 64, 64)]))


def photos(data_dir, count=600):
    """`ImageSource` of JPEG bytes: Grocery Store in `data_dir`, or crops of its usual size."""
    from PIL import Image

    from keras_sacl.data import ImageSource, load_source

    if data_dir:
        return load_source("grocery_store", f"train[:{count}]", data_dir=data_dir, image_size=224)
    encoded = []
    for crop in _crops(count, 348, 464):
        file = io.BytesIO()
        Image.fromarray(crop).save(file, "JPEG", quality=90)
        encoded.append(file.getvalue())
    return ImageSource(encoded)


def _crops(count, height, width):
    from sklearn.datasets import load_sample_images

    rng = np.random.default_rng(0)
    pair = load_sample_images().images
    for i in range(count):
        photo = pair[i % 2]
        top = rng.integers(0, photo.shape[0] - height + 1)
        left = rng.integers(0, photo.shape[1] - width + 1)
        yield photo[top : top + height, left : left + width]
