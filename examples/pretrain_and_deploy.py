"""Pretrains an encoder in a script of one's own, with `model.fit`, and deploys the slim network.

python examples/pretrain_and_deploy.py
"""

import keras

from keras_sacl.callbacks import CollapseGuard
from keras_sacl.data import get_preset, load_source, plain_batches, two_view_dataset
from keras_sacl.encoders import build_encoder
from keras_sacl.evaluation import evaluate_encoder
from keras_sacl.export import convert_tflite
from keras_sacl.heads import build_projector
from keras_sacl.methods import SACLXD
from keras_sacl.slimming import SlimmableEncoder

IMAGE_SIZE, BATCH, EPOCHS = 16, 128, 10
keras.utils.set_random_seed(0)

# Any two Keras models of one topology at two widths will do: a host, and the slim network in it.
host = build_encoder("resnet20_cifar", width=1.0, image_size=IMAGE_SIZE)
slim = build_encoder("resnet20_cifar", width=0.5, image_size=IMAGE_SIZE)
encoder = SlimmableEncoder(host, slim)
projector = build_projector(encoder.output_shape[-1], (256, 256, 256))
model = SACLXD(encoder, projector, alpha=0.9)
model.compile(optimizer=keras.optimizers.AdamW(2e-3), jit_compile=False)

train = load_source("digits", "train")
views = two_view_dataset(
    train, get_preset("digits"), image_size=IMAGE_SIZE, batch_size=BATCH, seed=0, epochs=EPOCHS
)
model.fit(
    views, epochs=EPOCHS, steps_per_epoch=len(train) // BATCH, callbacks=[CollapseGuard()],
    shuffle=False, verbose=2,
)  # fmt: skip

deployed = model.deployed_encoder()
sets = [train, load_source("digits", "test")]
print(
    evaluate_encoder(
        deployed, *(plain_batches(s, image_size=IMAGE_SIZE, batch_size=256) for s in sets)
    )
)
deployed.save("encoder.keras")
with open("encoder.tflite", "wb") as file:
    file.write(convert_tflite(deployed))
print("wrote encoder.keras and encoder.tflite")
