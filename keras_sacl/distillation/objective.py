"""What the distillation objectives share."""

import typing

import keras

from keras_sacl.heads import build_projector


class Widths(typing.NamedTuple):
    """What an objective has to make its heads and queues from.

    Attributes:
        features: F.
        embeddings: D of the projector. Of a student without one None, of a teacher F.
    """

    features: int
    embeddings: int | None


class Objective(keras.layers.Layer):
    """One way for a student to imitate a teacher.

    An objective of your own is a subclass with `loss`, and with `connect` if it has weights:

        @keras.saving.register_keras_serializable("my_package")
        class Mine(Objective):
            def loss(self, student, teacher):
                return my_loss(student.features, teacher.features)

    Attributes (of the class):
        views: How many of the two views student and teacher encode; the losses are added up.
        needs_maps: Whether `Encodings.maps` are to be there.
        needs_mean: Whether `Encodings.mean` of the student is: what its mean over its own past
            makes of the view.
    """

    views = 1
    needs_maps = False
    needs_mean = False

    def __init__(self, **kwargs):
        # Of its own reads of variables; heads are Keras models and cast for themselves.
        precise = keras.config.dtype_policy().variable_dtype
        super().__init__(**{"dtype": precise, **kwargs})
        self.built = True

    def connect(self, student, teacher):
        """Makes the variables, called once before training.

        Args:
            student, teacher: `Widths`.
        """

    def loss(self, student, teacher):
        """The loss of one view: override this. No gradient reaches the teacher.

        Args:
            student, teacher: `Encodings` of one view by the two; features are (N, F) and
                embeddings (N, D) of the images of all replicas, maps are this replica's.

        Returns:
            A scalar.
        """
        raise AttributeError(f"{type(self).__name__} must define `loss(self, student, teacher)`.")


class HeadObjective(Objective):
    """An objective in the space of the teacher's embeddings.

    The student comes there by its projector where its width is the teacher's, as in the papers,
    and else by a head of the objective's own: linear - ReLU - linear on the student's features.

    Args:
        hidden: Hidden width of that head.
    """

    def __init__(self, hidden=2048, **kwargs):
        super().__init__(**kwargs)
        self.hidden, self.head = hidden, None

    def connect(self, student, teacher):
        if student.embeddings != teacher.embeddings:
            widths = self.hidden, teacher.embeddings
            self.head = build_projector(student.features, widths, batch_norm=False)

    def embed(self, student):
        """(N, D) embeddings of the student in the teacher's space, not normalised."""
        if self.head is None:
            return student.embeddings
        return self.head(student.features, training=True)

    def get_config(self):
        return {**super().get_config(), "hidden": self.hidden}
