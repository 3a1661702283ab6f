"""MobileNets from keras.applications."""

import keras

# keras.applications refuses to build below 32 px; the graph itself takes any size.
_SMALLEST = 32


def _settings(width, image_size):
    size = max(image_size, _SMALLEST)
    return {
        "input_shape": (size, size, 3),
        "alpha": width,
        "include_top": False,
        "weights": None,
    }


def mobilenet_v1(width, image_size):
    """From "MobileNets: Efficient Convolutional Neural Networks for Mobile Vision" (2017)."""
    return keras.applications.MobileNet(**_settings(width, image_size))


def mobilenet_v2(width, image_size):
    """From "MobileNetV2: Inverted Residuals and Linear Bottlenecks" (2018)."""
    return keras.applications.MobileNetV2(**_settings(width, image_size))


def mobilenet_v3_small(width, image_size):
    """From "Searching for MobileNetV3" (2019), the small one."""
    return keras.applications.MobileNetV3Small(
        include_preprocessing=False, **_settings(width, image_size)
    )


def mobilenet_v3_large(width, image_size):
    """From "Searching for MobileNetV3" (2019), the large one."""
    model = keras.applications.MobileNetV3Large(
        include_preprocessing=False, **_settings(width, image_size)
    )
    # The stem has 16 channels there at every width, which leaves the first residual without a
    # partner at widths other than 1. Here it is scaled like all the rest.
    model.get_layer("conv").filters = model.get_layer("expanded_conv_project").filters
    return model
