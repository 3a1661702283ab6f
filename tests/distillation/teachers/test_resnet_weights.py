"""ResNets of PyTorch checkpoints against a NumPy forward pass in float64."""

import keras
import numpy as np
import pytest

from keras_sacl.distillation.teachers import load_teacher
from keras_sacl.distillation.teachers.resnet_weights import resnet_from_torch
from tests.distillation.teachers.torch_files import (
    resnet_features,
    resnet_state,
    write_checkpoint,
)

RESNET18 = (2, 2, 2, 2)


@pytest.fixture(scope="module")
def state():
    """A ResNet-18 of an eighth of the width; do not change it."""
    return resnet_state(RESNET18)


def images(side, count=2):
    return np.random.default_rng(1).normal(size=(count, side, side, 3)).astype("float32")


def prefixed(prefix, state):
    return {prefix + name: values for name, values in state.items()}


def assert_same_features(encoder, x, expected):
    found = np.asarray(encoder(x, training=False))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("stream", [False, True], ids=["zip", "stream"])
def test_features_from_both_formats(state, stream, tmp_path):
    path = write_checkpoint(tmp_path / "resnet.pth.tar", state, stream)
    teacher = load_teacher(path)
    assert (teacher.features, teacher.embeddings, teacher.image_size) == (64, 64, None)
    assert teacher.projector is None and teacher.name == str(path)
    assert not teacher.encoder.trainable_variables
    # Of even and odd size: the maps in between are of both kinds.
    for side in (64, 45, 32):
        assert_same_features(teacher.encoder, images(side), resnet_features(state, images(side)))


def test_padding_is_pytorchs(state):
    """TensorFlow's "same" is another alignment, which this test would see."""
    encoder, _ = resnet_from_torch(state)
    x = images(64)
    expected = resnet_features(state, x)
    shifted = resnet_features(state, np.pad(x, ((0, 0), (0, 1), (0, 1), (0, 0)))[:, 1:, 1:])
    assert np.abs(shifted - expected).max() > 1e-2 * np.abs(expected).max()
    assert_same_features(encoder, x, expected)


@pytest.mark.parametrize(
    "name, repeats, bottleneck",
    [
        ("resnet34", (3, 4, 6, 3), False),
        ("resnet50", (3, 4, 6, 3), True),
        pytest.param("resnet101", (3, 4, 23, 3), True, marks=pytest.mark.slow),
        pytest.param("resnet152", (3, 8, 36, 3), True, marks=pytest.mark.slow),
    ],
)
def test_depths(name, repeats, bottleneck):
    state = resnet_state(repeats, bottleneck=bottleneck)
    encoder, _ = resnet_from_torch(state)
    assert encoder.name == name and encoder.output_shape == (None, 256 if bottleneck else 64)
    assert_same_features(encoder, images(33), resnet_features(state, images(33)))


@pytest.mark.parametrize("planes", [16, 24])
def test_width_follows_from_shapes(planes):
    state = resnet_state(RESNET18, planes=planes)
    encoder, _ = resnet_from_torch(state)
    assert encoder.output_shape == (None, 8 * planes)
    assert_same_features(encoder, images(32), resnet_features(state, images(32)))


@pytest.mark.slow
def test_w2_is_twice_as_wide():
    state = resnet_state((3, 4, 6, 3), planes=128, bottleneck=True)
    encoder, _ = resnet_from_torch(prefixed("module.", state))
    assert encoder.output_shape == (None, 4096)
    assert encoder.count_params() / 1e6 == pytest.approx(94, rel=0.01)  # SwAV's figure


@pytest.mark.parametrize(
    "prefix, beside, padding",
    [("", {}, 1), ("backbone.", {}, 1), ("backbone.", {"classifier.weight": np.ones((10, 64))}, 2)],
    ids=["bare", "backbone", "solo-learn"],
)
def test_stem_of_small_images(prefix, beside, padding):
    state = resnet_state(RESNET18, stem=3)
    encoder, _ = resnet_from_torch({**prefixed(prefix, state), **beside})
    expected = resnet_features(state, images(16), stem_padding=padding)
    assert_same_features(encoder, images(16), expected)


@pytest.mark.parametrize(
    "prefix, follower",
    [
        ("", None),
        ("module.", None),
        ("module.encoder_q.", "module.encoder_k."),
        ("encoder_q.", "encoder_k."),
        ("backbone.", "momentum_backbone."),
        ("module.base_encoder.", "module.momentum_encoder."),
        ("online_encoder.net.", "target_encoder.net."),
    ],
)
def test_prefixes(state, prefix, follower):
    follower_state = resnet_state(RESNET18, seed=1) if follower else {}
    tensors = {**prefixed(follower or "", follower_state), **prefixed(prefix, state)}
    encoder, _ = resnet_from_torch(tensors)
    np.testing.assert_array_equal(
        encoder.get_layer("stem").get_weights()[0],
        state["conv1.weight"].transpose(2, 3, 1, 0),
    )


