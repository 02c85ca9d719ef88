"""Read a home's ML Metadata with SQLite alone: what ran, from what, with which properties. Never writes.

Importing ML Metadata and opening its store takes longer than most questions about a home may take.
"""

from __future__ import annotations

import json
import sqlite3
from collections import defaultdict
from collections.abc import Collection, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from components.common.errors import CHANGE_PERMISSIONS, InputError
from components.common.home import Home
from pipeline.failure import DATABASE_LOCKED

LOCK_TIMEOUT_S: Final = 1.0
COMPLETE, CACHED, LIVE = 3, 5, 2  # ML Metadata's numbers of states
_INPUT, _OUTPUTS = 3, (1, 4, 6)  # and of kinds of events

_EXECUTIONS: Final = """
    SELECT e.id, e.last_known_state, e.create_time_since_epoch, run.name, coalesce(node.name, kind.name)
    FROM Execution e
    JOIN Type kind ON kind.id = e.type_id
    JOIN Association a ON a.execution_id = e.id
    JOIN Context run ON run.id = a.context_id
    JOIN Type run_kind ON run_kind.id = run.type_id AND run_kind.name = 'pipeline_run'
    LEFT JOIN (Association b JOIN Context node ON node.id = b.context_id
               JOIN Type node_kind ON node_kind.id = node.type_id AND node_kind.name = 'node')
        ON b.execution_id = e.id
    ORDER BY e.id"""
_EVENTS: Final = """
    SELECT ev.execution_id, ev.type, ev.artifact_id, p.step_key
    FROM Event ev JOIN EventPath p ON p.event_id = ev.id AND NOT p.is_index_step ORDER BY ev.id"""


@dataclass(frozen=True)
class Artifact:
    """An artifact; `folder` is where it is now, even if the home was moved."""

    id: int
    type: str
    folder: Path
    live: bool


@dataclass(frozen=True)
class Execution:
    """One execution of a node.

    Attributes:
        ran: False if its outputs came from the cache. Failed and interrupted executions are neither ran nor usable.
        inputs, outputs: by key of the node.
    """

    id: int
    node: str
    run_id: str
    state: int
    created_ms: int
    inputs: dict[str, list[Artifact]] = field(default_factory=dict)
    outputs: dict[str, list[Artifact]] = field(default_factory=dict)

    @property
    def ran(self) -> bool:
        return self.state == COMPLETE

    @property
    def succeeded(self) -> bool:
        return self.state in (COMPLETE, CACHED)


class History:
    """The executions of a home, oldest first."""

    def __init__(self, connection: sqlite3.Connection, home: Home) -> None:
        self._connection = connection
        types = dict(connection.execute("SELECT id, name FROM Type"))
        self.artifacts = {
            number: Artifact(number, types[kind], home.artifacts.joinpath(*Path(uri or "").parts[-3:]), state == LIVE)
            for number, kind, uri, state in connection.execute("SELECT id, type_id, uri, state FROM Artifact")
        }
        self.executions = [
            Execution(number, name.rpartition(".")[2], run_id, state, created)
            for number, state, created, run_id, name in connection.execute(_EXECUTIONS)
        ]
        by_id = {execution.id: execution for execution in self.executions}
        for number, kind, artifact, key in connection.execute(_EVENTS):
            if number in by_id and (kind == _INPUT or kind in _OUTPUTS):
                found = by_id[number].inputs if kind == _INPUT else by_id[number].outputs
                found.setdefault(key, []).append(self.artifacts[artifact])

    def run(self, run_id: str) -> list[Execution]:
        return [execution for execution in self.executions if execution.run_id == run_id]

    def properties(self, names: Collection[str]) -> dict[int, dict[str, Any]]:
        """Text properties with these names, of every execution that has some: {execution id: {name: text}}."""
        return self._properties("Execution", names)

    def artifact_properties(self, names: Collection[str]) -> dict[int, dict[str, Any]]:
        """The same of artifacts."""
        return self._properties("Artifact", names)

    def _properties(self, kind: str, names: Collection[str]) -> dict[int, dict[str, Any]]:
        marks = ", ".join("?" * len(names))
        rows = self._connection.execute(
            f"SELECT {kind}_id, name, string_value FROM {kind}Property WHERE name IN ({marks})", list(names)
        )
        found: dict[int, dict[str, Any]] = defaultdict(dict)
        for number, name, text in rows:
            found[number][name] = text
        return found


@contextmanager
def opened(home: Home) -> Iterator[History | None]:
    """The history of a home; None if it has no database. Raises InputError if SQLite cannot read it."""
    check_metadata(home.metadata)
    if not home.metadata.is_file() or not home.metadata.stat().st_size:
        yield None
        return
    with closing(_connection(home.metadata)) as connection:
        try:
            history = History(connection, home)
        except sqlite3.DatabaseError as e:
            raise InputError(f"{home.metadata}: cannot be read as ML Metadata ({e})", _SET_ASIDE) from e
        yield history


_SET_ASIDE: Final = "Restore it, or move it away: the next run starts with an empty one; pushed versions stay."


def _connection(database: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{database.resolve().as_uri()}?mode=ro", uri=True, timeout=LOCK_TIMEOUT_S)


def check_metadata(database: Path) -> None:
    """Refuse a database that SQLite cannot read, with a clearer message than ML Metadata's. Raises InputError."""
    if not database.exists():
        return
    try:
        with closing(_connection(database)) as connection:
            connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except sqlite3.DatabaseError as e:
        code = getattr(e, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF  # without the extension
        if code == sqlite3.SQLITE_BUSY:
            raise InputError(*DATABASE_LOCKED) from e
        if code not in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
            raise InputError(f"{database}: cannot be read ({e})", CHANGE_PERMISSIONS) from e
        raise InputError(f"{database}: not a usable SQLite database ({e})", _SET_ASIDE) from e


def settings_in(text: str | None) -> dict[str, Any]:
    """The JSON object in a text property; {} if it has none."""
    try:
        found = json.loads(text or "")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
