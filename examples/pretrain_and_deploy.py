"""Pretrains an encoder in a script of one's own, with `model.fit`, and deploys the slim network.

python -m examples.pretrain_and_deploy
"""

from pathlib import Path

import keras

from keras_sacl.callbacks import CollapseGuard, SlimSchedule
from keras_sacl.data import get_preset, load_source, plain_batches, two_view_dataset
from keras_sacl.encoders import build_encoder
from keras_sacl.evaluation import evaluate_encoder
from keras_sacl.export import convert_tflite
from keras_sacl.heads import build_projector
from keras_sacl.methods import SACLXD
from keras_sacl.slimming import SlimmableEncoder

SIZE, BATCH, EPOCHS = 16, 64, 30
keras.utils.set_random_seed(0)

# Any two Keras models of one topology at two widths will do: a host, and the slim network in it.
host = build_encoder("resnet20_cifar", width=0.75, image_size=SIZE)
slim = build_encoder("resnet20_cifar", width=0.5, image_size=SIZE)
encoder = SlimmableEncoder(host, slim)
projector = build_projector(encoder.output_shape[-1], (256, 256, 256))
model = SACLXD(encoder, projector)

train, test = load_source("digits", "train"), load_source("digits", "test")
steps = len(train) // BATCH
preset = get_preset("digits")
views = two_view_dataset(train, preset, image_size=SIZE, batch_size=BATCH, seed=0, epochs=EPOCHS)


def show(title):
    sets = (plain_batches(source, image_size=SIZE, batch_size=256) for source in (train, test))
    scores = evaluate_encoder(model.deployed_encoder(), *sets)
    print(f"{title}: k-NN {scores['knn_top1']:.3f}, linear {scores['linear_top1']:.3f}", flush=True)


show("untrained")
rate = keras.optimizers.schedules.CosineDecay(
    0.0, (EPOCHS - 1) * steps, warmup_target=2e-3, warmup_steps=steps
)
model.compile(optimizer=keras.optimizers.AdamW(rate, weight_decay=1e-4), jit_compile=False)
model.fit(
    views,
    epochs=EPOCHS,
    steps_per_epoch=steps,
    callbacks=[SlimSchedule(alone_step=EPOCHS * steps // 2), CollapseGuard()],
    shuffle=False,  # the views come in an order of their own
    verbose=2,
)
show("trained")

deployed = model.deployed_encoder()
deployed.save("encoder.keras")
Path("encoder.tflite").write_bytes(convert_tflite(deployed))
print("wrote encoder.keras and encoder.tflite")
