"""Where an epoch's time goes: the operations of a training step, by kind.

python -m benchmarks.profile --method sacl_xd
"""

import collections
import glob
import os
import tempfile

from benchmarks.report import parse


def main():
    options = parse(__doc__, method="sacl_xd", data_dir=None, steps=5, top=14)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import tensorflow as tf

    from benchmarks.end_to_end import recipe
    from benchmarks.images import small_images
    from keras_sacl.data import get_preset, two_view_dataset

    config, model = recipe(options.method, options.steps)
    source = small_images(options.data_dir, count=options.steps * config.batch_size)
    data = two_view_dataset(
        source, get_preset(config.augmentation),
        image_size=32, batch_size=config.batch_size, seed=0, epochs=1000,
    )  # fmt: skip
    settings = {"steps_per_epoch": options.steps, "shuffle": False, "verbose": 0}
    model.fit(data, epochs=1, **settings)  # traces
    with tempfile.TemporaryDirectory() as folder:
        tf.profiler.experimental.start(folder)
        model.fit(data, epochs=1, **settings)
        tf.profiler.experimental.stop()
        seconds, counts = operation_times(folder)
    total = sum(seconds.values())
    print(f"{options.method}: {total / options.steps:.3f} s of operations a step, by kind")
    for kind, value in seconds.most_common(options.top):
        print(f"  {kind:52}{value / options.steps:8.3f} s{value / total:7.1%}{counts[kind]:8}")


def operation_times(folder):
    """Seconds and numbers of calls by kind of operation, of a trace that TensorFlow wrote."""
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    (path,) = glob.glob(f"{folder}/**/*.xplane.pb", recursive=True)
    space = xplane_pb2.XSpace()
    with open(path, "rb") as file:
        space.ParseFromString(file.read())
    seconds, counts = collections.Counter(), collections.Counter()
    for plane in space.planes:
        names = {i: meta.name for i, meta in plane.event_metadata.items()}
        for line in plane.lines:
            for event in line.events:
                # Operations are traced as "name:Kind"; what surrounds them is not.
                _, colon, kind = names[event.metadata_id].rpartition(":")
                if colon and kind.isidentifier() and "::" not in names[event.metadata_id]:
                    seconds[kind] += event.duration_ps / 1e12
                    counts[kind] += 1
    return seconds, counts


if __name__ == "__main__":
    main()
