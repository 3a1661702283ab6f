"""Data parallelism inside a training step: batches and means over all replicas.

With one replica, and outside of a training step, every function is the identity.
"""

import tensorflow as tf


def replica_count():
    """The number of replicas that work on a step together, 1 without a strategy."""
    return tf.distribute.get_strategy().num_replicas_in_sync


def worker_count():
    """The number of processes that train together, 1 without a strategy across machines."""
    strategy = tf.distribute.get_strategy()
    if not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        return 1
    resolver = strategy.cluster_resolver
    return max(1, sum(len(tasks) for tasks in resolver.cluster_spec().as_dict().values()))


def global_batch(x):
    """(B, ...) of each replica to (N, ...) of all replicas, in the order of the batch.

    Differentiable: the gradients that all replicas send to one replica's rows are summed. Each
    replica computes the same loss of the global batch, so that loss divided by `replica_count()`
    gives every replica its own rows' gradient.
    """
    context = _context()
    if context is None:
        return x
    gathered = context.all_gather(x, axis=0)
    own = x.shape[0]
    gathered.set_shape([own and own * context.num_replicas_in_sync, *x.shape[1:]])
    return gathered


def own_part(x):
    """This replica's rows of a tensor that `global_batch` gave: (N, ...) to (B, ...)."""
    context = _context()
    if context is None:
        return x
    own = tf.shape(x)[0] // context.num_replicas_in_sync
    return x[context.replica_id_in_sync_group * own :][:own]


def mean_over_replicas(*tensors):
    """The means over replicas of tensors, each of one shape everywhere; not differentiable.

    Returns:
        A tensor for each, in a list.
    """
    context = _context()
    if context is None:
        return list(tensors)
    return context.all_reduce(tf.distribute.ReduceOp.MEAN, list(tensors))


def _context():
    context = tf.distribute.get_replica_context()
    return context if context is not None and context.num_replicas_in_sync > 1 else None
