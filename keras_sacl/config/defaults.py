"""Defaults that hang on other settings."""

# Tried on the quickstart's recipe; see `flags/quickstart.flags`.
LEARNING_RATES = {"lars": 0.3, "sgd": 2e-3, "adamw": 2e-3, "lamb": 5e-3}
# Of the correlating losses, which sum over dimensions; the others are means of a few nats.
LOSS_SCALES = {"lars": 0.1, "sgd": 0.1, "adamw": 1.0, "lamb": 1.0}
CORRELATING = ("barlow_twins", "xd", "sacl", "sacl_xd")
# What they are as long as host and slim network are one.
WITHOUT_SLIMMING = {"sacl": "barlow_twins", "sacl_xd": "xd"}
# What versions without these settings did.
EARLIER = {"sacl_contrast": "across", "slim_start_epoch": 0, "slim_alone_epochs": 0}
PROJECTORS = {"moco_v2": "2048-128", "swav": "2048-128"}
PROJECTOR = "2048-2048-2048"
TEMPERATURES = {"moco_v2": 0.2, "swav": 0.1}


def listed(values):
    """ "lars 0.3, sgd 0.002, ...", for the help of a flag."""
    return ", ".join(f"{name} {value:g}" for name, value in values.items())
