"""Retries and deadlines with a fake server and clock; invalid arguments."""

from __future__ import annotations

import pytest

from components.common.errors import UsageError
from serving.client import base, connect, errors
from serving.client.base import VersionStatus
from serving.protocol import serving_pb2 as pb
from tests.support.fake_client import FakeClient

UP = [VersionStatus(3, "AVAILABLE", "OK", "")]


class Clock:
    """Replaces `time`; the pauses between attempts are in `pauses`."""

    def __init__(self) -> None:
        self.now, self.pauses = 100.0, list[float]()

    def monotonic(self) -> float:
        return self.now

    def sleep(self, pause_s: float) -> None:
        self.pauses.append(pause_s)
        self.now += pause_s


class Failing(FakeClient):
    """Fails its first requests with the given codes."""

    def __init__(self, *codes: str) -> None:
        super().__init__()
        self.codes, self.left_s = list(codes), list[float]()

    def _status(self, spec: pb.ModelSpec, timeout_s: float) -> list[VersionStatus]:
        self.left_s.append(timeout_s)
        if self.codes:
            raise errors.from_code(self.address, self.codes.pop(0), "failed")
        return UP


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(base, "time", clock)
    return clock


def test_unavailable_is_retried_with_growing_pauses_within_the_deadline(clock: Clock) -> None:
    client = Failing("UNAVAILABLE", "UNAVAILABLE", "UNAVAILABLE")
    assert client.status("mnist", timeout_s=5) == UP
    assert len(clock.pauses) == 3
    for pause_s, longest_s in zip(clock.pauses, (0.1, 0.2, 0.4), strict=True):
        assert longest_s / 2 <= pause_s <= longest_s
    assert client.left_s[0] == 5
    assert client.left_s[3] == pytest.approx(5 - sum(clock.pauses))


def test_retries_end_with_the_attempts_and_the_deadline(clock: Clock) -> None:
    client = Failing(*["UNAVAILABLE"] * 100)
    with pytest.raises(errors.Unavailable):
        client.status("mnist")
    assert len(client.left_s) == base.ATTEMPTS
    client._attempts = 100
    with pytest.raises(errors.Unavailable):
        client.status("mnist", timeout_s=0.6)
    assert min(client.left_s) > 0


def test_a_call_that_the_server_cancelled_is_retried(clock: Clock) -> None:
    client = Failing("CANCELLED", "UNAVAILABLE", "CANCELLED")
    assert client.status("mnist") == UP and len(clock.pauses) == 3


def test_the_retry_budget_bounds_the_load_of_a_failing_server(clock: Clock) -> None:
    client = Failing(*["UNAVAILABLE"] * 1000)
    for _ in range(100):
        with pytest.raises(errors.Unavailable):
            client.status("mnist")
    assert len(client.left_s) == 100 + base.RETRY_BUDGET  # not 100 * ATTEMPTS
    client.codes.clear()
    for _ in range(20):
        client.status("mnist")
    client.codes, client.left_s = ["UNAVAILABLE"] * 3, []
    with pytest.raises(errors.Unavailable):  # 20 successful calls have earned two retries
        client.status("mnist")
    assert len(client.left_s) == 3


@pytest.mark.parametrize("code", ["INTERNAL", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED", "ABORTED"])
def test_other_codes_are_not_retried(clock: Clock, code: str) -> None:
    client = Failing(code)
    with pytest.raises(errors.ServingClientError):
        client.status("mnist")
    assert len(client.left_s) == 1 and not clock.pauses


def test_version_and_label_are_mutually_exclusive() -> None:
    with pytest.raises(UsageError, match="both version 1 and label 'a'"):
        FakeClient().predict({}, model="mnist", version=1, label="a")


@pytest.mark.parametrize("address", ["http://", "http://h:x", "http://h:1/path"])
def test_invalid_rest_addresses_are_refused(address: str) -> None:
    with pytest.raises(UsageError, match="Expected http://host:port"):
        connect(address)
