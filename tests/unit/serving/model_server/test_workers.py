"""Worker threads: short calls in turn, a slow call never in the way of others."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from serving.model_server.workers import Workers


def test_answers_and_errors_reach_their_callers() -> None:
    def fail() -> None:
        raise KeyError("gone")

    async def both() -> None:
        workers = Workers(limit=2)
        assert await asyncio.gather(*(workers.run(lambda n=n: n * n) for n in range(200))) == [
            n * n for n in range(200)
        ]
        with pytest.raises(KeyError, match="gone"):
            await workers.run(fail)

    asyncio.run(both())


def test_a_slow_call_holds_up_neither_those_before_nor_those_behind_it() -> None:
    release = threading.Event()

    async def all_but_the_slow() -> None:
        workers = Workers(limit=3)
        before = [asyncio.create_task(workers.run(lambda: "before")) for _ in range(5)]
        slow = [asyncio.create_task(workers.run(release.wait)) for _ in range(2)]
        behind = [asyncio.create_task(workers.run(lambda: "behind")) for _ in range(50)]
        assert await asyncio.wait_for(asyncio.gather(*before, *behind), 5) == ["before"] * 5 + ["behind"] * 50
        assert not any(task.done() for task in slow)
        release.set()
        assert await asyncio.wait_for(asyncio.gather(*slow), 5) == [True, True]

    asyncio.run(all_but_the_slow())


def test_a_cancelled_call_is_never_made() -> None:
    release, made = threading.Event(), []

    async def cancel_one() -> None:
        workers = Workers(limit=1)
        first = asyncio.create_task(workers.run(release.wait))
        second = asyncio.create_task(workers.run(lambda: made.append(2)))
        third = asyncio.create_task(workers.run(lambda: made.append(3)))
        await asyncio.sleep(0.05)
        second.cancel()
        release.set()
        await asyncio.gather(first, third)

    asyncio.run(cancel_one())
    assert made == [3]


def test_short_calls_share_one_thread() -> None:
    async def used() -> set[int]:
        workers = Workers(limit=8)
        found = set()
        for _ in range(20):
            found |= set(await asyncio.gather(*(workers.run(threading.get_ident) for _ in range(10))))
            time.sleep(0.001)
        return found

    assert len(asyncio.run(used())) == 1
