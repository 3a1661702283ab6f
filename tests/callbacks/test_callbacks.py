"""Checkpoints, logs, guard and monitor, on a small method in real `fit`s."""

import errno
import json
import os
import signal

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_sacl import callbacks
from keras_sacl.heads import build_projector
from keras_sacl.methods import SACL, BarlowTwins
from keras_sacl.slimming import SlimmableEncoder


def network(width):
    inputs = keras.Input((4, 4, 3))
    x = keras.layers.Conv2D(8 * width, 3, use_bias=False, name="conv")(inputs)
    x = keras.layers.BatchNormalization(name="bn")(x)
    x = keras.layers.ReLU(name="relu")(x)
    return keras.Model(inputs, keras.layers.GlobalAveragePooling2D(name="pool")(x))


def make(learning_rate=0.05, selection="leading"):
    keras.utils.set_random_seed(0)
    encoder = SlimmableEncoder(network(2), network(1), selection=selection)
    method = SACL(encoder, build_projector(16, (8, 8)))
    method.compile(keras.optimizers.SGD(learning_rate, momentum=0.9))
    return method


def steps(count, start=0):
    def views(step):
        return tuple(
            tf.random.stateless_normal((16, 4, 4, 3), tf.stack([step, tf.constant(i, tf.int64)]))
            for i in range(2)
        )

    return tf.data.Dataset.range(start, start + count).map(views)


def state(method):
    return [np.asarray(v) for v in [*method.variables, *method.optimizer.variables]]


def test_resumed_training_ends_where_uninterrupted_training_ends(tmp_path):
    whole = make()
    whole.fit(steps(12), epochs=4, steps_per_epoch=3, shuffle=False, verbose=0)

    first = make()
    saver = callbacks.RunCheckpoint(tmp_path / "checkpoints")
    first.fit(steps(6), epochs=2, steps_per_epoch=3, shuffle=False, verbose=0, callbacks=[saver])

    second = make()
    again = callbacks.RunCheckpoint(tmp_path / "checkpoints")
    assert again.restore(second) == 6
    second.fit(
        steps(6, start=6), epochs=4, initial_epoch=2, steps_per_epoch=3, shuffle=False, verbose=0
    )
    for a, b in zip(state(whole), state(second), strict=True):
        np.testing.assert_array_equal(a, b)


def test_checkpoints_are_bounded_and_broken_ones_passed_over(tmp_path):
    method = make()
    saver = callbacks.RunCheckpoint(tmp_path, keep=2)
    method.fit(steps(4), epochs=4, steps_per_epoch=1, verbose=0, callbacks=[saver])
    assert [p.name for p in saver.paths()] == ["step-000000003.npz", "step-000000004.npz"]
    newest = saver.paths()[-1]
    newest.write_bytes(newest.read_bytes()[:1000])  # as a full disk leaves it
    said = []
    assert callbacks.RunCheckpoint(tmp_path).restore(make(), warn=said.append) == 3
    assert len(said) == 1 and "step-000000004.npz cannot be read" in said[0]
    # Set aside: as the newest by name it would have the ones that follow deleted.
    assert [p.name for p in saver.paths()] == ["step-000000003.npz"]
    assert newest.with_suffix(".broken").exists()


