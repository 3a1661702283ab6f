"""`RunConfig`: every setting of a run, validated in one place before any work."""

from keras_sacl.config.run_config import RunConfig
from keras_sacl.config.settings import ConfigError

__all__ = ["ConfigError", "RunConfig"]
