"""int8 that keeps its accuracy: where it is lost, and what helps after training."""

from keras_sacl.export.integers.equalisation import equalise
from keras_sacl.export.integers.layer_errors import LayerError, layer_errors, worst_layers

__all__ = ["LayerError", "equalise", "layer_errors", "worst_layers"]
