"""Galleries of images inside the page: the views, nearest neighbours, clusters."""

import base64
import html
import io

import numpy as np

from keras_sacl.evaluation.features import l2_normalise
from keras_sacl.evaluation.knn import nearest_neighbours

_QUERIES, _NEIGHBOURS = 8, 7
_CLUSTERS, _MEMBERS = 10, 8


def picture(pixels, alt, *, kind=""):
    """An <img> whose file is its own address.

    Args:
        pixels: uint8 (H, W, 3).
        alt: Text for those who do not see it.
        kind: Its CSS class.

    Returns:
        HTML.
    """
    from PIL import Image

    large = pixels.shape[0] * pixels.shape[1] > 160 * 160
    with io.BytesIO() as file:
        # Photographs as JPEG, a tenth of the size; small ones exactly as the network sees them.
        Image.fromarray(pixels).save(file, "JPEG" if large else "PNG", quality=88)
        data = base64.b64encode(file.getvalue()).decode()
    name = "jpeg" if large else "png"
    alt = html.escape(alt, quote=True)
    return f'<img class="{kind}" alt="{alt}" title="{alt}" src="data:image/{name};base64,{data}">'


def view_gallery(rows):
    """Rows of an image and pairs of its views.

    Args:
        rows: As `views.view_rows` gives them.

    Returns:
        HTML.
    """
    lines = []
    for image, pairs in rows:
        cells = [picture(image, "training image", kind="view")]
        for a, b in pairs:
            both = picture(a, "view A", kind="view") + picture(b, "view B", kind="view")
            cells.append(f'<span class="pair">{both}</span>')
        lines.append(f'<div class="row views">{"".join(cells)}</div>')
    return "".join(lines)


def neighbour_gallery(looks):
    """Rows of a query and its nearest neighbours among the other images, by cosine.

    Args:
        looks: `Looks`.

    Returns:
        HTML.
    """
    features = l2_normalise(looks.features)
    count = len(features)
    queries = np.arange(min(_QUERIES, count)) * count // min(_QUERIES, count)
    # One more than is shown: an image is its own nearest neighbour.
    most = min(_NEIGHBOURS + 1, count)
    _, nearest = nearest_neighbours(features, features[queries], most)
    rows = []
    for query, found in zip(queries, nearest, strict=True):
        others = [int(i) for i in found if i != query][:_NEIGHBOURS]
        cells = [_shown(looks, query)] + [_shown(looks, i, like=query) for i in others]
        rows.append(f'<div class="row">{"".join(cells)}</div>')
    return "".join(rows)


def cluster_gallery(looks, seed=0):
    """Clusters of the features, each by the images nearest to its centre.

    Args:
        looks: `Looks`.
        seed: Of k-means.

    Returns:
        HTML.
    """
    from sklearn.cluster import KMeans

    features = l2_normalise(looks.features)
    wanted = _CLUSTERS if looks.labels is None else len(np.unique(looks.labels))
    found = KMeans(min(wanted, len(features)), n_init=4, random_state=seed).fit(features)
    sizes = np.bincount(found.labels_)
    rows = []
    for cluster in np.argsort(-sizes, kind="stable")[:_CLUSTERS]:
        own = np.flatnonzero(found.labels_ == cluster)
        distances = np.linalg.norm(features[own] - found.cluster_centers_[cluster], axis=1)
        shown = own[np.argsort(distances, kind="stable")][:_MEMBERS]
        images = "".join(_shown(looks, i) for i in shown)
        title = html.escape(_cluster_title(looks, own))
        rows.append(f'<div class="row"><span class="label">{title}</span>{images}</div>')
    return "".join(rows)


def _cluster_title(looks, members):
    if looks.labels is None:
        return f"{len(members)} images"
    labels, counts = np.unique(looks.labels[members], return_counts=True)
    largest = members[looks.labels[members] == labels[counts.argmax()]][0]
    share = counts.max() / len(members)
    return f"{len(members)} images: {share:.0%} are {looks.class_name(largest)}"


def _shown(looks, index, like=None):
    """An image; beside a query, with the border of one of its class or of another."""
    kind = "shot"
    if like is not None and looks.labels is not None:
        kind += " same" if looks.labels[index] == looks.labels[like] else " other"
    name = looks.class_name(index)
    return picture(looks.pixels[index], name or f"image {index}", kind=kind)
