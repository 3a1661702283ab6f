import socket

import keras
import pytest
import tensorflow as tf

from keras_sacl.encoders import build_encoder
from tests.evaluation.detection.shapes import SaclShapes


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """keras-cv's presets would download their configuration."""

    def refuse(*_):
        raise AssertionError("the network was used")

    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.fixture
def eager():
    """For trainings of few steps, whose graph would take longer to trace than they take."""
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


@pytest.fixture(scope="session")
def prepared(tmp_path_factory):
    """A `data_dir` with sacl_shapes, and an encoder.keras beside it."""
    folder = tmp_path_factory.mktemp("tfds")
    SaclShapes(data_dir=folder).download_and_prepare()
    keras.utils.set_random_seed(0)
    encoder = build_encoder("mobilenet_v1", width=0.25, image_size=64)
    encoder.save(folder / "encoder.keras")
    return folder
