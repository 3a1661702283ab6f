"""What a network makes of one view."""

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
    # Not `functools.cached_property`: until Python 3.12 all instances share a lock, that one
    # replica would hold while it waits for the others, which wait for the lock.
    _features = _embeddings = None

    def __init__(self, features, project=None, maps=()):
        self._own, self._project, self.maps = features, project, tuple(maps)

    @property
    def features(self):
        """(N, F) of the images of all replicas."""
        if self._features is None:
            self._features = global_batch(self._own)
        return self._features

    @property
    def embeddings(self):
        """(N, D) of the images of all replicas; the features, where there is no projector."""
        if self._project is None:
            return self.features
        if self._embeddings is None:
            self._embeddings = global_batch(self._project(self._own))
        return self._embeddings
