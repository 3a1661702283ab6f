"""A teacher, and the weighted objectives by which a student imitates it."""

import keras
import tensorflow as tf

from keras_sacl.distillation.objective import Widths
from keras_sacl.encodings import Encodings
from keras_sacl.frozen import MomentumNetwork
from keras_sacl.stage_maps import stage_maps


@keras.saving.register_keras_serializable("keras_sacl")
class Distiller(keras.layers.Layer):
    """Adds to a method's loss: sum over the objectives of weight times loss.

        teacher = keras.models.load_model("teacher.keras")
        distiller = Distiller({"disco": DisCo(), "rkd": RKD()}, {"rkd": 0.5}, teacher)
        method = MoCoV2(encoder, projector, distiller=distiller)

    The teacher is frozen, runs in inference mode, and sees each view once in a step, whatever the
    number of objectives; views that no objective asks for it does not see.

    Args:
        objectives: A dict from a name, as the logs have it, to an `Objective`.
        weights: A dict from names to weights; 1 where a name is missing.
        teacher: A `keras.Model`, normalised views (B, H, W, C) to (B, E) features. None if the
            data bring rows of its features and embeddings side by side.
        teacher_projector: A `keras.Model` of its features to its embeddings, or None.
        teacher_widths: (features, embeddings) of the rows, without a teacher.
        momentum: Of the mean student, for the objectives that need one.

    Raises:
        ValueError: On an unknown name, or without both teacher and widths.
    """

    def __init__(
        self, objectives, weights=None, teacher=None, teacher_projector=None, teacher_widths=None,
        momentum=0.999, **kwargs,
    ):  # fmt: skip
        super().__init__(**kwargs)
        unknown = set(weights or ()) - set(objectives)
        if unknown or not objectives:
            raise ValueError(
                "`weights` must be of objectives that are there. "
                f"Received: weights={weights}, objectives={list(objectives)}"
            )
        if (teacher is None) == (teacher_widths is None):
            raise ValueError(
                "Either `teacher` or `teacher_widths` must be given. "
                f"Received: teacher={teacher}, teacher_widths={teacher_widths}"
            )
        self.objectives = dict(objectives)
        self.weight_of = {name: (weights or {}).get(name, 1.0) for name in objectives}
        self.teacher, self.teacher_projector = teacher, teacher_projector
        for network in (teacher, teacher_projector):
            if network is not None:
                network.trainable = False
        self.teacher_widths = teacher_widths or (
            teacher.output_shape[-1], (teacher_projector or teacher).output_shape[-1],
        )  # fmt: skip
        self.momentum, self.mean_student = momentum, None
        self._teacher_pass = self.with_maps(teacher) if self.needs_maps else teacher
        self.built = True

    @property
    def needs_maps(self):
        """Whether student and teacher are to give the last maps of their stages."""
        return any(objective.needs_maps for objective in self.objectives.values())

    @property
    def frozen_variables(self):
        """The teacher's variables."""
        networks = filter(None, (self.teacher, self.teacher_projector))
        return [v for network in networks for v in network.variables]

    def with_maps(self, network):
        """A network that gives its features and, behind them, the last map of each stage.

        Raises:
            ValueError: If the network is no functional one, or has no maps.
        """
        return keras.Model(network.inputs[0], [network.output, *stage_maps(network).values()])

    def connect(self, encoder, projector):
        """Makes the objectives' heads and queues for a student.

        Args:
            encoder: The student's, or a `SlimmableEncoder`.
            projector: The student's, or None.
        """
        needs_mean = any(objective.needs_mean for objective in self.objectives.values())
        if (self.needs_maps or needs_mean) and not hasattr(encoder, "operations"):
            raise ValueError(
                "`encoder` must be a functional keras.Model for objectives that look into it, "
                f"not a host with a slim view. Received: encoder={encoder}"
            )
        student = Widths(encoder.output_shape[-1], projector and projector.output_shape[-1])
        for objective in self.objectives.values():
            objective.connect(student, Widths(*self.teacher_widths))
        if needs_mean:
            self.mean_student = MomentumNetwork(encoder, self.momentum)

    def terms(self, encode, views, rows=None):
        """The loss of each objective.

        Args:
            encode: A function from a view to the student's `Encodings`.
            views: The two views (B, H, W, C) of this replica.
            rows: (B, E + D) teacher's features and embeddings, where there is no teacher: of the
                images, whatever the view. (B, E) of a teacher without projector.

        Returns:
            A dict from name to a scalar, not weighted.
        """
        if self.mean_student is not None:
            self.mean_student.update()
        seen = max(objective.views for objective in self.objectives.values())
        teachers = [self._teach(view, rows) for view in views[:seen]]
        students = [encode(view) for view in views[:seen]]
        if self.mean_student is not None:
            students[0].mean = Encodings(self.mean_student(views[0]))
        return {
            name: sum(map(objective.loss, students[: objective.views], teachers))
            for name, objective in self.objectives.items()
        }

    def _teach(self, view, rows):
        features = self.teacher_widths[0]
        if self.teacher is None:
            if rows.shape[1] == features:
                return Encodings(rows)
            return Encodings(rows[:, :features], lambda _: rows[:, features:])
        outputs = self._teacher_pass(view, training=False)
        found, *maps = outputs if self.needs_maps else [outputs]
        found, *maps = (tf.stop_gradient(x) for x in (found, *maps))
        if self.teacher_projector is None:
            return Encodings(found, maps=maps)
        return Encodings(found, lambda x: self.teacher_projector(x, training=False), maps)

    def get_config(self):
        serialize = keras.saving.serialize_keras_object
        return {
            **super().get_config(),
            "objectives": {name: serialize(o) for name, o in self.objectives.items()},
            "weights": dict(self.weight_of),
            "teacher": serialize(self.teacher),
            "teacher_projector": serialize(self.teacher_projector),
            "teacher_widths": list(self.teacher_widths) if self.teacher is None else None,
            "momentum": self.momentum,
        }

    @classmethod
    def from_config(cls, config):
        config = dict(config)
        deserialize = keras.saving.deserialize_keras_object
        config["objectives"] = {k: deserialize(v) for k, v in config["objectives"].items()}
        for key in ("teacher", "teacher_projector"):
            config[key] = deserialize(config[key])
        return cls(**config)
