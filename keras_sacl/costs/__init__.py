"""What pretraining costs, counted from the layers: FLOPs per image, step, epoch and run.

A multiply-add is two FLOPs. A pass with gradient counts three times its forward pass (the
gradients of the activations and of the weights are as much work each; the first layer needs only
one of them, which is left uncounted), a frozen pass once. Convolutions, dense layers, attention
and the matrix products of the losses count; normalisations, activations, augmentation and the
optimizer, a few percent, do not. The slim network runs sliced: by masks its passes cost the host's.
"""

from keras_sacl.costs.comparison import Comparison, compare
from keras_sacl.costs.networks import Network, measure, measure_model
from keras_sacl.costs.objectives import added_work
from keras_sacl.costs.passes import METHODS, PUBLISHED, Options
from keras_sacl.costs.training import IMAGENET_IMAGES, PARTS, Cost, training_cost

__all__ = [
    "IMAGENET_IMAGES",
    "METHODS",
    "PARTS",
    "PUBLISHED",
    "Comparison",
    "Cost",
    "Network",
    "Options",
    "added_work",
    "compare",
    "measure",
    "measure_model",
    "training_cost",
]
