"""One SACL + XD training step: slicing against masking, ours against PyTorch.

python -m benchmarks.step --json step.json
"""

from benchmarks.race import Contender, race
from benchmarks.report import Report, parse

OURS = "ours, slice"


def ours(host, slim, size, batch, dim, execution):
    """The step of `keras_sacl.methods.SACLXD` with AdamW, compiled as `fit` compiles it."""
    import tensorflow as tf

    from keras_sacl.encoders import build_encoder
    from keras_sacl.heads import build_projector
    from keras_sacl.methods import SACLXD
    from keras_sacl.optim import build_optimizer
    from keras_sacl.slimming import SlimmableEncoder

    networks = (build_encoder("mobilenet_v1", width=w, image_size=size) for w in (host, slim))
    encoder = SlimmableEncoder(*networks, execution=execution)
    # The loss of the peer.
    projector = build_projector(encoder.output_shape[-1], (dim,) * 3)
    model = SACLXD(encoder, projector, sacl_contrast="across", alpha=0.9, xd_form="correlation")
    model.compile(optimizer=build_optimizer("adamw", 1e-3, 1e-4), jit_compile=False)
    views = tuple(tf.random.normal((batch, size, size, 3)) for _ in range(2))
    step = compiled_step(model, views)

    def work():
        float(step()["loss"])

    return work


def compiled_step(model, views):
    """A function without arguments that trains a compiled method one step on these views."""
    import tensorflow as tf

    model.optimizer.build(model.trainable_variables)
    return tf.function(lambda: model.train_step(views))


def pytorch(host, slim, size, batch, dim, channels_last):
    """The step of `benchmarks.torch_sacl`, which masks the weights."""
    from benchmarks.torch_sacl import build_step

    return build_step(host, slim, size, batch, dim, channels_last)


def matmul(n):
    """A float32 matrix product: the most that the cores can do."""
    import tensorflow as tf

    a = tf.random.normal((n, n))
    product = tf.function(lambda: tf.reduce_sum(tf.matmul(a, a)))

    def work():
        float(product())

    return work


def step_flops(host, slim, size, batch, dim):
    """Of our slice execution: the losses and what is not a product of matrices left out."""
    from keras_sacl.costs.flops import forward_flops
    from keras_sacl.encoders import build_encoder
    from keras_sacl.heads import build_projector

    networks = [build_encoder("mobilenet_v1", width=w, image_size=size) for w in (host, slim)]
    projector = forward_flops(build_projector(networks[0].output_shape[-1], (dim,) * 3))
    # A backward pass is two of each product: with respect to the input and to the weights.
    return batch * sum((3 + 1) * (forward_flops(network) + projector) for network in networks)


def main():
    options = parse(__doc__, size=64, batch=128, dim=2048, hosts="1.5,2")
    report = Report(
        f"SACL + XD step, MobileNet-V1, {options.size} px, batch {options.batch}, "
        f"projector {options.dim}, float32"
    )
    rates = {}
    for host in map(float, options.hosts.split(",")):
        shape = {
            "host": host, "slim": 1.0, "size": options.size, "batch": options.batch,
            "dim": options.dim,
        }  # fmt: skip
        found = race(
            [
                Contender(OURS, ours, {**shape, "execution": "slice"}),
                Contender("ours, mask", ours, {**shape, "execution": "mask"}),
                Contender("PyTorch, masked", pytorch, {**shape, "channels_last": False}),
                Contender(
                    "PyTorch, masked, channels last", pytorch, {**shape, "channels_last": True}
                ),
            ],
            repeats=options.repeats,
        )
        case = f"step, {host:g}x-1x"
        report.times(case, found, OURS)
        report.memory(case, found, OURS)
        rates[case] = step_flops(**shape) / found[OURS].median
    n = 3000
    peak = race([Contender("matmul", matmul, {"n": n})], repeats=options.repeats)["matmul"]
    peak_rate = 2 * n**3 / peak.median
    for case, rate in rates.items():
        print(
            f"{case}: {rate / 1e9:.0f} GFLOP/s, {rate / peak_rate:.0%} of what a product of "
            f"{n} x {n} matrices reaches ({peak_rate / 1e9:.0f} GFLOP/s)"
        )
    report.write(options.json)


if __name__ == "__main__":
    main()
