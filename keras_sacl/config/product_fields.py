"""Fine-tuning and files."""

import dataclasses

from keras_sacl.config import choices
from keras_sacl.config.settings import setting

FORMATS = (
    "keras", "tflite", "tflite_fp16", "tflite_dynamic", "tflite_int8", "tflite_uint8", "onnx",
    "saved_model",
)  # fmt: skip
_DEFAULT_FORMATS = ("keras", "tflite", "tflite_fp16", "tflite_int8", "onnx")


@dataclasses.dataclass(frozen=True)
class ProductFields:
    """What is made of a pretrained encoder."""

    # Fine-tuning
    finetune_labels: float = setting(
        1.0,
        "Share of the labels of each class to fine-tune with, in (0, 1]: 0.01 and 0.1 are the "
        "semi-supervised protocols. At least one image of each class.",
        above=0,
        high=1,
        free=True,
    )
    finetune_steps: int = setting(10000, "Steps of fine-tuning.", low=1, free=True)
    finetune_batch_size: int = setting(64, "Images per step of fine-tuning.", low=2, free=True)
    finetune_learning_rate: float = setting(
        0.1,
        "Peak learning rate of fine-tuning by SGD; a cosine to 0, without warm-up.",
        above=0,
        free=True,
    )
    finetune_weight_decay: float = setting(
        0.0, "Weight decay of fine-tuning; not for biases and norm parameters.", low=0, free=True
    )
    finetune_scope: str = setting(
        "full",
        "What fine-tuning trains beside the linear layer: full (the encoder), last_blocks (what "
        "works at its last resolution) or frozen (nothing).",
        choices=choices.scopes,
        free=True,
    )
    finetune_baseline: bool = setting(
        True, "Train the untrained encoder by the same settings too, to compare with.", free=True
    )
    finetune_teacher: str | None = setting(
        None,
        "A classifier to distil from while fine-tuning: a .keras file that takes images as the "
        "encoder does and gives logits.",
        free=True,
    )
    kd_temperature: float = setting(
        4.0, "Temperature at which --finetune_teacher is imitated.", above=0, free=True
    )
    kd_weight: float = setting(
        0.9,
        "Weight of imitating --finetune_teacher, in [0, 1]; the rest goes to the labels.",
        low=0,
        high=1,
        free=True,
    )

    # Export
    export_formats: tuple = setting(
        _DEFAULT_FORMATS, "Files to write: " + ", ".join(FORMATS) + ".", choices=FORMATS, free=True
    )
    export_input: str = setting(
        "normalised",
        "What the exported files take: normalised (floats), pixels (uint8), or photos (uint8 "
        "of any height and width, which they crop and resize inside).",
        choices=("normalised", "pixels", "photos"),
        free=True,
    )
    export_onnx_opset: int = setting(
        17, "Operator set of the ONNX file: 15, 16 or 17.", low=15, high=17, free=True
    )
    export_onnx_batch: str = setting(
        "any",
        "Images a call of the ONNX file takes: any, or one.",
        choices=("any", "one"),
        free=True,
    )
    export_onnx_layout: str = setting(
        "nhwc",
        "Layout of the ONNX file's input: nhwc, or nchw (channels first).",
        choices=("nhwc", "nchw"),
        free=True,
    )
