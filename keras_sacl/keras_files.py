"""Keras' own files, from anywhere."""

import zipfile

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
