"""Losses on batches of embeddings: pure functions of (N, D) tensors, in float32 or more.

N is the global batch, D the width of the projector's output. Those that correlate take embeddings
as the projector gives them and standardise them themselves, those that compare directions take
unit vectors; none of them holds state. Results are float32, or float64 where the embeddings are.
"""

import tensorflow as tf

DEFAULT_LAMBD = 0.005  # SACL's paper (2023); 0.0051 in that of Barlow Twins (2021)
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


def barlow_twins(z_a, z_b, lambd=DEFAULT_LAMBD):
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


def barlow_twins_by_chance(num_images, dimensions, lambd=DEFAULT_LAMBD):
    """What `barlow_twins` is on average of two embeddings that have nothing to do with each other.

    The square of the correlation of N pairs of independent numbers, those of one side normal, is
    1 / (N - 1) on average. A loss near this level says that a view tells nothing of the other.

    Args:
        num_images: N, of the global batch.
        dimensions: D.
        lambd: Weight of the off-diagonal terms.

    Returns:
        A float.
    """
    square = 1 / (num_images - 1)
    return dimensions * (1 + square) + lambd * dimensions * (dimensions - 1) * square


def cross_distillation(pair_a, pair_b, lambd=DEFAULT_LAMBD, diagonal=False):
    """lambd / 2 * (sum_{i != j} C_ij(pair_a)^2 + sum_{i != j} C_ij(pair_b)^2).

    "Slimmed Asymmetrical Contrastive Learning and Cross Distillation for Lightweight Model
    Training" (2023), Algorithm 1. The listing sums C_ij itself; the square is meant, since a sum
    of signed correlations has no minimum worth having.

    Args:
        pair_a, pair_b: Each a tuple (z, frozen z) of two (N, D) embeddings.
        lambd: Weight of the off-diagonal terms.
        diagonal: Whether to add those of the diagonal: the mean of `barlow_twins` of the pairs.

    Returns:
        A scalar.
    """
    on_a, off_a = correlation_terms(*pair_a)
    on_b, off_b = correlation_terms(*pair_b)
    loss = 0.5 * lambd * (off_a + off_b)
    return loss + 0.5 * (on_a + on_b) if diagonal else loss


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


def l2_normalise(z):
    """z / ||z|| for every row, without an epsilon: embeddings of 1e-19 keep their direction.

    Args:
        z: (N, D) embeddings of any float type. A row of zeros stays one.

    Returns:
        (N, D).
    """
    z = _precise(z)
    # Dividing by the largest entry first keeps the squares of tiny embeddings from underflowing.
    largest = tf.stop_gradient(tf.reduce_max(tf.abs(z), axis=1, keepdims=True))
    z = tf.math.divide_no_nan(z, largest)
    # At least 1 by now, but for a row of zeros, whose norm would have no gradient.
    squares = tf.reduce_sum(tf.square(z), axis=1, keepdims=True)
    return z * tf.math.rsqrt(tf.maximum(squares, 0.5))


def info_nce(queries, keys, negatives, temperature=0.2):
    """-mean over the batch of log softmax of q k+ / T against q k- / T.

    "Momentum Contrast for Unsupervised Visual Representation Learning" (2020), equation 1.

    Args:
        queries, keys: (N, D) unit vectors; key i is the positive of query i.
        negatives: (K, D) unit vectors, one set for all queries.
        temperature: T, above 0.

    Returns:
        (loss, accuracy): the loss in nats, and the share of queries whose own key is nearest.
    """
    positive = tf.reduce_sum(queries * keys, axis=1, keepdims=True)
    negative = tf.matmul(queries, tf.cast(negatives, queries.dtype), transpose_b=True)
    # log(1 + sum exp(n - p)): of two columns joined, the copy would be as large as the queue.
    log_negatives = tf.reduce_logsumexp(negative / temperature, axis=1)
    loss = tf.reduce_mean(tf.nn.softplus(log_negatives - positive[:, 0] / temperature))
    nearest = positive[:, 0] > tf.reduce_max(negative, axis=1)
    return loss, tf.reduce_mean(tf.cast(nearest, loss.dtype))


def soft_cross_entropy(logits, target_logits):
    """-mean over the batch of p(target) log p, where p is the softmax of each row.

    What SEED and CompRess minimise: the student's similarities to a queue, over a temperature,
    are to be distributed as the teacher's are.

    Args:
        logits: (N, K) of the student.
        target_logits: (N, K) of the teacher; no gradient flows into them.

    Returns:
        (cross entropy, entropy of the targets): scalars in nats. Their difference is the
        Kullback-Leibler divergence, and has the gradient of the cross entropy.
    """
    target_logits = tf.cast(tf.stop_gradient(target_logits), logits.dtype)
    p, log_p = tf.nn.softmax(target_logits), tf.nn.log_softmax(target_logits)
    entropy = -tf.reduce_mean(tf.reduce_sum(p * log_p, axis=1))
    return tf.reduce_mean(tf.nn.softmax_cross_entropy_with_logits(p, logits)), entropy


def sinkhorn(scores, epsilon=0.05, iterations=3):
    """Assigns N images to K prototypes, each prototype to as many of them.

        Q = exp(scores / epsilon), alternately scaled so that columns sum to N / K, rows to 1

    "Unsupervised Learning of Visual Features by Contrasting Cluster Assignments" (2020), equation
    3 and appendix. Computed with logarithms: exp(1 / 0.05) of a few scores overflows float16, and
    its differences exceed float32.

    Args:
        scores: (N, K) similarities of all replicas' images to the prototypes.
        epsilon: Strength of the smoothing, above 0.
        iterations: Pairs of scalings; the last is that of the rows.

    Returns:
        (N, K) without gradient: every row sums to 1.
    """
    log_q = tf.stop_gradient(_precise(scores)) / epsilon
    for _ in range(iterations):
        # Columns to 1: the factor N / K is one of all entries, and goes with the scaling of rows.
        log_q -= tf.reduce_logsumexp(log_q, axis=0, keepdims=True)
        log_q -= tf.reduce_logsumexp(log_q, axis=1, keepdims=True)
    return tf.exp(log_q)


def embedding_std(z):
    """How far embeddings are from collapse: about 1 when spread out, 0 when all are one point.

    The standard deviation over the batch of each dimension of the l2-normalised embeddings,
    averaged over dimensions and times sqrt(D).

    Args:
        z: (N, D) embeddings.

    Returns:
        A scalar in [0, 1].
    """
    z = l2_normalise(z)
    dimensions = tf.cast(tf.shape(z)[1], z.dtype)
    return tf.reduce_mean(tf.math.reduce_std(z, axis=0)) * tf.sqrt(dimensions)


def _precise(z):
    """float32, or float64 where the embeddings are."""
    return z if z.dtype == tf.float64 else tf.cast(z, tf.float32)


def _batch_size(z):
    return tf.cast(tf.shape(z)[0], z.dtype)
