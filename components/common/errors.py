"""Errors that a user can act on: what is wrong, where, and what to do."""

from __future__ import annotations


class UserError(Exception):
    """Base of the errors that are shown as one clear message instead of a traceback.

    Args:
        problem: what is wrong and where, naming the file, key or value.
        remedy: what to do about it; empty when the problem says it all.
    """

    exit_code = 1

    def __init__(self, problem: str, remedy: str = "") -> None:
        super().__init__(problem, remedy)
        self.problem = problem
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.problem}\n{self.remedy}" if self.remedy else self.problem


class UsageError(UserError):
    """A setting, option or argument that cannot be right."""

    exit_code = 2


class DataAnomaliesError(UserError):
    """The examples violate the schema; nothing was trained."""

    exit_code = 4


class InputError(UserError):
    """A file is missing, corrupt or contradictory, or the environment lacks something."""

    exit_code = 5
