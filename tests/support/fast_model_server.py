"""The embedded server with short intervals: `python -m tests.support.fast_model_server FLAGS`.

It polls ten times as often as its flags specify, and drains for a second or two instead of up to nine.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace

from serving.model_server import __main__, flags, manager, server
from serving.model_server.flags import Flags

parse = flags.parse


def parse_with_short_intervals(arguments: Sequence[str]) -> tuple[Flags, list[str]]:
    parsed, notes = parse(arguments)
    intervals = {
        name: getattr(parsed, name) / 10
        for name in ("file_system_poll_wait_seconds", "model_config_file_poll_wait_seconds")
    }
    return replace(parsed, **intervals), notes


if __name__ == "__main__":
    flags.parse = parse_with_short_intervals
    manager.MANAGE_INTERVAL_S = 0.02
    server.LAME_DUCK_S, server.QUIET_S, server.DRAIN_S = 0.5, 0.02, 1.0
    sys.exit(__main__.main(sys.argv[1:]))
