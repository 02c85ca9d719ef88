from __future__ import annotations

import signal
import subprocess
import sys

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
