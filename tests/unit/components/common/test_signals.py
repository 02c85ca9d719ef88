from __future__ import annotations

import signal
import subprocess
import sys
import time

import pytest

from components.common.signals import postponed
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
from components.common.signals import postponed
with postponed():
    signal.raise_signal(signal.SIGTERM)
    print("saved", flush=True)
print("never")
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (-signal.SIGTERM, "saved\n")


STOP = """
import hashlib, os, signal, sys, threading, time
from components.common import signals
signals.GRACE_S = 0.5
stop = signals.Stop()
stop.install(lambda: print("stopping...", flush=True))
print("ready", flush=True)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(
    ("code", "seconds"),
    [
        ("time.sleep(30)", 0.5),
        ("try:\n    time.sleep(30)\nexcept BaseException:\n    stop.check()", 0.5),  # a library catches it
        ("while True:\n    try:\n        time.sleep(30)\n    except BaseException:\n        pass", 5),  # and goes on
        ("hashlib.pbkdf2_hmac('sha256', b'', b'', 10**9)", 5),  # the main thread is in C
    ],
    ids=["python", "caught", "caught for ever", "C"],
)
def test_a_signal_is_announced_and_ends_the_process(number: signal.Signals, code: str, seconds: float) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", STOP + code], cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        time.sleep(0.1)
        process.send_signal(number)
        sent = time.monotonic()
        assert process.stdout.readline() == "stopping...\n"
        assert time.monotonic() - sent < 0.3
        process.wait(timeout=seconds)
    assert process.returncode in (128 + number, -signal.SIGINT)  # Python ends so after an unhandled KeyboardInterrupt


def test_a_second_signal_ends_the_process_at_once() -> None:
    code = (
        STOP.replace("GRACE_S = 0.5", "GRACE_S = 60")
        + "while True:\n    try:\n        time.sleep(30)\n    except BaseException:\n        pass"
    )
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, text=True, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
        assert process.stdout.readline() == "stopping...\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=5) == 130
