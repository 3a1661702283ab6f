"""What went wrong outside of the program, in one line."""

import re

import tensorflow as tf

_NOISE = re.compile(r"\[\[.*?\]\]|\[Op:.*?\]|\{\{.*?\}\}|<stack traces[^>]*>")
_HEADINGS = ("Graph execution error", "Detected at node", "File ", "Original stack", "errors found")
_OUTSIDE = (
    tf.errors.NotFoundError,
    tf.errors.PermissionDeniedError,
    tf.errors.DataLossError,
    tf.errors.UnavailableError,
    tf.errors.FailedPreconditionError,
)


def fault_line(error):
    """One line about an error of the file system, the memory, the network or another worker.

    Args:
        error: An exception.

    Returns:
        A str; None for an error of the program itself.
    """
    if isinstance(error, MemoryError | tf.errors.ResourceExhaustedError):
        text = _first_line(getattr(error, "message", "") or str(error) or "allocation failed")
        if "No space left" in text or "quota" in text:  # TensorFlow calls disks a resource too
            return text
        return f"out of memory ({text}); a smaller --batch_size, --image_size or --projector helps"
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror or error}"
    if isinstance(error, tf.errors.OpError):
        unreadable = "DecodeImage" in error.message or "ReadFile" in error.message
        if isinstance(error, _OUTSIDE) or unreadable:
            return _first_line(error.message)
    return None


def _first_line(message):
    lines = (" ".join(_NOISE.sub("", line).split()) for line in message.splitlines())
    useful = [line for line in lines if line and not line.startswith(_HEADINGS)]
    return useful[0] if useful else " ".join(message.split())[:200]
