from __future__ import annotations

import signal
import subprocess
import sys
import time

import pytest

from components.common.signals import SIGNALS, Stop, postponed
from tests.conftest import ROOT


def test_a_signal_is_delayed_until_the_end_of_the_block() -> None:
    done = []

    def work() -> None:
        with postponed() as received:
            signal.raise_signal(signal.SIGINT)
            done.append(list(received))

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # the caller may ignore SIGINT
    try:
        with pytest.raises(KeyboardInterrupt):
            work()
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
    assert done == [[signal.SIGINT]]


def test_without_a_signal_nothing_happens() -> None:
    with postponed() as received:
        pass
    assert received == []


def test_the_process_exits_even_if_the_handler_returns() -> None:
    before = signal.signal(signal.SIGTERM, lambda *_: None)
    try:
        with pytest.raises(SystemExit) as caught, postponed():
            signal.raise_signal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert caught.value.code == 143


def test_an_ignored_signal_stays_ignored() -> None:
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        with postponed() as received:
            signal.raise_signal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert received == []


def test_without_a_handler_the_signal_ends_the_process_after_the_block() -> None:
    code = """
import signal
from components.common.signals import SIGNALS, Stop, postponed
with postponed():
    signal.raise_signal(signal.SIGTERM)
    print("saved", flush=True)
print("never")
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (-signal.SIGTERM, "saved\n")


STOP = """
import hashlib, time
from components.common import signals
signals.GRACE_S = {grace_s}
stop = signals.Stop()
with stop.installed(lambda: (time.sleep(0.1), print("stopping...", flush=True))):  # a slow terminal
    print("ready", flush=True)
    {body}
print("left", flush=True)
"""
SLEEP = "time.sleep(30)"
CAUGHT = "try: time.sleep(30)\n    except BaseException: stop.check()"
CAUGHT_FOR_EVER = "while True:\n        try: time.sleep(30)\n        except BaseException: pass"
EXIT = "try: time.sleep(30)\n    except BaseException: stop.exit('over')"
IN_C = "hashlib.pbkdf2_hmac('sha256', b'', b'', 10**9)"


def start(body: str, grace_s: float, stderr: int = subprocess.DEVNULL) -> subprocess.Popen[str]:
    code = STOP.format(body=body, grace_s=grace_s)
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=stderr)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    time.sleep(0.5)  # it has to reach its sleep
    return process


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(
    "body", [SLEEP, CAUGHT, CAUGHT_FOR_EVER, EXIT, IN_C], ids=["sleep", "caught", "ever", "exit", "C"]
)
def test_a_signal_is_announced_and_ends_the_process(number: signal.Signals, body: str) -> None:
    with start(body, grace_s=0.5) as process:
        assert process.stdout is not None
        process.send_signal(number)
        sent = time.monotonic()
        assert process.stdout.readline() == "stopping...\n"
        assert time.monotonic() - sent < 2  # the drill measures it
        assert process.stdout.read() == ""
        process.wait(timeout=30)
    assert process.returncode in (128 + number, -signal.SIGINT, 1)  # the last two: an exception that nobody caught


def test_a_second_signal_ends_the_process_at_once() -> None:
    with start(CAUGHT_FOR_EVER, grace_s=60) as process:
        assert process.stdout is not None
        process.send_signal(signal.SIGTERM)
        assert process.stdout.readline() == "stopping...\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == 143


def test_a_block_that_ends_after_a_signal_is_not_cut_off() -> None:
    with start("try: time.sleep(30)\n    except BaseException: pass", grace_s=0.2) as process:
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=30)
        assert output == "stopping...\nleft\n"
    assert process.returncode == 0


def test_the_last_line_of_an_interrupted_command_follows_the_announcement() -> None:
    with start(EXIT, grace_s=60, stderr=subprocess.STDOUT) as process:
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=30)
    assert (process.returncode, output) == (130, "stopping...\nover\n")


def test_the_handlers_before_are_restored() -> None:
    before = [signal.getsignal(number) for number in SIGNALS]
    stop = Stop()
    with stop.installed(lambda: None):
        pass
    assert [signal.getsignal(number) for number in SIGNALS] == before
    stop.check()
