from __future__ import annotations

import pickle

import pytest

from serving.client import errors


def test_an_error_survives_pickling() -> None:
    error = errors.from_code("a:1", "NOT_FOUND", "gone")
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is errors.NotFound
    assert (str(again), again.address, again.code, again.text) == (str(error), "a:1", "NOT_FOUND", "gone")


@pytest.mark.parametrize(
    ("code", "exit_code"),
    [("INVALID_ARGUMENT", 2), ("NOT_FOUND", 5), ("UNAVAILABLE", 5), ("DEADLINE_EXCEEDED", 1), ("DATA_LOSS", 1)],
)
def test_exit_codes(code: str, exit_code: int) -> None:
    assert errors.from_code("", code, "").exit_code == exit_code


@pytest.mark.parametrize(
    "text",
    [
        "The batch scheduling queue to which this task was submitted is full; currently 10 batches enqueued",
        "The server is overloaded: this request would wait 900 ms for its run",
        "The server has 2000 requests waiting",
        "All requests together need more than 536870912 bytes",
    ],
)
def test_an_overloaded_server_is_not_reported_as_down(text: str) -> None:
    for error in (errors.from_code("a:1", "UNAVAILABLE", text), errors.from_http_status("http://a:1", 503, text)):
        assert type(error) is errors.Overloaded and error.exit_code == 5
        assert "overloaded: send fewer requests" in str(error) and "make serve" not in str(error)


def test_http_statuses_map_to_the_classes_of_their_codes() -> None:
    assert type(errors.from_http_status("a", 503, "busy")) is errors.Unavailable
    assert errors.from_http_status("a", 403, "no").code == "PERMISSION_DENIED"
    assert (
        type(errors.from_http_status("a", 500, "x")) is type(errors.from_http_status("a", 418, "x")) is errors.Internal
    )