def test_known_leftovers(state):
    beside = {
        "module.fc.weight": np.ones((1000, 64)),
        "module.fc.bias": np.ones(1000),
        "module.queue": np.ones((128, 10)),
        "module.queue_ptr": np.ones(1),
        "module.prototypes.weight": np.ones((30, 16)),
        "module.prototypes0.weight": np.ones((30, 16)),
        "anything.else": np.ones(1),  # outside the prefix
    }
    _, projector = resnet_from_torch({**prefixed("module.", state), **beside})
    assert projector is None


def changed(state, **changes):
    names = {name.replace("__", "."): value for name, value in changes.items()}
    return {name: v for name, v in {**state, **names}.items() if v is not None}


@pytest.mark.parametrize(
    "changes, text",
    [
        ({"layer2__0__bn2__running_var": None}, "lacks the tensor layer2.0.bn2.running_var"),
        ({"conv1__weight": None}, "lacks the tensor conv1.weight"),
        ({"layer2__0__downsample__0__weight": None}, "lacks the tensor layer2.0.downsample.0.w"),
        ({"layer1__0__conv1__bias": np.ones(8)}, "has the tensor layer1.0.conv1.bias, which is no"),
        ({"layer1__0__se__weight": np.ones(8)}, "has the tensor layer1.0.se.weight"),
        ({"layer5__0__conv1__weight": np.ones(8)}, "has the tensor layer5.0.conv1.weight"),
        (
            {"layer3__1__conv2__weight": np.ones((32, 32, 1, 1))},
            r"has layer3.1.conv2.weight of shape \(32, 32, 1, 1\) where .* \(32, 32, 3, 3\)",
        ),
        ({"bn1__weight": np.ones(9)}, r"has bn1.weight of shape \(9,\) where .* \(8,\)"),
        ({"conv1__weight": np.ones((8, 3, 5, 5))}, r"conv1.weight of shape \(8, 3, 5, 5\)"),
        ({"conv1__weight": np.ones((12, 3, 7, 7))}, r"conv1.weight of shape \(12, 3, 7, 7\)"),
        ({"conv1__weight": np.ones((8000, 3, 7, 7))}, r"bn1.weight of shape .* \(8000,\)"),
        ({"conv1__weight": np.array(1.0)}, r"conv1.weight of shape \(\)"),
        ({"layer4__2__conv1__weight": np.ones(1)}, "has 2-2-2-3 basic blocks .* none of resnet18"),
        ({"layer1__0__conv1__weight": None}, "no tensor's name ends with layer1.0.conv1.weight"),
    ],
)
def test_what_does_not_fit_is_named(state, changes, text):
    with pytest.raises(ValueError, match=text) as caught:
        resnet_from_torch(changed(state, **changes))
    assert "\n" not in str(caught.value)


def test_the_name_comes_with_its_prefix(state):
    tensors = prefixed("module.encoder_q.", changed(state, bn1__bias=None))
    with pytest.raises(ValueError, match="lacks the tensor module.encoder_q.bn1.bias"):
        resnet_from_torch(tensors)


def linear(name, inputs, outputs, rng, bias=True):
    values = {f"{name}.weight": rng.normal(size=(outputs, inputs)).astype("float32")}
    return values | ({f"{name}.bias": rng.normal(size=outputs).astype("float32")} if bias else {})


def norm(name, width, rng, affine=True):
    parts = ("weight", "bias", "running_mean", "running_var")[0 if affine else 2 :]
    values = {f"{name}.{part}": rng.uniform(0.5, 1.5, width).astype("float32") for part in parts}
    return values | {f"{name}.num_batches_tracked": np.array(3)}


def normalise(x, tensors, name):
    y = (x - tensors[f"{name}.running_mean"]) / np.sqrt(tensors[f"{name}.running_var"] + 1e-5)
    return y * tensors.get(f"{name}.weight", 1) + tensors.get(f"{name}.bias", 0)


def product(x, tensors, name):
    return x @ tensors[f"{name}.weight"].T.astype("float64") + tensors.get(f"{name}.bias", 0)


