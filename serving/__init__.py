"""Serves pushed models. Shares only the folder of pushed versions with pipeline/; never imports tfx."""


def main() -> None:
    """The script mnist-serving."""
    from components.common import commands

    commands.begin("serving")

    from components.common import command_line
    from serving.__main__ import app

    command_line.run(app)
