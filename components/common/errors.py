"""Errors that a user can act on. A command prints the problem and the remedy, and exits with the code shown here.

UserError                       1
    UsageError                  2
    DataAnomaliesError          4
    InputError                  5
        ServerError             5   components/validation/trial_server.py
        LabelMovedError         5   serving/release/shadow.py
    NotPushedError              3   pipeline/kubeflow/entrypoint.py
    NotFinishedError            1   pipeline/kubeflow/watch.py
    ServingClientError          1   serving/client/errors.py, like those below
        InvalidArgument         2
        FailedPrecondition      5
        NotFound                5
        Unavailable             5
            Overloaded          5
        Cancelled               1
        DeadlineExceeded        1
        ResourceExhausted       1
        Unimplemented           1
        Internal                1
"""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Final

DISK_FULL: Final = ("the disk is full", "Make room, or name another home: --home DIR")
CHANGE_PERMISSIONS: Final = "Change its permissions, or name another home: --home DIR"
_NOT_ACCESSIBLE: Final = (errno.EACCES, errno.EPERM, errno.EROFS, errno.EIO, errno.ELOOP, errno.ENAMETOOLONG)


class UserError(Exception):
    """Base of the errors that are shown as a message instead of a traceback.

    Args:
        problem: what is wrong and where, with the file, key or value.
        remedy: what to do about it; empty if the problem is enough.
    """

    exit_code = 1

    def __init__(self, problem: str, remedy: str = "") -> None:
        super().__init__(problem, remedy)
        self.problem = problem
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.problem}\n{self.remedy}" if self.remedy else self.problem


class UsageError(UserError):
    """A setting, option or argument is invalid."""

    exit_code = 2


class DataAnomaliesError(UserError):
    """The examples violate the schema; nothing was trained."""

    exit_code = 4


class InputError(UserError):
    """A file is missing, corrupt or inconsistent, or the environment lacks something."""

    exit_code = 5


def cannot_write(path: Path, error: OSError) -> InputError:
    """The message about a file or folder that could not be written."""
    no_access = error.errno in _NOT_ACCESSIBLE
    remedy = CHANGE_PERMISSIONS if no_access else "Make room, then run the command again."
    return InputError(f"{path}: cannot be written ({error.strerror or error})", remedy)


def from_os_error(error: BaseException) -> InputError | None:
    """The message about files that this user cannot read or write, or a full disk; None for any other error."""
    if not isinstance(error, OSError):
        return None
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return InputError(*DISK_FULL)
    if "No usable temporary directory" in str(error):  # of tempfile
        return InputError(str(error.strerror), "Name a writable folder: TMPDIR=DIR in the environment")
    if error.errno in _NOT_ACCESSIBLE and error.filename is not None:
        return InputError(f"{error.filename}: cannot be accessed ({error.strerror})", CHANGE_PERMISSIONS)
    return None
