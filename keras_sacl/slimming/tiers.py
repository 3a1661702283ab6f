"""Several slim networks in one host, of which each training step trains one."""

import contextlib
import functools

import keras
import tensorflow as tf

from keras_sacl.replicas import replica_count
from keras_sacl.slimming.encoder import SlimmableEncoder


@keras.saving.register_keras_serializable("keras_sacl")
class TieredEncoder(SlimmableEncoder):
    """A host encoder with a slim network for each tier of phones.

    `encoder(x, slim=True)` is the slim network of tier 0, the widest, and inside `at(tier)` that
    of another. Each tier is a block of the host's weights and so shares them with all tiers below
    it; each has its own moving statistics, which only its own passes move.

    "Universally Slimmable Networks and Improved Training Techniques" (2019) trains many widths of
    one network so; here the host sees every step, as in SACL, while `trains` is "both". With "host"
    all tiers are the host in training, and nothing is drawn; with "slim" the one that is drawn
    trains alone.

    Args:
        host: A `keras.Model`, (B, H, W, C) to (B, F).
        slims: The `keras.Model`s of its function at smaller widths, the widest first.
        selection: As in `SlimmableEncoder`.
        seed: Of the draws: which tier a step trains is a function of (seed, step).

    Raises:
        ValueError: If there is no slim network, if they are not in order, or if one does not
            correspond to the host.
    """

    def __init__(self, host, slims, selection="leading", seed=0, **kwargs):
        slims = list(slims)
        if not slims:
            raise ValueError("`slims` must hold at least one model. Received: slims=[]")
        sizes = [slim.count_params() for slim in slims]
        if sizes != sorted(set(sizes), reverse=True):
            raise ValueError(
                "`slims` must be of different widths, the widest first. "
                f"Received: slims of {sizes} parameters"
            )
        super().__init__(host, slims[0], execution="slice", selection=selection, **kwargs)
        self.seed, self._tier = seed, 0
        self.narrower = [
            SlimmableEncoder(host, slim, execution="slice", selection=selection)
            for slim in slims[1:]
        ]

    @property
    def tiers(self):
        """The number of slim networks."""
        return 1 + len(self.narrower)

    @contextlib.contextmanager
    def at(self, tier):
        """A context in which the slim network is that of a tier: in the graphs made there, too."""
        before, self._tier = self._tier, tier
        try:
            yield
        finally:
            self._tier = before

    def _slim_pass(self, x, training):
        if self._tier:
            return self.narrower[self._tier - 1](x, slim=True, training=training)
        return super()._slim_pass(x, training)

    def at_drawn_tier(self, step, function, *args):
        """Calls a function inside `at(tier)` of the tier that is drawn for a step.

        A graph holds the function once for each tier and runs one of them. To be called where a
        training step is, on every replica; all replicas have the same tier.

        Args:
            step: Integer scalar: the steps that are done.
            function: Gives tensors of the same structure, shapes and dtypes for every tier.
            *args: Its arguments, this replica's.

        Returns:
            What it gave.
        """

        def choose(strategy, *args):
            def branch(tier):
                with self.at(tier):
                    return function(*args) if strategy is None else strategy.run(function, args)

            branches = [functools.partial(branch, tier) for tier in range(self.tiers)]
            return tf.switch_case(drawn_tier(self.seed, step, self.tiers), branches)

        if self.tiers == 1 or self.trains == "host":
            return function(*args)
        if replica_count() == 1:
            return choose(None, *args)
        # Replicas cannot meet inside a branch that each of them takes by itself: they part again
        # inside of a branch that all take together.
        return tf.distribute.get_replica_context().merge_call(choose, args)

    def take_statistics(self):
        """Makes the moving statistics of every tier those that the host has now."""
        super().take_statistics()
        for encoder in self.narrower:
            encoder.take_statistics()

    def refresh_channels(self):
        """Selects anew the channels of largest magnitude, in every tier."""
        super().refresh_channels()
        # The base class calls this once while there are no others yet.
        for encoder in getattr(self, "narrower", ()):
            encoder.refresh_channels()

    def extract_slim(self, tier=0):
        """The slim network of a tier by itself: a dense `keras.Model`, (B, H, W, C) to (B, F_t)."""
        return self.narrower[tier - 1].extract_slim() if tier else super().extract_slim()

    def get_config(self):
        config = super().get_config()
        slims = [config.pop("slim"), *(n.get_config()["slim"] for n in self.narrower)]
        config.pop("execution")
        return {**config, "slims": slims, "seed": self.seed}

    @classmethod
    def from_config(cls, config):
        read = keras.saving.deserialize_keras_object
        slims = [read(slim) for slim in config["slims"]]
        return cls(**{**config, "host": read(config["host"]), "slims": slims})


def drawn_tier(seed, step, tiers):
    """The tier that a training step trains: a function of (seed, step), and of nothing else.

    Steps come in rounds of `tiers`. Each round has every tier once, in an order drawn for it: no
    tier waits for long, and after a whole number of rounds all have had the same share.

    Args:
        seed: Integer.
        step: Integer scalar: the steps that are done.
        tiers: The number of tiers.

    Returns:
        An int32 scalar from 0 to tiers - 1.
    """
    step = tf.cast(step, tf.int32)
    places = tf.range(tiers)
    # Not by TensorFlow's stateless random numbers: XLA's are others, of the same algorithm too.
    keys = _scrambled(_scrambled(seed) + tf.cast(step // tiers, tf.uint32))
    keys = tf.cast(_scrambled(keys + tf.cast(places, tf.uint32)) % 2**20, tf.int32)
    order = tf.argsort(keys * tiers + places)  # no two are equal
    return order[step % tiers]


def _scrambled(x):
    """Integers to integers as good as random, uint32.

    "Prospecting for Hash Functions" (2018), `lowbias32`.
    """
    x = tf.cast(x, tf.uint32)
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B), (16, 1)):
        x = tf.bitwise.bitwise_xor(x, tf.bitwise.right_shift(x, tf.constant(shift, tf.uint32)))
        x *= tf.constant(factor, tf.uint32)
    return x