def test_steps_that_overflow_count_as_batches_of_the_data(tmp_path):
    """Keras' loss scaling does not count them as iterations; the data have gone on all the same."""
    method = make()
    optimizer = keras.optimizers.SGD(0.05)
    method.compile(keras.optimizers.LossScaleOptimizer(optimizer, initial_scale=1e38))
    saver = callbacks.RunCheckpoint(tmp_path, every_steps=2)
    method.fit(steps(5), verbose=0, callbacks=[saver])
    assert int(method.optimizer.iterations.numpy()) < 5
    assert [p.stem for p in saver.paths()] == ["step-000000004", "step-000000005"]
    again = make()
    again.compile(keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.05)))
    # As the stages do, after which Keras would make the scale's variables a second time.
    again.optimizer.build(again.trainable_variables)
    assert callbacks.RunCheckpoint(tmp_path).restore(again) == 5
    for a, b in zip(state(again), state(method), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_checkpoint_of_the_first_format_is_taken(tmp_path):
    """It had no metrics: it was written at the end of an epoch."""
    method = make()
    saver = callbacks.RunCheckpoint(tmp_path)
    method.fit(steps(3), verbose=0, callbacks=[saver])
    (path,) = saver.paths()
    with np.load(path) as file:
        meta, arrays = json.loads(str(file["meta"])), {n: file[n] for n in file.files}
    metrics = len(method.metrics_variables)
    names = meta["names"][:-metrics]
    arrays = {n: arrays[n] for n in sorted(arrays)[: len(names)]}
    old = {"format": 1, "epoch": 1, "step": 3, "names": names}
    np.savez(path, meta=np.array(json.dumps(old)), **arrays)
    again = make()
    assert callbacks.RunCheckpoint(tmp_path).restore(again) == 3
    for a, b in zip(state(method), state(again), strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_middle_of_an_epoch_is_resumed_with_its_logs(tmp_path):
    settings = {"verbose": 0, "shuffle": False}
    whole = make().fit(steps(6), **settings)
    first = make()
    saver = callbacks.RunCheckpoint(tmp_path, every_steps=2)
    first.fit(steps(6), callbacks=[saver], **settings)
    # Not after the last step: what stands there is saved after the epoch's line is written.
    assert [p.stem for p in saver.paths()] == ["step-000000004", "step-000000006"]
    saver.paths()[-1].unlink()
    second, again = make(), callbacks.RunCheckpoint(tmp_path)
    assert again.restore(second) == 4
    rest = second.fit(steps(2, start=4), callbacks=[again], **settings)
    assert rest.history == whole.history


def test_a_full_disk_is_told_in_one_line(tmp_path, monkeypatch):
    method = make()
    saver = callbacks.RunCheckpoint(tmp_path)
    method.fit(steps(1), verbose=0, callbacks=[saver])
    before = saver.paths()[0].read_bytes()

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(callbacks.CheckpointError, match="No space left on device.*is whole"):
        method.fit(steps(1), verbose=0, callbacks=[saver])
    assert [p.name for p in tmp_path.iterdir()] == ["step-000000001.npz"]
    assert saver.paths()[0].read_bytes() == before


def test_weights_that_are_not_finite_are_not_saved(tmp_path):
    method = make()
    method.trainable_variables[0].assign(method.trainable_variables[0] * np.nan)
    with pytest.raises(callbacks.TrainingStopped, match="weights are not finite after step 0"):
        callbacks.RunCheckpoint(tmp_path).save(method)
    assert not list(tmp_path.iterdir())


def test_a_signal_saves_and_ends(tmp_path):
    method = make()
    saver = callbacks.RunCheckpoint(tmp_path)
    stop = callbacks.StopOnSignal(saver)

    class Send(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch == 2:
                os.kill(os.getpid(), signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(callbacks.StoppedBySignal) as ended, stop.listening():
        method.fit(steps(9), verbose=0, callbacks=[Send(), saver, stop])
    assert ended.value.number == signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) is before
    assert [p.stem for p in saver.paths()] == ["step-000000003"]


def test_a_signal_is_not_lost_where_training_fails(tmp_path):
    stop = callbacks.StopOnSignal(callbacks.RunCheckpoint(tmp_path))
    with pytest.raises(callbacks.StoppedBySignal), stop.listening():
        os.kill(os.getpid(), signal.SIGTERM)
        raise callbacks.TrainingStopped("the loss is nan")
    # Nor one that comes after the last step.
    stop = callbacks.StopOnSignal(callbacks.RunCheckpoint(tmp_path))
    with pytest.raises(callbacks.StoppedBySignal), stop.listening():
        os.kill(os.getpid(), signal.SIGINT)


def test_nothing_to_restore(tmp_path):
    assert callbacks.RunCheckpoint(tmp_path / "none").restore(make()) == 0


def test_a_checkpoint_of_another_model_is_refused(tmp_path):
    method = make()
    method.fit(steps(1), verbose=0, callbacks=[callbacks.RunCheckpoint(tmp_path)])
    other = BarlowTwins(network(1), build_projector(8, (8, 8)))
    other.compile("sgd")
    with pytest.raises(ValueError, match="`model` must be the one that .* was saved from"):
        callbacks.RunCheckpoint(tmp_path).restore(other)


def test_a_checkpoint_holds_no_pickle(tmp_path):
    method = make()
    saver = callbacks.RunCheckpoint(tmp_path)
    method.fit(steps(1), verbose=0, callbacks=[saver])
    with np.load(saver.paths()[0], allow_pickle=False) as file:
        assert all(file[name].dtype != object for name in file.files)


def test_guard_stops_at_a_loss_that_is_not_finite(tmp_path):
    method = make(learning_rate=float("inf"))
    saver = callbacks.RunCheckpoint(tmp_path)
    with pytest.raises(callbacks.TrainingStopped, match="loss is nan in epoch 1, step 2"):
        method.fit(steps(5), verbose=0, callbacks=[callbacks.CollapseGuard(check_steps=2), saver])
    # At the end of an epoch in any case, and before anything is saved.
    method = make(learning_rate=float("inf"))
    with pytest.raises(callbacks.TrainingStopped, match="loss is nan in epoch 1;"):
        method.fit(steps(5), verbose=0, callbacks=[callbacks.CollapseGuard(), saver])
    assert not saver.paths()


def test_guard_stops_at_collapse():
    class Collapsing(BarlowTwins):
        def loss_terms(self, x_a, x_b):
            terms = super().loss_terms(x_a, x_b)
            return {**terms, "z": tf.ones_like(terms["z"])}

    method = Collapsing(network(1), build_projector(8, (8, 8)))
    method.compile(keras.optimizers.SGD(0.01))
    with pytest.raises(callbacks.TrainingStopped, match="embeddings collapsed in epoch 1"):
        method.fit(steps(3), verbose=0, callbacks=[callbacks.CollapseGuard()])


def collapsing(after):
    """A method whose embeddings become one point after so many steps of this process."""
    step = tf.Variable(0)

    class Collapsing(BarlowTwins):
        def loss_terms(self, x_a, x_b):
            terms = super().loss_terms(x_a, x_b)
            sound = tf.cast(step.assign_add(1) <= after, tf.float32)
            return {**terms, "z": terms["z"] * sound + (1 - sound)}

    method = Collapsing(network(1), build_projector(8, (8, 8)))
    method.compile(keras.optimizers.SGD(0.01))
    return method


def guarded(folder):
    guard = callbacks.CollapseGuard()
    return guard, callbacks.RunCheckpoint(folder, every_steps=10, guard=guard)


def test_guard_sees_a_collapse_within_an_epoch(tmp_path):
    """The logs are means since the epoch began, which 20 sound steps hold up."""
    guard, saver = guarded(tmp_path)
    with pytest.raises(callbacks.TrainingStopped, match="collapsed in epoch 1, step 30"):
        collapsing(after=20).fit(steps(40), verbose=0, callbacks=[guard, saver])
    assert [p.stem for p in saver.paths()] == ["step-000000010", "step-000000020"]


def test_guard_sees_a_collapse_in_what_is_left_of_an_epoch(tmp_path):
    """The steps before the cut hold the means up too."""
    guard, saver = guarded(tmp_path)
    collapsing(after=99).fit(steps(40), verbose=0, callbacks=[guard, saver])
    saver.paths()[-1].unlink()
    guard, saver = guarded(tmp_path)
    method = collapsing(after=0)
    assert saver.restore(method) == 30
    with pytest.raises(callbacks.TrainingStopped, match="collapsed in epoch 1, step 40"):
        method.fit(steps(30), verbose=0, callbacks=[guard, saver], steps_per_epoch=30)
    assert [p.stem for p in saver.paths()][-1] == "step-000000030"


def test_guard_lets_healthy_training_pass():
    make().fit(steps(3), verbose=0, callbacks=[callbacks.CollapseGuard()])


def test_metrics_log_holds_each_epoch_once(tmp_path):
    path = tmp_path / "metrics.jsonl"
    settings = {"steps_per_epoch": 2, "verbose": 0, "shuffle": False}
    make().fit(steps(6), epochs=3, callbacks=[callbacks.MetricsLog(path)], **settings)
    path.write_text(path.read_text() + '{"epoch": 4, "lo')  # cut short by a kill
    make().fit(
        steps(6), epochs=4, initial_epoch=1, callbacks=[callbacks.MetricsLog(path)], **settings
    )
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2, 3, 4]
    assert lines == callbacks.read_metrics(path)
    assert {"loss", "embedding_std", "seconds", "step", "learning_rate"} <= lines[0].keys()


def test_knn_monitor_measures_the_deployed_encoder():
    method = make()
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 2
    images = (rng.normal(size=(60, 4, 4, 3)) + 3 * labels[:, None, None, None]).astype("float32")
    seen = {}

    class Spy(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            seen[epoch + 1] = dict(logs)

    monitor = callbacks.KNNMonitor(
        lambda: [(images[:40], labels[:40])], lambda: [(images[40:], labels[40:])], every=2, k=5,
        information=True,
    )  # fmt: skip
    method.fit(steps(5), epochs=5, steps_per_epoch=1, verbose=0, callbacks=[monitor, Spy()])
    assert [epoch for epoch, logs in seen.items() if "knn_top1" in logs] == [2, 4, 5]
    assert seen[5]["knn_top1"] > 0.9
    assert 0 < seen[5]["i_t_y"] <= 1 and seen[5]["i_t_y"] <= seen[5]["i_x_t"] <= np.log2(20)


def test_representation_monitor_compares_two_views():
    method = make()
    rng = np.random.default_rng(0)
    a = rng.normal(size=(2, 30, 4, 4, 3)).astype("float32")
    b = a + 0.1 * rng.normal(size=a.shape).astype("float32")
    seen = {}

    class Spy(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            seen[epoch + 1] = dict(logs)

    monitor = callbacks.RepresentationMonitor(lambda: zip(a, b, strict=True), every=3)
    method.fit(steps(4), epochs=4, steps_per_epoch=1, verbose=0, callbacks=[monitor, Spy()])
    assert [epoch for epoch, logs in seen.items() if "uniformity" in logs] == [3, 4]
    encoder = method.deployed_encoder()
    f, g = (encoder(np.concatenate(x), training=False).numpy().astype("float64") for x in (a, b))
    f, g = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (f, g))
    distance = 2 - 2 * f @ g.T
    assert seen[4]["alignment"] == pytest.approx(np.trace(distance) / 60, rel=1e-4)
    own = distance.argmin(axis=1) == np.arange(60)
    assert seen[4]["instance_discrimination"] == pytest.approx(own.mean())
    pairs = np.exp(4 * f @ f.T - 4)[~np.eye(60, dtype=bool)]
    assert seen[4]["uniformity"] == pytest.approx(np.log(pairs.mean()), abs=1e-5)
    assert 1 < seen[4]["effective_rank"] <= f.shape[1]


def test_a_monitor_of_ones_own():
    class Norm(callbacks.EncoderMonitor):
        def measure(self, encode):
            return {"norm": float(np.linalg.norm(encode(np.ones((2, 4, 4, 3), "float32"))))}

    history = make().fit(steps(2), verbose=0, callbacks=[Norm(every=1)]).history
    assert history["norm"][-1] > 0
    with pytest.raises(NotImplementedError, match="must define `measure"):
        make().fit(steps(1), verbose=0, callbacks=[callbacks.EncoderMonitor()])


def test_slim_refresh_selects_at_its_steps():
    method = make(selection="magnitude")
    refreshed = []
    original = method.encoder.refresh_channels
    object.__setattr__(
        method.encoder,
        "refresh_channels",
        lambda: (refreshed.append(int(method.optimizer.iterations)), original()),
    )
    method.fit(steps(6), verbose=0, callbacks=[callbacks.SlimRefresh(3)])
    assert refreshed == [3]  # what ends has trained the channels that it has
    method.fit(steps(2), verbose=0, callbacks=[callbacks.SlimRefresh(3)])
    assert refreshed == [3, 6]
    method.compile(method.optimizer, steps_per_execution=2)
    method.fit(steps(6), verbose=0, callbacks=[callbacks.SlimRefresh(3)])
    assert refreshed == [3, 6, 10, 12]


@pytest.mark.parametrize(
    "make_it, name",
    [
        (lambda: callbacks.RunCheckpoint("x", keep=0), "keep"),
        (lambda: callbacks.RunCheckpoint("x", every_steps=-1), "every_steps"),
        (lambda: callbacks.CollapseGuard(1.0), "min_std"),
        (lambda: callbacks.CollapseGuard(check_steps=0), "check_steps"),
        (lambda: callbacks.KNNMonitor(None, None, every=0), "every"),
        (lambda: callbacks.RepresentationMonitor(None, every=0), "every"),
        (lambda: callbacks.SlimRefresh(0), "steps"),
    ],
)
def test_bad_arguments_are_named(make_it, name):
    with pytest.raises(ValueError, match=f"`{name}` must .*Received: {name}="):
        make_it()


def test_monitors_stop_at_features_that_are_not_finite():
    method = make()
    broken = [w * np.nan for w in method.encoder.get_weights()]
    monitor = callbacks.RepresentationMonitor(lambda: [(np.ones((2, 4, 4, 3), "float32"),) * 2])
    monitor.set_model(method)
    monitor.set_params({"epochs": 1})
    method.encoder.set_weights(broken)
    with pytest.raises(callbacks.TrainingStopped, match="features of the encoder are not finite"):
        monitor.on_epoch_end(0, {})
