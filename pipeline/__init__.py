"""Connects the components into one DAG, runs it and reports the result."""


def main() -> None:
    """The script mnist-pipeline."""
    from components.common import commands

    commands.begin("pipeline")

    from components.common import command_line
    from pipeline.__main__ import app

    command_line.run(app)
