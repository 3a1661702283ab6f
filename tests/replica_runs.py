"""Trains every method for a few steps on some replicas of a CPU.

    python -m tests.replica_runs REPLICAS OUT.npz small|mobilenet_v1

A process of its own, since TensorFlow's collectives know one number of devices in a process.
"""

import sys

import numpy as np

METHODS = ("barlow_twins", "xd", "sacl", "sacl_xd")
# float64 shows that the sums are the same, float32 that nothing is lost on the way.
STEPS = {"float64": 20, "float32": 5}
_SMALL = "small"


def main(replicas, out, encoder):
    import keras

    from keras_sacl.config import RunConfig
    from keras_sacl.data import get_preset, load_source, two_view_dataset
    from keras_sacl.stages import build
    from keras_sacl.stages.strategy import make_strategy

    source = load_source("digits", "train", image_size=16)
    if encoder == _SMALL:
        build.build_encoder = _small_encoder
        encoder = "resnet20_cifar"
    found = {}
    for precision, steps in STEPS.items():
        for name in METHODS:
            config = RunConfig(
                method=name, dataset="digits", augmentation="digits", encoder=encoder,
                width=0.25, image_size=16, projector="32-32", batch_size=32,
                mixed_precision=precision, replicas=replicas,
                slim_selection="magnitude" if name == "sacl" else "leading",
            ).validated()  # fmt: skip
            strategy = make_strategy(config)
            with strategy.scope():
                method = build.build_method(config, len(source))
                # The first steps of the warm-up of the CIFAR-10 recipe.
                build.compile_method(method, config, steps_per_epoch=20_000 // 32)
            data = two_view_dataset(
                source, get_preset("digits"), image_size=16, batch_size=32, seed=0, epochs=1
            )
            history = method.fit(data.take(steps), verbose=0, shuffle=False)
            assert method.distribute_strategy.num_replicas_in_sync == replicas
            variables = {"": method.variables, "optimizer/": method.optimizer.variables}
            for where, group in variables.items():
                for i, variable in enumerate(group):
                    key = f"{precision}/{name}/{where}{i}/{variable.name}"
                    found[key] = np.asarray(variable)
            for key, values in history.history.items():
                found[f"{precision}/{name}/logs/{key}"] = np.array(values)
            keras.backend.clear_session()
    np.savez(out, **found)


def _small_encoder(name, *, width, image_size, activation):
    """Without kinks: a ReLU within rounding of its own changes a gradient by a hundredth."""
    from keras import Input, Model, layers

    x = images = Input((image_size, image_size, 3))
    for i, channels in enumerate((32, 64)):
        x = layers.Conv2D(round(channels * width), 3, strides=2, use_bias=False, name=f"conv{i}")(x)
        x = layers.BatchNormalization(momentum=0.9, name=f"norm{i}")(x)
        x = layers.Activation("swish", name=f"swish{i}")(x)
    return Model(images, layers.GlobalAveragePooling2D(name="pool")(x))


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], sys.argv[3])
