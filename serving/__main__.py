"""The command line: `python -m serving --help`. Imports nothing heavy until a command needs it."""

from __future__ import annotations

from components.common import commands

if __name__ == "__main__":
    commands.begin("serving")

from components.common import command_line
from serving.commands import query, release, replay, server

app = command_line.application(
    "serving",
    "Serve the pushed model and send it requests.\n\n"
    "Exit codes: 0 success, 1 unexpected failure, 2 usage error, 3 the canary should be withdrawn (canary --shadow), "
    "5 nothing pushed, a version that fails verification or does not load, no server, or a port in use, "
    "6 gRPC and REST disagree (query), 130 Ctrl-C, 143 SIGTERM.",
)

for module in (server, query, replay, release):
    module.add_to(app)

if __name__ == "__main__":
    command_line.run(app)
