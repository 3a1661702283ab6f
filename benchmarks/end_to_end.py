"""An epoch of `fit` on CIFAR-10 against its bare steps: what the rest costs.

python -m benchmarks.end_to_end --data_dir PATH --json end_to_end.json
"""

from benchmarks.race import Contender, race
from benchmarks.report import Report, parse
from benchmarks.step import compiled_step

FIT = "fit: views, steps, metrics"


def epoch(method, steps, data_dir):
    """`fit` over an epoch of `steps` steps, with everything but monitors and checkpoints."""
    from benchmarks.images import small_images
    from keras_sacl.data import get_preset, two_view_dataset

    config, model = recipe(method, steps)
    source = small_images(data_dir, count=steps * config.batch_size)
    data = two_view_dataset(
        source, get_preset(config.augmentation),
        image_size=32, batch_size=config.batch_size, seed=0, epochs=10_000,
    )  # fmt: skip

    def work():
        model.fit(data, epochs=1, steps_per_epoch=steps, shuffle=False, verbose=0)

    return work


def bare_steps(method, steps, data_dir):
    """The same number of steps, on two views that stay in memory."""
    import tensorflow as tf

    config, model = recipe(method, steps)
    views = tuple(tf.random.normal((config.batch_size, 32, 32, 3)) for _ in range(2))
    step = compiled_step(model, views)

    def work():
        for _ in range(steps):
            logs = step()
        float(logs["loss"])

    return work


def recipe(method, steps):
    """(config, compiled method) of CIFAR-10, MobileNet-V1 0.5; `sacl_xd` as Algorithm 1 passes."""
    from keras_sacl.config import RunConfig
    from keras_sacl.stages.build import build_method, compile_method

    config = RunConfig(
        method=method, encoder="mobilenet_v1", width=0.5, host_width=None, image_size=32,
        augmentation="cifar10", projector="1024-1024-1024", batch_size=256,
        sacl_contrast="across",
    ).validated()  # fmt: skip
    model = build_method(config, images=steps * config.batch_size)
    compile_method(model, config, steps)
    return config, model


def main():
    options = parse(__doc__, data_dir=None, steps=20)
    report = Report(f"CIFAR-10, MobileNet-V1 0.5, epochs of {options.steps} steps")
    for method in ("sacl_xd", "barlow_twins"):
        arguments = {"method": method, "steps": options.steps, "data_dir": options.data_dir}
        found = race(
            [
                Contender(FIT, epoch, arguments),
                Contender("bare steps", bare_steps, arguments),
            ],
            repeats=options.repeats,
            warmup=1,
        )
        report.times(f"epoch, {method}", found, FIT)
    report.write(options.json)


if __name__ == "__main__":
    main()
