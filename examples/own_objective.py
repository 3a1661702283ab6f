"""A distillation objective of one's own: the student's linear CKA with its teacher.

("Similarity of Neural Network Representations Revisited", 2019.)

python -m examples.own_objective TEACHER.keras
"""

import sys

import keras
import tensorflow as tf

from keras_sacl.data import get_preset, load_source, two_view_dataset
from keras_sacl.distillation import Distiller, Objective
from keras_sacl.encoders import build_encoder
from keras_sacl.heads import build_projector
from keras_sacl.methods import MoCoV2


@keras.saving.register_keras_serializable("examples")
class CKA(Objective):
    def loss(self, student, teacher):
        s, t = (x - tf.reduce_mean(x, 0) for x in (student.features, teacher.features))
        s, t = tf.matmul(s, s, transpose_b=True), tf.matmul(t, t, transpose_b=True)
        return 1 - tf.reduce_sum(s * t) / (tf.norm(s) * tf.norm(t))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    teacher = keras.models.load_model(sys.argv[1], compile=False)
    encoder = build_encoder("resnet20_cifar", width=0.25, image_size=16)
    projector = build_projector(encoder.output_shape[-1], (256, 64), batch_norm=False)
    distiller = Distiller({"cka": CKA()}, {"cka": 2.0}, teacher)
    model = MoCoV2(encoder, projector, queue_size=256, distiller=distiller)
    model.compile(keras.optimizers.AdamW(2e-3))
    digits, preset = load_source("digits", "train"), get_preset("digits")
    views = two_view_dataset(digits, preset, image_size=16, batch_size=64, seed=0, epochs=5)
    model.fit(views, shuffle=False, verbose=2)
