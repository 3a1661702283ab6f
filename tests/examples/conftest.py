import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_image

from tests.tiny_classifier import tiny_files

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="session")
def classifier():
    return tiny_files()[0]


@pytest.fixture(scope="session")
def files():
    """Exported files by (name of the input, name of the file)."""
    return tiny_files()[1]


@pytest.fixture(scope="session")
def photos(tmp_path_factory):
    """Two files of photos without loss, neither square nor equal in size."""
    folder = tmp_path_factory.mktemp("photos")
    china, flower = (load_sample_image(name) for name in ("china.jpg", "flower.jpg"))
    Image.fromarray(china).save(folder / "china.png")
    Image.fromarray(np.rot90(flower)[:601, :399]).save(folder / "flower.png")
    return [folder / "china.png", folder / "flower.png"]


@pytest.fixture
def examples(monkeypatch):
    """The folder of the examples, whose modules can be imported by their names."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    monkeypatch.syspath_prepend(str(EXAMPLES / "web"))
    yield EXAMPLES
    for name in ("photo", "build", *(path.stem for path in EXAMPLES.glob("classify_*.py"))):
        sys.modules.pop(name, None)
