"""Trains every method for a few steps on some replicas of a CPU.

    python -m tests.replica_runs REPLICAS OUT.npz small|mobilenet_v1 [METHOD ...]

A process of its own, since TensorFlow's collectives know one number of devices in a process.
"""

import sys

import numpy as np

_QUEUE = {"queue_size": 48}  # no multiple of the batch
METHODS = {
    "barlow_twins": {},
    "xd": {},
    "sacl": {"slim_selection": "magnitude"},
    "sacl_xd": {},
    "sacl_xd across": {"sacl_contrast": "across"},
    "moco_v2": {**_QUEUE, "batch_norm_groups": 4},
    "moco_v2 sync": {
        **_QUEUE, "key_batch_norm": "sync", "optimizer": "sgd", "learning_rate": 1.0,
        "weight_decay": 0.01,
    },
    "moco_v2 shuffle": {**_QUEUE, "key_batch_norm": "shuffle"},
    "swav": {
        "prototypes": 24, "small_views": 1, "small_size": 8, "frozen_prototype_epochs": 0,
        "optimizer": "lars",
    },
    "distill": {
        "distill": ("seed", "compress_2q:0.5", "crd:0.1"), "teacher": "at random",
        "distill_queue_size": 48, "distill_hidden": 16,
    },
    "sacl cached": {
        "distill": ("disco", "rkd"), "teacher": "at random", "cache_teacher": True,
        "distill_hidden": 16,
    },
}  # fmt: skip
# float64 shows that the sums are the same, float32 that nothing is lost on the way.
STEPS = {"float64": 20, "float32": 5}
IN_FLOAT32 = ("barlow_twins", "sacl_xd")
QUICK = ("sacl_xd", "moco_v2", "distill")  # that hold a host, groups, queues and a teacher
_SMALL = "small"


def main(replicas, out, encoder, *names):
    import keras

    from keras_sacl.callbacks import SlimSchedule
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
        for name in names or METHODS:
            if precision == "float32" and name not in IN_FLOAT32:
                continue
            settings = METHODS[name]
            if name == "moco_v2 shuffle" and replicas == 1:  # the statistics of two replicas
                settings = {**_QUEUE, "key_batch_norm": "split", "batch_norm_groups": 2}
            config = RunConfig(
                method=name.split()[0], dataset="digits", augmentation="digits", encoder=encoder,
                width=0.25, image_size=16, projector="32-32", batch_size=32,
                mixed_precision=precision, replicas=replicas, **settings,
            ).validated()  # fmt: skip
            rows = np.random.default_rng(0).normal(size=(len(source), 24))
            strategy = make_strategy(config)
            with strategy.scope():
                distiller = _distiller(config, len(source)) if config.distill else None
                method = build.build_method(config, len(source), distiller)
                # The first steps of the warm-up of the CIFAR-10 recipe.
                build.compile_method(method, config, steps_per_epoch=20_000 // 32)
            data = two_view_dataset(
                source, get_preset("digits"), image_size=16, batch_size=32, seed=0, epochs=1,
                small_views=config.small_views, small_size=config.small_size,
                rows=rows if config.cache_teacher else None,
            )  # fmt: skip
            # The host alone at first, then both networks, the slim network alone in the end.
            schedule = [SlimSchedule(2, 4)] if name.startswith("sacl_xd") else []
            history = method.fit(data.take(steps), verbose=0, shuffle=False, callbacks=schedule)
            assert method.distribute_strategy.num_replicas_in_sync == replicas
            variables = {"": method.variables, "optimizer/": method.optimizer.variables}
            for where, group in variables.items():
                for i, variable in enumerate(group):
                    key = f"{precision}/{name}/{where}{i}/{variable.name}"
                    found[key] = _of_all_replicas(variable)
            for key, values in history.history.items():
                found[f"{precision}/{name}/logs/{key}"] = np.array(values)
            keras.backend.clear_session()
    np.savez(out, **found)


def _of_all_replicas(variable):
    """Its value, which is to be the same everywhere."""
    first, *others = map(np.asarray, getattr(variable.value, "values", [variable]))
    for other in others:
        np.testing.assert_allclose(other, first, rtol=1e-6, atol=1e-12, err_msg=variable.path)
    return first


def _distiller(config, images):
    import keras

    from keras_sacl.config.distilling import objective_weights
    from keras_sacl.distillation import Distiller
    from keras_sacl.stages.distilling import objectives

    made, weights = objectives(config, images), objective_weights(config)
    if config.cache_teacher:
        return Distiller(made, weights, teacher_widths=(16, 8))
    keras.utils.set_random_seed(1)
    teacher = _small_encoder("teacher", width=0.5, image_size=16, activation="default")
    return Distiller(made, weights, teacher)


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
    main(int(sys.argv[1]), *sys.argv[2:])
