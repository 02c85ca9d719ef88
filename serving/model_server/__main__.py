"""A stand-in for tensorflow_model_server: `python -m serving.model_server --model_base_path=/models/mnist ...`.

For development, CI and machines without a container engine. In production use TensorFlow Serving's container.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import uvloop

from serving.model_server import flags as flags_module
from serving.model_server import log_file
from serving.model_server.capi import library
from serving.model_server.errors import ServingError
from serving.model_server.flags import FlagError
from serving.model_server.server import Server

EXIT_FAILED: Final = 255  # as tensorflow_model_server


def main(arguments: Sequence[str]) -> int:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        flags, notes = flags_module.parse(arguments)
    except FlagError as e:
        print(f"{e}\n{flags_module.usage()}", file=sys.stderr)
        return EXIT_FAILED
    for note in notes:
        print(note, file=sys.stderr)
    if flags.version:
        print("serving.model_server, a stand-in for TensorFlow ModelServer")
        print(f"TensorFlow Library: {library().TF_Version().decode()}")
        return 0
    try:
        if flags.log_file:
            log_file.keep_small(Path(flags.log_file))
        server = Server(flags)
        uvloop.run(server.run())
    except (ServingError, OSError, FlagError, ImportError) as e:
        code = f"{e.code.name}: " if isinstance(e, ServingError) else ""
        print(f"Failed to start server. Error: {code}{e}", flush=True)
        return EXIT_FAILED
    if server.stuck:
        os._exit(0)  # Python would wait for the thread of the stuck request, which cannot be terminated
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
