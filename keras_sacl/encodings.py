"""What a network makes of one view."""

import functools

from keras_sacl.replicas import global_batch


class Encodings:
    """Features, embeddings and maps of a view, each computed when it is first asked for.

    Args:
        features: (B, F) of this replica's images.
        project: A function of them to (B, D) embeddings; None for a network without projector.
        maps: The last maps (B, h, w, C) of its stages, where they were asked for.

    Attributes:
        maps: As given: this replica's.
        mean: `Encodings` of the same view by the mean of the network over its own past, where
            that was asked for.
    """

    mean = None

    def __init__(self, features, project=None, maps=()):
        self._own, self._project, self.maps = features, project, tuple(maps)

    @functools.cached_property
    def features(self):
        """(N, F) of the images of all replicas."""
        return global_batch(self._own)

    @functools.cached_property
    def embeddings(self):
        """(N, D) of the images of all replicas; the features, where there is no projector."""
        if self._project is None:
            return self.features
        return global_batch(self._project(self._own))
