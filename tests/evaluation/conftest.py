import pytest
from sklearn.datasets import load_digits


@pytest.fixture(scope="session")
def digits():
    """Real pixels as features: (1200, 64) float32 and labels, then 597 more of both to test on."""
    x, y = load_digits(return_X_y=True)
    x = x.astype("float32")
    x.setflags(write=False)
    return x[:1200], y[:1200], x[1200:], y[1200:]
