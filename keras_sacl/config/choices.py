"""Names that only the packages below know. Importing those takes TensorFlow, so: when asked."""


def encoders():
    from keras_sacl.encoders import ENCODERS

    return ENCODERS


def activations():
    from keras_sacl.encoders import ACTIVATIONS

    return ACTIVATIONS


def protocols():
    from keras_sacl.evaluation import PROTOCOLS

    return ("all", *PROTOCOLS)


def presets():
    from keras_sacl.data import PRESETS

    return tuple(PRESETS)


def scopes():
    from keras_sacl.finetuning import SCOPES

    return SCOPES
