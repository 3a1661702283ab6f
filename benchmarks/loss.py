"""The Barlow Twins loss, forward and backward: Gram matrices against the D x D correlation.

python -m benchmarks.loss --json loss.json
"""

from benchmarks.race import Contender, race
from benchmarks.report import Report, parse

SIZES = ((256, 1024), (256, 2048), (256, 4096), (512, 4096))


def ours(n, d, gram):
    """The loss of keras_sacl.losses and its gradient, by Gram matrices or by the matrix C."""
    from keras_sacl.losses import correlation_terms

    def loss(z_a, z_b):
        on_diagonal, off_diagonal = correlation_terms(z_a, z_b, gram=gram)
        return on_diagonal + 0.005 * off_diagonal

    return _gradient(n, d, loss)


def plain(n, d):
    """The same by autodiff of the definition, in TensorFlow."""
    import tensorflow as tf

    from keras_sacl.losses import cross_correlation

    def loss(z_a, z_b):
        c = cross_correlation(z_a, z_b)
        diagonal = tf.linalg.diag_part(c)
        off_diagonal = tf.reduce_sum(c**2) - tf.reduce_sum(diagonal**2)
        return tf.reduce_sum((1 - diagonal) ** 2) + 0.005 * off_diagonal

    return _gradient(n, d, loss)


def _gradient(n, d, loss):
    import tensorflow as tf

    def build(n, d):
        z_a, z_b = (tf.Variable(tf.random.normal((n, d))) for _ in range(2))

        @tf.function
        def step():
            with tf.GradientTape() as tape:
                value = loss(z_a, z_b)
            return tape.gradient(value, [z_a, z_b])

        return lambda: [g.numpy() for g in step()]

    build(8, 16)()  # loads the kernels, whose memory is not the loss's
    return build(n, d)


def published(n, d):
    """The loss as the published PyTorch code of Barlow Twins has it: C, then two masked sums."""
    _published(8, 16)()
    return _published(n, d)


def _published(n, d):
    import torch

    z_a, z_b = (torch.randn(n, d, requires_grad=True) for _ in range(2))
    norm = torch.nn.BatchNorm1d(d, affine=False)

    def step():
        c = norm(z_a).T @ norm(z_b) / n
        diagonal = torch.diagonal(c)
        off_diagonal = c.flatten()[:-1].view(d - 1, d + 1)[:, 1:].flatten()
        loss = (diagonal - 1).pow(2).sum() + 0.005 * off_diagonal.pow(2).sum()
        return torch.autograd.grad(loss, [z_a, z_b])

    return step


def main():
    options = parse(__doc__)
    report = Report("Barlow Twins loss, forward and backward, float32")
    for n, d in SIZES:
        case = f"loss, N {n}, D {d}"
        found = race(
            [
                Contender("Gram matrices (N x N)", ours, {"n": n, "d": d, "gram": True}),
                Contender("direct (D x D), autodiff", plain, {"n": n, "d": d}),
                Contender("direct (D x D)", ours, {"n": n, "d": d, "gram": False}),
                Contender("PyTorch, direct (D x D)", published, {"n": n, "d": d}),
            ],
            repeats=options.repeats,
        )
        report.times(case, found, "Gram matrices (N x N)")
        report.memory(case, found, "Gram matrices (N x N)")
    report.write(options.json)


if __name__ == "__main__":
    main()
