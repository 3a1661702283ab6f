"""A method against a distillation whose teacher may be charged for."""

import dataclasses

from keras_sacl.costs.passes import METHODS
from keras_sacl.costs.training import Cost, training_cost


@dataclasses.dataclass(frozen=True)
class Comparison:
    """A method against a distillation whose teacher may be charged for.

    Attributes:
        own, rival: `Cost` of the two; the rival's is taken without its teacher's pretraining.
        teacher_epoch: FLOPs of one epoch of that pretraining.
    """

    own: Cost
    rival: Cost
    teacher_epoch: float

    def ratio(self, teacher_epochs=0):
        """How many times the rival costs, its teacher pretrained for so many epochs."""
        return (self.rival.per_run + teacher_epochs * self.teacher_epoch) / self.own.per_run

    def teacher_epochs_for(self, ratio):
        """The epochs of teacher pretraining that make `ratio`; negative: fewer than none."""
        return (ratio * self.own.per_run - self.rival.per_run) / self.teacher_epoch

    def epochs_for(self, ratio, teacher_epochs):
        """The epochs of the own method that make `ratio` with such a teacher."""
        return self.ratio(teacher_epochs) / ratio * self.own.epochs


def compare(method, rival, slim, *, teacher, host=None, epochs=None, rival_epochs=None, **settings):
    """Sets a method against a distillation of the same encoder.

    Args:
        method: Name of the method that needs no teacher.
        rival: Name of the one that does.
        slim, teacher, host: As in `training_cost`.
        epochs, rival_epochs: Of the two; None: the papers'.
        **settings: `batch_size`, `images` and `encoders_only` of `training_cost`, for both.

    Returns:
        A `Comparison`.

    Raises:
        ValueError: As `training_cost`, and if `rival` has no teacher.
    """
    if rival not in METHODS or not METHODS[rival].needs("teacher"):
        names = ", ".join(name for name in METHODS if METHODS[name].needs("teacher"))
        raise ValueError(f"`rival` must be one of {names}. Received: rival={rival!r}")
    own = training_cost(method, slim, host=host, teacher=teacher, epochs=epochs, **settings)
    other = training_cost(rival, slim, teacher=teacher, epochs=rival_epochs, **settings)
    return Comparison(own, other, training_cost("moco_v2", teacher, epochs=1, **settings).per_run)
