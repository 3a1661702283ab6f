"""What the distillation objectives add to a step, beside passes of student and teacher."""

import functools
import typing

from keras_sacl.costs.products import projector_flops, similarity_flops
from keras_sacl.distillation import (
    AT,
    CC,
    CRD,
    RKD,
    SEED,
    CompRess1Q,
    CompRess2Q,
    DisCo,
    HeadObjective,
    Reg,
)


class Work(typing.NamedTuple):
    """FLOPs of one view of a batch of N, gradients counted.

    Attributes:
        heads: Of the objective's own layers on the student's features.
        teacher_heads: Of those on the teacher's.
        loss: Of the matrix products of the loss.
    """

    heads: int = 0
    teacher_heads: int = 0
    loss: int = 0


@functools.singledispatch
def added_work(objective, n, student, teacher):
    """The work of an objective. For one of your own: `added_work.register`.

    Args:
        objective: An `Objective`, connected or not.
        n: N, images of a step.
        student, teacher: `Widths`, as in `Objective.connect`.

    Returns:
        A `Work`.

    Raises:
        ValueError: On one that is not registered.
    """
    raise ValueError(
        "`objectives` must be of this library, or registered by `added_work.register`. "
        f"Received: objective={objective!r}"
    )


def shares_projector(objective, student, teacher):
    """Whether it compares embeddings of the student's projector, as `HeadObjective` decides.

    Args: as in `added_work`.
    """
    return isinstance(objective, HeadObjective) and student.embeddings == teacher.embeddings


def _head(objective, n, student, teacher):
    if shares_projector(objective, student, teacher):
        return 0
    return 3 * n * projector_flops(student.features, (objective.hidden, teacher.embeddings))


@added_work.register
def _disco(objective: DisCo, n, student, teacher):
    return Work(_head(objective, n, student, teacher))


@added_work.register
def _seed(objective: SEED, n, student, teacher):
    # The teacher's similarities, and the student's with their gradient.
    products = similarity_flops(n, teacher.embeddings, objective.queue_size, products=3)
    return Work(_head(objective, n, student, teacher), loss=products)


@added_work.register
def _compress_1q(objective: CompRess1Q, n, student, teacher):
    products = similarity_flops(n, teacher.features, objective.queue_size, products=3)
    return Work(3 * n * projector_flops(student.features, (teacher.features,)), loss=products)


@added_work.register
def _compress_2q(objective: CompRess2Q, n, student, teacher):
    anchors = objective.queue_size
    own = similarity_flops(n, student.features, anchors, products=2)
    return Work(loss=own + similarity_flops(n, teacher.features, anchors))


@added_work.register
def _at(objective: AT, n, student, teacher):
    return Work()  # maps of one channel


@added_work.register
def _rkd(objective: RKD, n, student, teacher):
    # Gram matrices; what becomes of their N^3 triplets is element-wise.
    own = similarity_flops(n, student.features, n, products=3)
    return Work(loss=own + similarity_flops(n, teacher.features, n))


@added_work.register
def _reg(objective: Reg, n, student, teacher):
    return Work(3 * n * projector_flops(student.features, (teacher.features,)))


@added_work.register
def _cc(objective: CC, n, student, teacher):
    heads = 3 * n * projector_flops(student.features, (objective.clusters,))
    return Work(heads, loss=similarity_flops(n, teacher.features, objective.clusters))


@added_work.register
def _crd(objective: CRD, n, student, teacher):
    width = (objective.width,)
    return Work(
        3 * n * projector_flops(student.features, width),
        # Its weights are trained; the teacher's features have no gradient.
        2 * n * projector_flops(teacher.features, width),
        # Each map against the other's queue, with gradient.
        2 * similarity_flops(n, objective.width, objective.queue_size, products=2),
    )
