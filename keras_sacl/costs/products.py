"""Matrix products outside the encoders, in FLOPs: a multiply-add is two."""


def projector_flops(features, widths):
    """FLOPs of the dense layers of a projector for one image: F features to `widths` in turn."""
    sides = (features, *widths)
    return 2 * sum(a * b for a, b in zip(sides, sides[1:], strict=False))


def correlation_flops(n, d, frozen=False):
    """FLOPs of the sum over C_ij^2 of one pair of (N, D) embeddings, and of its gradient.

    As `losses.correlation_terms` does it: two (N, N) Gram matrices where N < D, else one (D, D)
    matrix, and as gradient one more product for each side that is not frozen.

    Args:
        n, d: N and D.
        frozen: Whether one of the two sides is.

    Returns:
        An int, for the whole batch.
    """
    forward, product = (2, 2 * n * n * d) if n < d else (1, 2 * n * d * d)
    return (forward + (1 if frozen else 2)) * product


def similarity_flops(n, d, anchors, products=1):
    """FLOPs of comparing (N, D) embeddings with (K, D) anchors, `products` matrix products.

    One without gradient, two with that of the embeddings, three with that of the anchors too.
    """
    return products * 2 * n * d * anchors
