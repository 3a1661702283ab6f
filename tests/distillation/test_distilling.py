"""From a RunConfig to a distiller; a run with a cached teacher against one with a live."""

import types

import keras
import numpy as np
import pytest
from sklearn.cluster import MiniBatchKMeans

from keras_sacl.config import ConfigError, RunConfig
from keras_sacl.config.distilling import OBJECTIVE_NAMES, objective_weights
from keras_sacl.data import ImageSource, ViewPreset, plain_batches, two_view_dataset
from keras_sacl.distillation import OBJECTIVES
from keras_sacl.stages import build, distilling
from keras_sacl.stages.distilling import Distilling, made_up, objectives
from tests.methods.small_networks import network, teacher

STILL = ViewPreset(
    crop_area=(1.0, 1.0), crop_aspect=(1.0, 1.0), flip=0.0, jitter=0.0, grayscale=0.0
)
IMAGES = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 3), np.uint8)


@pytest.fixture
def start(tmp_path, monkeypatch):
    """A function from settings to (config, `Distilling`, lines said)."""
    file = tmp_path / "teacher.keras"
    plain = keras.models.clone_model(teacher(), clone_function=_without_counter)
    plain.save(file)
    monkeypatch.setattr(build, "build_encoder", lambda *args, **settings: network(1))

    def started(source=None, **settings):
        config = RunConfig(
            **{
                "method": "distill", "distill": ("disco",), "teacher": str(file), "image_size": 8,
                "batch_size": 10, "distill_hidden": 16, "epochs": 1, "encoder": "resnet20_cifar",
                "optimizer": "sgd", "warmup_epochs": 0, **settings,
            }
        ).validated()  # fmt: skip
        said = []
        run_dir = types.SimpleNamespace(path=tmp_path / "run")
        source = ImageSource(IMAGES) if source is None else source
        found = Distilling(config, source, run_dir, said.append)
        found.cache()
        return config, found, said

    return started


def _without_counter(layer):
    if layer.name == "counter":
        return keras.layers.Activation("linear", name="counter")
    return layer.__class__.from_config(layer.get_config())


def trained(config, found, presets=(STILL, STILL)):
    method = build.build_method(config, len(IMAGES), found.distiller())
    build.compile_method(method, config, steps_per_epoch=4)
    found.start(method)
    data = two_view_dataset(
        ImageSource(IMAGES), presets, image_size=8, batch_size=10, seed=0, epochs=1, rows=found.rows
    )
    history = method.fit(data, verbose=0, shuffle=False).history
    return method, history


def test_cached_is_live_without_augmentation(start):
    """Order, resampling, normalisation and all: the rows are those of the images in the step."""
    found = []
    for cached in (False, True):
        config, distilling, _ = start(
            distill=("disco", "seed:0.5", "rkd", "reg"), cache_teacher=cached
        )  # fmt: skip
        found.append(trained(config, distilling))
    (live, logs), (cached, others) = found
    assert cached.distiller.teacher is None and live.distiller.teacher is not None
    for name, value in logs.items():
        np.testing.assert_allclose(others[name], value, rtol=1e-4, err_msg=name)
    for a, b in zip(live.encoder.variables, cached.encoder.variables, strict=True):
        np.testing.assert_allclose(np.asarray(a), np.asarray(b), atol=1e-5)


def test_rows_hang_on_the_teacher_the_images_and_their_size(start):
    config, found, said = start(cache_teacher=True)
    (images, _), *_ = plain_batches(ImageSource(IMAGES), image_size=8, batch_size=40)
    np.testing.assert_allclose(found.rows, found.teacher.encoder(images, training=False), atol=1e-6)
    assert found.rows.shape == (40, 12) and "runs once over 40 images" in said[0]
    other = IMAGES.copy()
    other[7, 3, 3] ^= 1
    for source, told in ((IMAGES, "embeddings"), (other, "runs once"), (other, "embeddings")):
        _, again, said = start(ImageSource(source), cache_teacher=True)
        assert told in said[0] and (again.rows.filename == found.rows.filename) == (
            source is IMAGES
        )


