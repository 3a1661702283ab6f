"""What the commands beside train.py share."""

import argparse


class OneLineParser(argparse.ArgumentParser):
    """Reads a command's options; what is wrong with them is one line, and exit code 2.

    Args:
        name: The command's, which begins the line.
        text: The module's docstring; its first line describes the command.
    """

    def __init__(self, name, text):
        super().__init__(prog=name, description=text.splitlines()[0], allow_abbrev=False)

    def error(self, message):
        self.exit(2, f"{self.prog}: {message}\n")  # without the usage
