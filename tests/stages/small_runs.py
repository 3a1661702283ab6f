"""A small run by the stages, called from Python."""

from keras_sacl import stages

SMALL = {
    "method": "xd",
    "encoder": "resnet20_cifar",
    "width": 0.5,
    "image_size": 8,
    "augmentation": "digits",
    "projector": "16-16",
    "batch_size": 32,
    "epochs": 1,
    "tensorboard": False,
    "verbose": "quiet",
}


def run(config):
    run_dir = stages.RunDir(config.run_dir)
    run_dir.check(config)
    stages.check_inputs(config)
    run_dir.start(config)
    said = []
    for name in config.stages:
        stages.RUNNERS[name](config, run_dir, say=said.append)
    return run_dir, said
