"""The labelled images of a source, or a share of them."""

import numpy as np


def labelled_share(source, share=1.0, *, seed=0):
    """The images that have a label, or a share of those of each class.

    1 % and 10 % of ImageNet's labels are the usual semi-supervised protocols; "DisCo: Remedying
    Self-supervised Learning on Lightweight Models with Distilled Contrastive Learning" (2022),
    section 4.3.

    Args:
        source: `ImageSource` of N images with labels, one class each.
        share: In (0, 1]. Of a class of n images max(1, round(share * n)) are drawn.
        seed: Of the draw.

    Returns:
        `ImageSource`, in the order of `source`.

    Raises:
        ValueError: If `share` is out of its range, or there are no such labels.
    """
    if not 0 < share <= 1:
        raise ValueError(f"`share` must be above 0 and at most 1. Received: share={share}")
    labels = source.labels
    if labels is None or labels.ndim != 1 or np.all(labels < 0):
        shape = None if labels is None else labels.shape
        raise ValueError(
            "`source` must have images labelled with one class each. Received: labels of shape "
            f"{shape}"
        )
    chosen = draw_of_each_class(labels, float(share), np.random.default_rng(seed))
    return source.select(np.sort(chosen))


def draw_of_each_class(labels, amount, rng):
    """Some images of each class, drawn at random.

    Args:
        labels: (N,) integers; images below 0 have no label.
        amount: An int, so many of each class; or a float in (0, 1], that share of them, at least
            one.
        rng: `np.random.Generator`.

    Returns:
        Indices, (M,) int64.

    Raises:
        ValueError: If a class has fewer images.
    """
    chosen = []
    for label in np.unique(labels[labels >= 0]):
        own = np.flatnonzero(labels == label)
        count = amount if isinstance(amount, int) else max(1, round(amount * len(own)))
        if not 1 <= count <= len(own):
            raise ValueError(
                f"`labels` must be at least 1 and at most the {len(own)} images of class {label}. "
                f"Received: labels={amount}"
            )
        chosen.append(rng.choice(own, count, replace=False))
    return np.concatenate(chosen)
