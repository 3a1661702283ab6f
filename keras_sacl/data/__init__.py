"""Images, their augmented views, and the pipelines that deliver both."""

from keras_sacl.data.datasets import load_source
from keras_sacl.data.fingerprint import content_hash
from keras_sacl.data.labelled import labelled_share
from keras_sacl.data.normalisation import IMAGENET_MEAN, IMAGENET_STD, normalise
from keras_sacl.data.pipeline import (
    AUGMENT_ON,
    labelled_view_dataset,
    two_view_dataset,
    view_finisher,
)
from keras_sacl.data.plain import (
    PHOTO_SHARE,
    crop_share,
    original_images,
    plain_batches,
    raw_batches,
    raw_pixels,
)
from keras_sacl.data.presets import PRESETS, ViewPreset, all_presets, get_preset
from keras_sacl.data.reading import decode_all
from keras_sacl.data.source import ImageSource
from keras_sacl.data.views import augment_view

__all__ = [
    "AUGMENT_ON",
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "PHOTO_SHARE",
    "PRESETS",
    "ImageSource",
    "ViewPreset",
    "all_presets",
    "augment_view",
    "content_hash",
    "crop_share",
    "decode_all",
    "get_preset",
    "labelled_share",
    "labelled_view_dataset",
    "load_source",
    "normalise",
    "original_images",
    "plain_batches",
    "raw_batches",
    "raw_pixels",
    "two_view_dataset",
    "view_finisher",
]
