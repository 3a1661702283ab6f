"""One setting: its default, its help, what it may be, and how it is read from text."""

import dataclasses
import difflib
import math
import types
import typing


class ConfigError(ValueError):
    """A setting that cannot work. Its text is one line that names the flag and its value."""

    def __init__(self, flag, value, expected):
        super().__init__(f"--{flag}={value}: {expected}")

    @classmethod
    def from_text(cls, error):
        """The error of a function below, whose text names its arguments, as one of a setting."""
        made = cls.__new__(cls)
        ValueError.__init__(made, str(error))
        return made


def setting(
    default, text, *, choices=None, low=None, high=math.inf, above=None, free=False, of=None
):
    """A field of `RunConfig`.

    Args:
        default: Its default. None stands for one that hangs on other settings.
        text: The flag's help.
        choices: What it may be, or its parts if it is a tuple; or a function that gives them,
            where naming them means importing TensorFlow.
        low, high: Least and largest number.
        above: In place of `low`: what the number must be above.
        free: Whether a run and its resumption may differ in it, since what is learned does not
            hang on it.
        of: The methods that it has an effect on; None for all.
    """
    limits = {"choices": choices, "low": low, "high": high, "above": above}
    return dataclasses.field(
        default=default, metadata={"help": text, "free": free, "of": of, **limits}
    )


def check_setting(field, value):
    """Raises ConfigError if a value is not among a field's choices or within its limits."""
    limits = field.metadata
    if value is None:
        return
    if limits["choices"] is not None:
        choices = limits["choices"]
        choices = tuple(choices() if callable(choices) else choices)
        if isinstance(value, tuple):
            if not value:
                raise ConfigError(field.name, "", f"must name at least one of {_listed(choices)}")
            for part in value:
                check_member(field.name, part, choices)
        else:
            check_member(field.name, value, choices)
    if limits["above"] is not None:
        check_between(field.name, value, limits["above"], limits["high"], open_low=True)
    elif limits["low"] is not None:
        check_between(field.name, value, limits["low"], limits["high"])


def check_member(flag, value, allowed):
    """Raises ConfigError if a value is not one of those allowed."""
    if value not in allowed:
        close = difflib.get_close_matches(str(value), allowed, n=1)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise ConfigError(flag, value, f"must be one of {_listed(allowed)}{hint}")


def check_between(flag, value, low, high, open_low=False, given=""):
    """Raises ConfigError if a number is not from `low` (or above it) to `high`.

    Where other flags make the bounds, `given` names them, with their values.
    """
    # Written so that NaN fails; infinity is no setting either.
    if not (low <= value <= high) or (open_low and value == low) or math.isinf(value):
        bound = f"above {low}" if open_low else f"at least {low}"
        limit = "" if math.isinf(high) else f" and at most {high}"
        because = f" ({given})" if given else ""
        raise ConfigError(flag, value, f"must be {bound}{limit}{because}")


def flag_and_value(line, names):
    """(flag, text of its value) of a line of a flagfile; "--noflag" is ("flag", "false")."""
    name, equals, value = line.strip().removeprefix("--").partition("=")
    if name not in names and not equals and name.removeprefix("no") in names:
        return name.removeprefix("no"), "false"
    return name, value


def kind_of(field):
    """The type of a field's values, None aside: bool, int, float, str or tuple."""
    kind = field.type
    return typing.get_args(kind)[0] if isinstance(kind, types.UnionType) else kind


def parsed(field, text):
    """The value of a setting from its text, as `RunConfig.flag_lines` writes it."""
    kind = kind_of(field)
    if kind is bool:
        return text != "false"
    if kind is tuple:
        return tuple(text.split(","))
    try:
        return kind(text)
    except ValueError as error:
        raise ConfigError(field.name, text, f"is no {kind.__name__}") from error


def numbers(flag, values, example):
    """A tuple of floats from a tuple of texts or numbers.

    Raises:
        ConfigError: If one is no number.
    """
    try:
        return tuple(map(float, values))
    except ValueError as error:
        text = ",".join(map(str, values))
        raise ConfigError(flag, text, f"must be numbers such as {example}") from error


def check_layer_widths(flag, text):
    """Raises ConfigError if a text is not such as 2048-128."""
    from keras_sacl.heads import parse_projector

    try:
        parse_projector(text)
    except ValueError as error:
        raise ConfigError(flag, text, "must be layer widths such as 2048-2048-2048") from error


def _listed(names):
    return ", ".join(names)
