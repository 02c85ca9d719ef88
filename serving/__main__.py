"""The command line: `python -m serving --help`. Imports nothing heavy until a command needs it."""

from __future__ import annotations

from components.common import command_line
from serving.commands import query, release, replay, server

app = command_line.application(
    "Serve the pushed model and send it requests.\n\n"
    "Exit codes: 0 success, 1 unexpected failure, 2 usage error, 3 the canary should be rolled back (canary --shadow), "
    "5 nothing pushed, a version that fails verification or does not load, no server, or a port in use, "
    "6 gRPC and REST disagree (query)."
)

for commands in (server, query, replay, release):
    commands.add_to(app)

if __name__ == "__main__":
    command_line.run(app)
