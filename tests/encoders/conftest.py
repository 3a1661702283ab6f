import pytest
from sklearn.datasets import load_digits


@pytest.fixture(scope="session")
def digits():
    """360 real digits at 32 px, (N, 32, 32, 3) from -2 to 2, and their labels."""
    images, labels = load_digits(return_X_y=True)
    images = images[:360].reshape(-1, 8, 8, 1).repeat(4, 1).repeat(4, 2).repeat(3, 3)
    return (images / 4 - 2).astype("float32"), labels[:360]
