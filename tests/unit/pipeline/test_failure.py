from __future__ import annotations

import errno
from pathlib import Path

import pytest

from components.common.errors import DataAnomaliesError
from components.data.idx import read_labels
from pipeline.failure import explain, our_line, root_cause

LOG = Path("logs/Trainer.log")


def raised(function: object, *arguments: object) -> BaseException:
    try:
        function(*arguments)  # type: ignore[operator]
    except BaseException as e:
        return e
    raise AssertionError("did not raise")


def wrapped(inner: BaseException) -> BaseException:
    def raise_wrapped() -> None:
        raise RuntimeError("Execution 7 failed") from inner

    return raised(raise_wrapped)


def test_a_wrapped_user_error_keeps_its_message_and_exit_code() -> None:
    message, code = explain("ExampleValidator", wrapped(DataAnomaliesError("odd", "mend it")), LOG)
    assert (message, code) == (f"ExampleValidator: odd\nmend it\nLog: {LOG}", 4)


def test_an_unexpected_error_names_node_cause_line_and_log() -> None:
    error = wrapped(raised(read_labels, None))  # no path: fails inside components/data/idx.py
    message, code = explain("Trainer", error, LOG)
    assert code == 1
    assert message.startswith("Trainer failed: TypeError:")
    assert "At: components/data/idx.py:" in message
    assert message.endswith(f"Log: {LOG}")


def test_a_full_disk_is_reported_whatever_raised_the_error() -> None:
    for error in (
        OSError(errno.ENOSPC, "No space left on device"),
        RuntimeError("x.gz; No space left on device [op]"),
        OSError("9 requested and 5 written"),
    ):
        message, code = explain("ExampleGen", wrapped(error), LOG)
        assert code == 5
        assert "the disk is full" in message


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (PermissionError(errno.EACCES, "Permission denied", "/home/model"), "/home/model: cannot be accessed"),
        (RuntimeError("mlmd: database is locked [op]"), "another process has locked metadata.sqlite"),
        (RuntimeError("Concurrent writes aborted after max number of retries."), "another process has locked metadata"),
        (RuntimeError("mlmd: attempt to write a readonly database"), "metadata.sqlite cannot be written"),
    ],
)
def test_a_home_that_cannot_be_used_is_not_an_unexpected_failure(error: BaseException, says: str) -> None:
    message, code = explain("ExampleGen", wrapped(error), LOG)
    assert code == 5
    assert says in message
    assert "move" not in message.lower()


def test_the_source_line_is_found_in_beams_textual_traceback() -> None:
    file = Path(__file__).resolve().parents[3] / "components" / "example_gen.py"
    error = RuntimeError(
        f'Traceback:\n  File "/x/beam.py", line 1\n  File "{file}", line 42, in process\nValueError: no'
    )
    assert our_line(error) == "components/example_gen.py:42"
    assert root_cause(error) is error


def test_a_cycle_of_causes_ends() -> None:
    a, b = ValueError("a"), ValueError("b")
    a.__cause__, b.__cause__ = b, a
    assert root_cause(a) is b
