"""Keras' own files, from anywhere."""

import zipfile
from pathlib import Path

import keras


def load_keras(path):
    """The model of a .keras file, in Keras' safe mode: no code comes with it.

    Args:
        path: The file.

    Returns:
        A `keras.Model`, not compiled.

    Raises:
        ValueError: In one line, if the file is missing or broken, or holds code.
    """
    try:
        return keras.saving.load_model(path, compile=False, safe_mode=True)
    except (ValueError, TypeError, KeyError, OSError, zipfile.BadZipFile) as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"cannot be loaded ({reason})") from error


def save_keras(model, path):
    """Writes the .keras file of a model whole or not at all.

    Args:
        model: A `keras.Model`.
        path: A `Path` that ends in .keras.
    """
    temporary = path.with_suffix(".tmp.keras")
    model.save(temporary)
    temporary.replace(path)


def load_encoder(path):
    """`load_keras` for the --encoder of a command: its errors name that option.

    Args:
        path: The file.

    Returns:
        A `keras.Model`.

    Raises:
        ValueError: If there is no such file, or it holds no model, or code.
    """
    expected = "`encoder` must be a .keras file, such as the encoder.keras of a run directory"
    if not Path(path).is_file():
        raise ValueError(f"{expected}. Received: encoder={path}, which is no file")
    try:
        return load_keras(path)
    except ValueError as error:
        raise ValueError(f"{expected}. Received: encoder={path}, which {error}") from error
