"""Losses on batches of embeddings: pure functions of (N, D) tensors, in float32 or more.

N is the global batch, D the width of the projector's output. Every function takes embeddings as
the projector gives them and standardises them itself; none of them holds state. Results are
float32, or float64 where the embeddings are.
"""

import tensorflow as tf

_VARIANCE_EPSILON = 1e-5  # that of the affine-free BatchNorm in the published Barlow Twins


def standardise(z, epsilon=_VARIANCE_EPSILON):
    """Zero mean and unit (biased) variance for every dimension, over the batch.

    Args:
        z: (N, D) embeddings of any float type.
        epsilon: Added to the variance, so that a dead dimension becomes 0 and not NaN.

    Returns:
        (N, D).
    """
    return _standardised(_precise(z), epsilon)[0]


def _standardised(z, epsilon=_VARIANCE_EPSILON):
    """(standardised z, 1 / standard deviation of each dimension)."""
    centred = z - tf.reduce_mean(z, axis=0)
    scale = tf.math.rsqrt(tf.reduce_mean(tf.square(centred), axis=0) + epsilon)
    return centred * scale, scale


def cross_correlation(a, b):
    """C = standardise(a)^T standardise(b) / N, of shape (D, D)."""
    a, b = standardise(a), standardise(b)
    return tf.matmul(a, b, transpose_a=True) / _batch_size(a)


def correlation_terms(a, b, gram="auto"):
    """The two sums that Barlow Twins and XD are made of.

    With C the cross-correlation of `a` and `b`, sum_ij C_ij^2 equals <A A^T, B B^T> / N^2, the
    inner product of two N x N Gram matrices of the standardised embeddings. That is cheaper than
    forming the D x D matrix whenever N < D, and needs no D x D memory.

    Args:
        a, b: (N, D) embeddings.
        gram: True for the Gram matrices, False for the D x D matrix, "auto" for the smaller.

    Returns:
        (on_diagonal, off_diagonal): the scalars sum_i (1 - C_ii)^2 and
        sum_{i != j} C_ij^2.
    """
    a, b = _precise(a), _precise(b)
    if gram != "auto":
        return _correlation_terms(a, b, gram)
    if a.shape[0] is not None:
        return _correlation_terms(a, b, a.shape[0] < a.shape[1])
    return tf.cond(
        tf.shape(a)[0] < tf.shape(a)[1],
        lambda: _correlation_terms(a, b, True),
        lambda: _correlation_terms(a, b, False),
    )


def _correlation_terms(a, b, gram):
    # The gradient is written out: what autodiff keeps and walks over, from each elementwise
    # operation of the standardisation, costs more than the products themselves.
    @tf.custom_gradient
    def terms(a, b):
        (a, scale_a), (b, scale_b) = _standardised(a), _standardised(b)
        n = _batch_size(a)
        diagonal = tf.reduce_sum(a * b, axis=0) / n
        if gram:
            gram_a = tf.matmul(a, a, transpose_b=True) / n
            gram_b = tf.matmul(b, b, transpose_b=True) / n
            total = tf.reduce_sum(gram_a * gram_b)
        else:
            c = tf.matmul(a, b, transpose_a=True) / n
            total = tf.reduce_sum(tf.square(c))
        on_diagonal = tf.reduce_sum(tf.square(1.0 - diagonal))
        off_diagonal = total - tf.reduce_sum(tf.square(diagonal))

        def gradient(d_on, d_off):
            d_diagonal = -2 / n * (d_on * (1 - diagonal) + d_off * diagonal)

            def through(own, other, scale, product):
                # d total / d own is 2 product / n. The mean of g over the batch is zero, as
                # `product` and `other` are combinations of centred columns.
                g = product * (2 / n * d_off) + other * d_diagonal
                return scale * (g - own * tf.reduce_mean(g * own, axis=0))

            if gram:
                product_a, product_b = tf.matmul(gram_b, a), tf.matmul(gram_a, b)
            else:
                product_a, product_b = tf.matmul(b, c, transpose_b=True), tf.matmul(a, c)
            return through(a, b, scale_a, product_a), through(b, a, scale_b, product_b)

        return (on_diagonal, off_diagonal), gradient

    return terms(a, b)


def barlow_twins(z_a, z_b, lambd=0.005):
    """sum_i (1 - C_ii)^2 + lambd * sum_{i != j} C_ij^2.

    "Barlow Twins: Self-Supervised Learning via Redundancy Reduction" (2021), equation 1.

    Args:
        z_a, z_b: (N, D) embeddings of the two views.
        lambd: Weight of the off-diagonal terms.

    Returns:
        A scalar.
    """
    on_diagonal, off_diagonal = correlation_terms(z_a, z_b)
    return on_diagonal + lambd * off_diagonal


def cross_distillation(pair_a, pair_b, lambd=0.005):
    """lambd / 2 * (sum_{i != j} C_ij(pair_a)^2 + sum_{i != j} C_ij(pair_b)^2).

    "Slimmed Asymmetrical Contrastive Learning and Cross Distillation for Lightweight Model
    Training" (2023), Algorithm 1. The listing sums C_ij itself; the square is meant, since a sum
    of signed correlations has no minimum worth having.

    Args:
        pair_a, pair_b: Each a tuple (z, frozen z) of two (N, D) embeddings.
        lambd: Weight of the off-diagonal terms.

    Returns:
        A scalar.
    """
    _, off_a = correlation_terms(*pair_a)
    _, off_b = correlation_terms(*pair_b)
    return 0.5 * lambd * (off_a + off_b)


def negative_log_distillation(pair_a, pair_b):
    """-1/2 mean over the batch of [p(frozen z_a) log p(z_a) + p(frozen z_b) log p(z_b)].

    p is the softmax over the D dimensions of the standardised embeddings: the distillation loss
    that the SACL supplement compares XD with (2023, section 1.2, equation 2).

    Args:
        pair_a, pair_b: Each a tuple (z, frozen z) of two (N, D) embeddings.

    Returns:
        A scalar, at least 0.
    """

    def cross_entropy(z, frozen):
        return tf.reduce_mean(
            tf.nn.softmax_cross_entropy_with_logits(
                labels=tf.nn.softmax(standardise(frozen)), logits=standardise(z)
            )
        )

    return 0.5 * (cross_entropy(*pair_a) + cross_entropy(*pair_b))


def embedding_std(z):
    """How far embeddings are from collapse: about 1 when spread out, 0 when all are one point.

    The standard deviation over the batch of each dimension of the l2-normalised embeddings,
    averaged over dimensions and times sqrt(D).

    Args:
        z: (N, D) embeddings.

    Returns:
        A scalar in [0, 1].
    """
    z = _precise(z)
    # Dividing by the largest entry first keeps the squares of tiny embeddings from underflowing.
    z = tf.math.divide_no_nan(z, tf.reduce_max(tf.abs(z), axis=1, keepdims=True))
    z = tf.math.divide_no_nan(z, tf.norm(z, axis=1, keepdims=True))
    dimensions = tf.cast(tf.shape(z)[1], z.dtype)
    return tf.reduce_mean(tf.math.reduce_std(z, axis=0)) * tf.sqrt(dimensions)


def _precise(z):
    """float32, or float64 where the embeddings are."""
    return z if z.dtype == tf.float64 else tf.cast(z, tf.float32)


def _batch_size(z):
    return tf.cast(tf.shape(z)[0], z.dtype)
