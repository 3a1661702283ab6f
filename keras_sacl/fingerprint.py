"""Whether two networks hold the same weights."""

import hashlib

import numpy as np


def fingerprint(model):
    """SHA-256 over all weights and moving statistics of a model, as a hexadecimal string."""
    digest = hashlib.sha256()
    for variable in model.variables:
        digest.update(str((variable.name, variable.shape, variable.dtype)).encode())
        digest.update(np.ascontiguousarray(variable).tobytes())
    return digest.hexdigest()
