"""A method of one's own, VICReg (2022): `python -m examples.own_method`."""

import keras
import tensorflow as tf

from keras_sacl.data import get_preset, load_source, two_view_dataset
from keras_sacl.encoders import build_encoder
from keras_sacl.heads import build_projector
from keras_sacl.methods import TwoViewMethod


@keras.saving.register_keras_serializable("examples")
class VICReg(TwoViewMethod):
    terms = ("invariance",)

    def loss_terms(self, x_a, x_b):
        z_a, z_b = self.embed(x_a), self.embed(x_b)
        invariance = tf.reduce_mean((z_a - z_b) ** 2)
        loss = 25 * invariance + spread(z_a) + spread(z_b)
        return {"loss": loss, "invariance": invariance, "z": z_a}


def spread(z):
    n, d = z.shape
    c = tf.matmul(z - tf.reduce_mean(z, 0), z - tf.reduce_mean(z, 0), transpose_a=True) / (n - 1)
    v = tf.linalg.diag_part(c)
    hinge = tf.reduce_mean(tf.nn.relu(1 - tf.sqrt(v + 1e-4)))
    return 25 * hinge + (tf.reduce_sum(c**2) - tf.reduce_sum(v**2)) / d


if __name__ == "__main__":
    encoder = build_encoder("resnet20_cifar", width=0.5, image_size=16)
    model = VICReg(encoder, build_projector(encoder.output_shape[-1], (256, 256)))
    model.compile(keras.optimizers.AdamW(2e-3))
    digits = load_source("digits", "train"), get_preset("digits")
    views = two_view_dataset(*digits, image_size=16, batch_size=64, seed=0, epochs=5)
    model.fit(views, shuffle=False, verbose=2)
