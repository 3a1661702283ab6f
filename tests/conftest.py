import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import pathlib  # noqa: E402

import numpy as np  # noqa: E402
import pytest  # noqa: E402


@pytest.fixture(scope="session")
def tfds_dir():
    """Directory with CIFAR-10 and Grocery Store as TFDS prepared them."""
    beside = pathlib.Path(__file__).parents[2] / "shared" / "tfds"
    path = os.environ.get("KERAS_SACL_TFDS", str(beside))
    if not os.path.isdir(path):
        pytest.skip("needs CIFAR-10 and Grocery Store in TFDS format: set KERAS_SACL_TFDS")
    return path


@pytest.fixture(scope="session")
def digit_images():
    """(images, labels): 1,797 real images, float32 (N, 32, 32, 3) in [0, 1], and int64 (N,)."""
    from sklearn.datasets import load_digits

    data = load_digits()
    images = np.kron(data.images / 16, np.ones((4, 4)))  # 8 to 32 px, each pixel 4 x 4 times
    images = np.repeat(images[..., None], 3, axis=-1).astype(np.float32)
    images.setflags(write=False)
    return images, data.target.astype(np.int64)


def pytest_collection_modifyitems(items):
    """Puts first what starts processes of its own: last, it would keep one core waiting."""
    long_ones = ("test_replicas", "test_workers", "test_faults", "test_train")
    items.sort(key=lambda item: not item.path.stem.startswith(long_ones))