def test_a_shared_folder(start, tmp_path):
    shared = tmp_path / "shared"
    start(cache_teacher=True, teacher_cache_dir=str(shared))
    assert list(shared.glob("rows*.npy")) and not (tmp_path / "run").exists()


@pytest.mark.parametrize("cached", [True, False])
def test_clusters_are_found_before_the_first_step(start, cached, monkeypatch):
    monkeypatch.setattr(distilling, "CLUSTERED_IMAGES", 20)
    config, found, _ = start(distill=("cc",), distill_clusters=4, cache_teacher=cached)
    method = build.build_method(config, len(IMAGES), found.distiller())
    found.start(method)
    (images, _), *_ = plain_batches(ImageSource(IMAGES), image_size=8, batch_size=40)
    features = np.asarray(found.teacher.encoder(images, training=False))
    # Of images from the first to the last, which in a folder are of all classes.
    few = features[::2] / np.linalg.norm(features[::2], axis=1, keepdims=True)
    means = MiniBatchKMeans(4, random_state=0, n_init=3, batch_size=1024).fit(few)
    centres = means.cluster_centers_
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    np.testing.assert_allclose(
        np.asarray(method.distiller.objectives["cc"].centres), centres, atol=1e-4
    )


def test_every_run_has_fresh_objectives_and_one_teacher(start):
    _, found, _ = start()
    first, second = found.distiller(), found.distiller()
    assert first.objectives["disco"] is not second.objectives["disco"]
    assert first.teacher is second.teacher
    assert found.teacher.encoder is first.teacher


def config(**settings):
    return RunConfig(method="distill", teacher="x", **settings).validated()


def test_objectives_and_their_weights():
    assert set(OBJECTIVE_NAMES) == set(OBJECTIVES)
    settings = config(distill=("disco:0.5", "rkd"), distill_hidden=7)
    assert objective_weights(settings) == {"disco": 0.5, "rkd": 1.0}
    made = objectives(settings, 1000)
    assert list(made) == ["disco", "rkd"] and made["disco"].hidden == 7


def test_settings_of_the_papers():
    """Of 1.28 million images: queues, temperatures and clusters as published."""
    every = config(distill=tuple(n for n in OBJECTIVE_NAMES))
    made = objectives(every, 1_281_167)
    assert made["seed"].queue_size == 65_536 and made["crd"].queue_size == 16_384
    assert made["compress_1q"].queue_size == made["compress_2q"].queue_size == 128_000
    assert (made["seed"].teacher_temperature, made["seed"].student_temperature) == (0.01, 0.2)
    assert made["compress_2q"].temperature == 0.04 and made["crd"].temperature == 0.07
    assert made["cc"].clusters == 16_000 and made["disco"].hidden == 2048
    # Of fewer: a queue of the data set's size would hold the images themselves.
    made = objectives(every, 50_000)
    assert made["seed"].queue_size == made["compress_1q"].queue_size == 4096
    assert made["cc"].clusters == 625
    chosen = config(
        distill=("seed", "crd", "cc"), distill_queue_size=9, distill_temperature=0.5,
        distill_clusters=3,
    )  # fmt: skip
    made = objectives(chosen, 50_000)
    assert made["seed"].queue_size == made["crd"].queue_size == 9
    assert made["seed"].teacher_temperature == made["crd"].temperature == 0.5
    assert made["seed"].student_temperature == 0.2 and made["cc"].clusters == 3


def test_a_teacher_of_another_size_is_refused(start):
    with pytest.raises(ConfigError, match="takes images of 8 px; set --image_size"):
        start(image_size=16)
    with pytest.raises(ConfigError, match="teacher"):
        start(teacher="nothing.keras")


def test_a_teacher_that_is_made_up():
    settings = config(
        distill=("disco",),
        teacher_encoder="resnet20_cifar",
        teacher_projector="16-8",
        image_size=16,
    )
    made = made_up(settings)
    assert made.image_size == 16 and made.embeddings == 8
    assert made.features == made.encoder.output_shape[-1]
