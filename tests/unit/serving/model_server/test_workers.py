"""Worker threads: one for short calls, more beside a slow call."""

from __future__ import annotations

import asyncio
import threading
import weakref
from functools import partial

import pytest

from serving.model_server import workers as workers_module
from serving.model_server.workers import Workers


def test_results_and_errors_reach_their_callers() -> None:
    def fail() -> None:
        raise KeyError("gone")

    async def both() -> None:
        workers = Workers(limit=2)
        squares = await asyncio.gather(*(workers.run(lambda n=n: n * n) for n in range(200)))
        assert squares == [n * n for n in range(200)]
        with pytest.raises(KeyError, match="gone"):
            await workers.run(fail)

    asyncio.run(both())


def test_a_slow_call_delays_no_other() -> None:
    release = threading.Event()

    async def all_but_the_slow() -> None:
        workers = Workers(limit=3)
        before = [asyncio.create_task(workers.run(lambda: "before")) for _ in range(5)]
        slow = [asyncio.create_task(workers.run(release.wait)) for _ in range(2)]
        after = [asyncio.create_task(workers.run(lambda: "after")) for _ in range(50)]
        assert await asyncio.wait_for(asyncio.gather(*before, *after), 5) == ["before"] * 5 + ["after"] * 50
        assert not any(task.done() for task in slow)
        release.set()
        assert await asyncio.wait_for(asyncio.gather(*slow), 5) == [True, True]

    asyncio.run(all_but_the_slow())


def test_a_cancelled_call_is_never_made() -> None:
    started, release, made = threading.Event(), threading.Event(), []

    def hold() -> None:
        started.set()
        release.wait(5)

    async def cancel_one() -> None:
        workers = Workers(limit=1)
        first = asyncio.create_task(workers.run(hold))
        await asyncio.to_thread(started.wait, 5)
        second = asyncio.create_task(workers.run(lambda: made.append(2)))
        third = asyncio.create_task(workers.run(lambda: made.append(3)))
        await asyncio.sleep(0)  # both are pending
        second.cancel()
        release.set()
        await asyncio.gather(first, third)

    asyncio.run(cancel_one())
    assert made == [3]


def test_a_call_whose_caller_has_gone_is_not_kept() -> None:
    class Request:
        pass

    async def leave() -> None:
        workers, release = Workers(limit=1), threading.Event()
        running = asyncio.create_task(workers.run(release.wait))
        request = Request()
        held = weakref.ref(request)
        waiting = asyncio.create_task(workers.run(partial(id, request)))
        del request
        await asyncio.sleep(0.05)
        assert held() is not None
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        assert held() is None, "its request is in memory until a worker is free"
        release.set()
        assert await running

    asyncio.run(leave())


def test_short_calls_share_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """STALL_S is so long that no call counts as stalled, even on a slow machine."""
    monkeypatch.setattr(workers_module, "STALL_S", 1e6)
    release = threading.Event()

    async def used() -> set[int]:
        workers = Workers(limit=8)
        first = asyncio.create_task(workers.run(lambda: (release.wait(5), threading.get_ident())[1]))
        others = [asyncio.create_task(workers.run(threading.get_ident)) for _ in range(50)]
        await asyncio.sleep(0)  # all are pending, or running
        release.set()
        return set(await asyncio.gather(first, *others))

    assert len(asyncio.run(used())) == 1
