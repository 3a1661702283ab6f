"""EfficientNets from keras-cv, by explicit configuration (its presets would download)."""


def efficientnet_b0(width, image_size):
    """From "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks" (2019)."""
    return _backbone(width, depth=1.0, image_size=image_size)


def efficientnet_b1(width, image_size):
    """As `efficientnet_b0`, with 1.1 times as many blocks."""
    return _backbone(width, depth=1.1, image_size=image_size)


def _backbone(width, depth, image_size):
    import keras
    import keras_cv

    backbone = keras_cv.models.EfficientNetV1Backbone(
        include_rescaling=False,
        width_coefficient=width,
        depth_coefficient=depth,
        # Random depth would make the passes of one step see different networks.
        dropout_rate=0.0,
        drop_connect_rate=0.0,
        input_shape=(image_size, image_size, 3),
        stackwise_kernel_sizes=[3, 3, 5, 3, 5, 5, 3],
        stackwise_num_repeats=[1, 2, 2, 3, 3, 4, 1],
        stackwise_input_filters=[32, 16, 24, 40, 80, 112, 192],
        stackwise_output_filters=[16, 24, 40, 80, 112, 192, 320],
        stackwise_expansion_ratios=[1, 6, 6, 6, 6, 6, 6],
        stackwise_strides=[1, 2, 2, 2, 1, 2, 1],
        stackwise_squeeze_and_excite_ratios=[0.25] * 7,
    )
    return keras.Model(backbone.inputs, backbone.outputs, name="efficientnet")
