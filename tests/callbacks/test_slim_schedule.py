"""The host alone at first, slimmed later: what is trained until then, the change, resuming."""

import keras
import numpy as np
import pytest

from keras_sacl import callbacks
from keras_sacl.heads import build_projector
from keras_sacl.methods import METHODS
from keras_sacl.slimming import SlimmableEncoder, TieredEncoder
from tests.methods import small_networks
from tests.methods.small_networks import Counter

START, LONG = 4, 100


def make(name="sacl_xd", tiers=1, **settings):
    """A compiled method of a host of 1.5 widths; of "xd" and "barlow_twins", the host by itself."""
    slims = [small_networks.network(width) for width in (1, 0.5)[:tiers]]
    keras.utils.set_random_seed(1)
    encoder = small_networks.network(1.5)
    projector = build_projector(12, (16, 16))
    if name.startswith("sacl"):
        slimmable = {"selection": settings.pop("selection", "leading")}
        if tiers > 1:
            encoder = TieredEncoder(encoder, slims, **slimmable)
        else:
            slimmable["execution"] = settings.pop("execution", "slice")
            encoder = SlimmableEncoder(encoder, slims[0], **slimmable)
    method = METHODS[name](encoder, projector, **settings)
    method.compile(keras.optimizers.SGD(1e-3, momentum=0.9))
    return method


def batches(steps):
    for step in steps:
        yield small_networks.views(seed=step)


def fit(method, steps, start=START, **settings):
    schedule = [] if start is None else [callbacks.SlimSchedule(start)]
    found = settings.pop("callbacks", [])
    method.fit(
        batches(steps), steps_per_epoch=len(steps), verbose=0, callbacks=[*found, *schedule],
        **settings,
    )  # fmt: skip
    return method


def state(method):
    return [np.asarray(v) for v in (*method.variables, *method.optimizer.variables)]


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


def test_until_then_each_view_is_encoded_once():
    method, passes = make(), []
    for method.encoder.slimming in (False, True):
        Counter.reset()
        method.train_step(small_networks.views())
        passes.append(Counter.training_calls)
    assert passes == [2, 4]


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
    seen = {}

    class Watch(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            encoder = self.model.encoder
            slims = [encoder.extract_slim(*([t] if t else [])) for t in range(tiers)]
            if encoder.slimming:
                seen[batch] = [moving_mean(network) for network in (encoder.host, *slims)]

    # Behind the schedule, so that it sees what that has done.
    schedule = callbacks.SlimSchedule(START)
    make(tiers=tiers).fit(
        batches(range(8)), steps_per_epoch=8, verbose=0, callbacks=[schedule, Watch()]
    )
    assert list(seen) == [4, 5, 6, 7]
    host, *slims = seen[START]
    for slim in slims:
        np.testing.assert_array_equal(slim, host[: len(slim)])
    host, *slims = seen[7]  # from there on each goes its own way
    for slim in slims:
        assert np.abs(slim - host[: len(slim)]).max() > 1e-4


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


@pytest.mark.parametrize("cut", [3, 4, 5])
@pytest.mark.parametrize("tiers", [1, 2])
def test_resumed_equals_uninterrupted(cut, tiers, tmp_path):
    whole = fit(make(tiers=tiers), range(7))
    saver = callbacks.RunCheckpoint(tmp_path)
    fit(make(tiers=tiers), range(cut), callbacks=[saver])
    again = make(tiers=tiers)
    assert callbacks.RunCheckpoint(tmp_path).restore(again) == cut
    fit(again, range(cut, 7))
    for a, b in zip(state(whole), state(again), strict=True):
        np.testing.assert_array_equal(a, b)


def test_one_fit_after_another_goes_on():
    whole = fit(make(), range(7))
    parts = make()
    for steps in (range(2), range(2, 4), range(4, 5), range(5, 7)):
        fit(parts, steps)
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


def test_several_steps_an_execution_take_the_same_steps():
    one = fit(make(), range(8))
    several = make()
    several.compile(keras.optimizers.SGD(1e-3, momentum=0.9), steps_per_execution=2)
    fit(several, range(8))
    for a, b in zip(state(one), state(several), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="`start_step` must not be negative"):
        callbacks.SlimSchedule(-1)
