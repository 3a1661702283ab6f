"""The host alone, both, the slim network alone: what is trained, the changes, resuming."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_sacl import callbacks
from keras_sacl.heads import build_projector
from keras_sacl.methods import METHODS, TwoViewMethod
from keras_sacl.slimming import SlimmableEncoder, TieredEncoder
from tests.methods import small_networks
from tests.methods.small_networks import Counter

START, ALONE, LONG = 4, 6, 100


def make(name="sacl_xd", tiers=1, execution="slice", selection="leading", **settings):
    """A compiled method of a host of 1.5 widths; of "xd" and "barlow_twins", the host by itself."""
    slims = [small_networks.network(width) for width in (1, 0.5)[:tiers]]
    keras.utils.set_random_seed(1)
    encoder = small_networks.network(1.5)
    projector = build_projector(12, (16, 16))
    if name.startswith("sacl") and tiers > 1:
        encoder = TieredEncoder(encoder, slims, selection=selection)
    elif name.startswith("sacl"):
        encoder = SlimmableEncoder(encoder, slims[0], execution=execution, selection=selection)
    method = METHODS[name](encoder, projector, **settings)
    method.compile(keras.optimizers.SGD(1e-3, momentum=0.9))
    return method


def batches(steps):
    for step in steps:
        yield small_networks.views(seed=step)


def fit(method, steps, start=START, alone=None, **settings):
    schedule = [] if start is None else [callbacks.SlimSchedule(start, alone)]
    found = settings.pop("callbacks", [])
    method.fit(
        batches(steps), steps_per_epoch=len(steps), verbose=0, callbacks=[*found, *schedule],
        **settings,
    )  # fmt: skip
    return method


def state(method):
    return [np.asarray(v) for v in (*method.variables, *method.optimizer.variables)]


@pytest.mark.long
@pytest.mark.parametrize("execution", ["slice", "mask"])
@pytest.mark.parametrize(("name", "alone"), [("sacl", "barlow_twins"), ("sacl_xd", "xd")])
def test_until_then_it_is_the_method_without_slimming_on_the_host(name, alone, execution):
    settings = {"alpha": 0.7} if name == "sacl_xd" else {}
    slimmed = fit(make(name, execution=execution, **settings), range(4), start=LONG)
    host = fit(make(alone, **settings), range(4), start=None)
    for a, b in zip(slimmed.encoder.host.weights, host.encoder.weights, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7, err_msg=a.path)
    never = fit(make(name, execution=execution, **settings), range(4), start=None)
    assert np.abs(never.encoder.host.weights[0] - host.encoder.weights[0]).max() > 1e-6


@pytest.mark.parametrize("execution", ["slice", "mask"])
@pytest.mark.parametrize(("name", "alone"), [("sacl", "barlow_twins"), ("sacl_xd", "xd")])
def test_in_the_end_it_is_the_method_without_slimming_on_the_slim_network(name, alone, execution):
    settings = {"alpha": 0.7} if name == "sacl_xd" else {}
    method = make(name, execution=execution, **settings)
    slim, projector = method.deployed_encoder(), build_projector(8, (16, 16))
    first, *others = method.projector.get_weights()
    projector.set_weights([first[:8], *others])
    own = METHODS[alone](slim, projector, **settings)
    own.compile(keras.optimizers.SGD(1e-3, momentum=0.9))
    method.encoder.trains = "slim"
    before = [np.array(v) for v in method.encoder.host.weights]
    for model in (method, own):
        fit(model, range(4), start=None)
    deployed = method.deployed_encoder()
    for a, b in zip(deployed.weights, own.encoder.weights, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6, err_msg=a.path)
    assert np.abs(deployed.weights[0] - before[0][..., :8]).max() > 1e-3
    for then, now in zip(before, method.encoder.host.weights, strict=True):  # the rest of the host
        np.testing.assert_array_equal(then[..., 8:], now[..., 8:])


def test_the_networks_take_turns():
    seen = []

    class Watch(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            seen.append(self.model.encoder.trains)

    fit(make(), range(8), alone=ALONE, callbacks=[Watch()])
    assert seen == 4 * ["host"] + 2 * ["both"] + 2 * ["slim"]


def test_in_the_end_each_step_trains_the_tier_that_is_drawn():
    method, moved = make(tiers=2), []
    method.encoder.trains = "slim"

    def means():
        slims = [method.encoder.extract_slim(tier) for tier in range(2)]
        return [moving_mean(network) for network in (*slims, method.encoder.host)]

    for step in range(8):
        before = means()
        fit(method, range(step, step + 1), start=None)
        moved.append([not np.array_equal(a, b) for a, b in zip(before, means(), strict=True)])
    first, second, host = np.array(moved).T
    assert first.any() and second.any() and not host.any()
    assert not (first & second).any() and (first | second).all()


@pytest.mark.parametrize("trains", ["both", "slim"])
def test_channels_stay_while_the_slim_network_is_alone(trains):
    method = make("sacl", selection="magnitude")
    method.encoder.trains = trains
    mask = next(v for v in method.encoder.weights if "channels" in v.name)
    before = np.array(mask)
    kernel = method.encoder.host.get_layer("conv").kernel
    kernel.assign(np.where(before, 0.01, 1.0) * np.ones((3, 3, 3, 12)))
    fit(method, range(2), start=None, callbacks=[callbacks.SlimRefresh(1)])
    assert np.array_equal(before, mask) == (trains == "slim")


def test_a_network_that_trains_alone_encodes_each_view_once():
    method, passes = make(), []
    for method.encoder.trains in ("host", "both", "slim"):
        Counter.reset()
        method.train_step(small_networks.views())
        passes.append(Counter.training_calls)
    assert passes == [2, 4, 2]


def test_what_is_deployed_meanwhile_is_the_slim_network_with_the_hosts_statistics():
    method = fit(make(), range(3), start=LONG)
    slim, host = method.encoder.extract_slim(), method.encoder.host
    for name in ("moving_mean", "moving_variance"):
        own, hosts = (getattr(m.get_layer("bn"), name).numpy() for m in (slim, host))
        np.testing.assert_array_equal(own, hosts[:8])
        assert np.ptp(own) > 0
    x, _ = small_networks.views()
    features = method(x, training=False)  # the host's width, zeros behind the slim network's
    np.testing.assert_allclose(features[:, :8], slim(x, training=False), rtol=1e-5, atol=1e-6)
    assert not np.any(features[:, 8:])


@pytest.mark.parametrize("tiers", [1, 2])
def test_the_slim_networks_start_from_the_hosts_statistics(tiers):
    apart = {}

    class Watch(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            encoder = self.model.encoder
            host = moving_mean(encoder.host)
            slims = [encoder.extract_slim(*([t] if t else [])) for t in range(tiers)]
            means = [moving_mean(slim) for slim in slims]
            apart[batch] = [np.abs(mean - host[: len(mean)]).max() for mean in means]

    # Of the first layer: the two networks have to see different views for it to differ.
    method = make(tiers=tiers, sacl_contrast="across")
    fit(method, range(8), callbacks=[Watch()])
    assert not np.any([apart[step] for step in range(START + 1)])
    assert np.min(apart[7]) > 1e-4  # from there on each goes its own way


def moving_mean(network):
    return network.get_layer("bn").moving_mean.numpy()


def test_channels_are_selected_at_the_change():
    method = make("sacl", selection="magnitude")
    method.encoder.host.get_layer("conv").kernel.assign(
        np.linspace(0, 1, 12) * np.ones((3, 3, 3, 12))
    )
    fit(method, range(2), start=1)
    mask = next(v for v in method.encoder.weights if "channels" in v.name)
    np.testing.assert_array_equal(mask, [0] * 4 + [1] * 8)


@functools.cache
def uninterrupted(**settings):
    return state(fit(make(**settings), range(8), alone=ALONE))


@pytest.mark.parametrize("cut", [3, 4, 6, 7])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        pytest.param({"tiers": 2}, marks=pytest.mark.long),
        pytest.param({"selection": "magnitude"}, marks=pytest.mark.long),
    ],
    ids=str,
)
def test_resumed_equals_uninterrupted(cut, settings, tmp_path):
    whole = uninterrupted(**settings)
    saver = callbacks.RunCheckpoint(tmp_path)
    fit(make(**settings), range(cut), alone=ALONE, callbacks=[saver])
    again = make(**settings)
    assert callbacks.RunCheckpoint(tmp_path).restore(again) == cut
    fit(again, range(cut, 8), alone=ALONE)
    for a, b in zip(whole, state(again), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.long
def test_one_fit_after_another_goes_on():
    whole = fit(make(), range(8), alone=ALONE)
    parts = make()
    for steps in (range(2), range(2, 4), range(4, 5), range(5, 8)):
        fit(parts, steps, alone=ALONE)
    for a, b in zip(state(whole), state(parts), strict=True):
        np.testing.assert_array_equal(a, b)


def test_held_out_views_are_seen_by_the_networks_that_train():
    method, seen = make("sacl"), []

    class Evaluate(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            logs = self.model.evaluate(batches([9]), steps=1, verbose=0, return_dict=True)
            expected = self.model.loss_terms(*small_networks.views(seed=9))["loss"]
            seen.append((logs["loss"], float(expected)))

    fit(method, range(3), start=2, callbacks=[Evaluate()])
    np.testing.assert_allclose(*zip(*seen, strict=True), rtol=1e-5)


@pytest.mark.long
@pytest.mark.parametrize(("start", "alone"), [(START, ALONE), (3, 5)])
def test_several_steps_an_execution_take_the_same_steps(start, alone):
    """A change inside of an execution waits for the next, whether the run is cut there or not."""

    def several():
        method = make(selection="magnitude")
        method.compile(keras.optimizers.SGD(1e-3, momentum=0.9), steps_per_execution=2)
        return method

    one = fit(make(selection="magnitude"), range(8), start=START, alone=ALONE)
    whole = fit(several(), range(8), start=start, alone=alone)
    for a, b in zip(state(one), state(whole), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
    parts = several()
    for steps in (range(4), range(4, 6), range(6, 8)):
        fit(parts, steps, start=start, alone=alone)
    for a, b in zip(state(whole), state(parts), strict=True):
        np.testing.assert_array_equal(a, b)


def test_saved_meanwhile_it_holds_the_network_that_is_deployed(tmp_path):
    method = fit(make(tiers=2), range(2), start=LONG)
    method.save(tmp_path / "method.keras")
    loaded = keras.models.load_model(tmp_path / "method.keras")
    x, _ = small_networks.views()
    np.testing.assert_array_equal(loaded.predict(x, verbose=0), method.predict(x, verbose=0))
    for tier in range(2):
        a, b = (m.encoder.extract_slim(tier)(x, training=False) for m in (loaded, method))
        np.testing.assert_array_equal(a, b)
        assert np.ptp(a) > 0


def test_predictions_are_those_of_the_slim_network_all_the_time():
    method, (x, _) = make(), small_networks.views()
    for steps in (range(2), range(2, 6)):
        fit(method, steps)
        slim = method.deployed_encoder()(x, training=False)
        np.testing.assert_allclose(method.predict(x, verbose=0)[:, :8], slim, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("first", [True, False])
def test_a_loss_of_any_passes_leaves_the_hosts_statistics(first):
    class Mine(TwoViewMethod):
        def loss_terms(self, x_a, x_b):
            both = [[self.embed(x, slim=slim) for slim in (first, not first)] for x in (x_a, x_b)]
            loss = sum(tf.reduce_mean((a - b) ** 2) + tf.reduce_mean(a**2) for a, b in both)
            return {"loss": loss, "z": both[1][0]}

    slims = [small_networks.network(width) for width in (1.5, 1)]
    method = Mine(SlimmableEncoder(*slims), build_projector(12, (16, 16)))
    method.compile(keras.optimizers.SGD(1e-3))
    fit(method, range(2), start=LONG)
    own, hosts = (moving_mean(m) for m in (method.deployed_encoder(), method.encoder.host))
    np.testing.assert_array_equal(own, hosts[:8])
    assert np.ptp(own) > 0


def test_dropout_makes_passes_of_their_own_meanwhile():
    """And they leave no statistics."""
    slims = [small_networks.network(width, dropout=0.5) for width in (1.5, 1)]
    method = METHODS["sacl_xd"](SlimmableEncoder(*slims), build_projector(12, (16, 16)))
    method.compile(keras.optimizers.SGD(0.0))
    method.encoder.trains = "host"
    Counter.reset()
    method.train_step(small_networks.views())
    assert Counter.training_calls == 4
    own, hosts = (moving_mean(m) for m in (method.deployed_encoder(), method.encoder.host))
    np.testing.assert_array_equal(own, hosts[:8])


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="`start_step` must not be negative"):
        callbacks.SlimSchedule(-1)
    with pytest.raises(ValueError, match="`alone_step` must be above `start_step`"):
        callbacks.SlimSchedule(4, 4)