@pytest.mark.parametrize("head", ["moco_v1", "moco_v2", "swav", "swav_linear", "barlow", "simsiam"])
def test_projection_heads(state, head):
    rng = np.random.default_rng(2)
    x = rng.normal(size=(5, 64))
    if head == "moco_v1":
        prefix, tensors = "module.encoder_q.", linear("module.encoder_q.fc", 64, 16, rng)
        expected = product(x, tensors, "module.encoder_q.fc")
    elif head == "moco_v2":
        prefix, fc = "module.encoder_q.", "module.encoder_q.fc"
        tensors = linear(f"{fc}.0", 64, 64, rng) | linear(f"{fc}.2", 64, 16, rng)
        expected = product(np.maximum(product(x, tensors, f"{fc}.0"), 0), tensors, f"{fc}.2")
    elif head == "swav":
        prefix, name = "module.", "module.projection_head"
        tensors = linear(f"{name}.0", 64, 32, rng) | norm(f"{name}.1", 32, rng)
        tensors |= linear(f"{name}.3", 32, 16, rng)
        hidden = normalise(product(x, tensors, f"{name}.0"), tensors, f"{name}.1")
        expected = product(np.maximum(hidden, 0), tensors, f"{name}.3")
    elif head == "swav_linear":
        prefix, tensors = "module.", linear("module.projection_head", 64, 16, rng)
        expected = product(x, tensors, "module.projection_head")
    elif head == "barlow":
        prefix, name = "module.backbone.", "module.projector"
        tensors = linear(f"{name}.0", 64, 32, rng, bias=False) | norm(f"{name}.1", 32, rng)
        tensors |= linear(f"{name}.3", 32, 16, rng, bias=False) | norm("module.bn", 16, rng, False)
        hidden = normalise(product(x, tensors, f"{name}.0"), tensors, f"{name}.1")
        expected = product(np.maximum(hidden, 0), tensors, f"{name}.3")
    else:
        prefix, fc = "module.encoder.", "module.encoder.fc"
        tensors = linear(f"{fc}.0", 64, 32, rng, bias=False) | norm(f"{fc}.1", 32, rng)
        tensors |= linear(f"{fc}.3", 32, 16, rng) | norm(f"{fc}.4", 16, rng, affine=False)
        tensors |= linear("module.predictor.0", 16, 16, rng)
        hidden = normalise(product(x, tensors, f"{fc}.0"), tensors, f"{fc}.1")
        expected = product(np.maximum(hidden, 0), tensors, f"{fc}.3")
        expected = normalise(expected, tensors, f"{fc}.4")
    _, projector = resnet_from_torch({**prefixed(prefix, state), **tensors})
    found = np.asarray(projector(x.astype("float32"), training=False))
    assert projector.output_shape == (None, 16)
    np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize(
    "tensors",
    [
        {"fc.weight": np.ones((10, 64)), "fc.bias": np.ones(10)},  # a classifier
        {"fc.0.weight": np.ones((16, 64, 1, 1))},
        {"projector.layers.0.weight": np.ones((16, 64))},
        {"projector.0.weight_g": np.ones((16, 1)), "projector.0.weight_v": np.ones((16, 64))},
    ],
)
def test_other_heads_are_left_out(state, tensors):
    _, projector = resnet_from_torch({**state, **tensors})
    assert projector is None


@pytest.mark.parametrize(
    "tensors, text",
    [
        (
            {"fc.0.weight": np.ones((16, 65))},
            r"\[\(65, 16\)\] in layer 0 of fc, not \[\(64, 16\)\]",
        ),
        (
            {"fc.0.weight": np.ones((16, 64)), "fc.2.weight": np.ones((8, 9))},
            r"\[\(9, 8\)\] in layer 2 of fc, not \[\(16, 8\)\]",
        ),
        (
            {"projector.0.weight": np.ones((16, 64)), "projector.0.bias": np.ones(5)},
            r"\(5,\)\] in layer 0 of projector, not .* \(16,\)\]",
        ),
    ],
)
def test_heads_that_do_not_fit(state, tensors, text):
    with pytest.raises(ValueError, match=text):
        resnet_from_torch({**state, **tensors})


@pytest.mark.slow
@pytest.mark.parametrize("stream", [False, True], ids=["zip", "stream"])
def test_pytorchs_own_operations(state, stream, tmp_path):
    """The oracle itself against PyTorch, by functions, through a file of PyTorch's own."""
    torch = pytest.importorskip("torch")
    from torch.nn import functional as F

    tensors = {name: torch.tensor(values) for name, values in state.items()}

    def convolution(x, name, norm, stride=1):
        kernel = tensors[f"{name}.weight"]
        x = F.conv2d(x, kernel, stride=stride, padding=kernel.shape[-1] // 2)
        names = ("running_mean", "running_var", "weight", "bias")
        return F.batch_norm(x, *(tensors[f"{norm}.{part}"] for part in names))

    x = torch.tensor(images(64)).permute(0, 3, 1, 2)
    x = F.max_pool2d(F.relu(convolution(x, "conv1", "bn1", 2)), 3, 2, 1)
    for name in (f"layer{stage}.{i}" for stage in range(1, 5) for i in range(2)):
        stride = 2 if f"{name}.downsample.0.weight" in tensors else 1
        y = F.relu(convolution(x, f"{name}.conv1", f"{name}.bn1", stride))
        y = convolution(y, f"{name}.conv2", f"{name}.bn2")
        if stride == 2:
            x = convolution(x, f"{name}.downsample.0", f"{name}.downsample.1", 2)
        x = F.relu(x + y)
    expected = x.mean(dim=(2, 3)).numpy()

    np.testing.assert_allclose(resnet_features(state, images(64)), expected, rtol=1e-4, atol=1e-5)
    path = tmp_path / "resnet.pth"
    torch.save(tensors, path, _use_new_zipfile_serialization=not stream)
    assert_same_features(load_teacher(path).encoder, images(64), expected)


def test_save_and_load(state, tmp_path):
    encoder, _ = resnet_from_torch(state)
    encoder.save(tmp_path / "encoder.keras")
    loaded = keras.saving.load_model(tmp_path / "encoder.keras", safe_mode=True)
    np.testing.assert_array_equal(loaded(images(32)), encoder(images(32)))
