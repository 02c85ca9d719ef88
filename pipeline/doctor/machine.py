"""Checks of the machine: interpreter, C library, cores, memory, ports, container engine, proxies."""

from __future__ import annotations

import json
import os
import platform
import socket
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import psutil
from packaging.specifiers import SpecifierSet

from components.common import container_engine, resources
from components.common.commands import command
from components.common.ports import GRPC_PORT, REST_PORT, free_port, version_states
from pipeline.doctor.finding import Finding

GB: Final = 1024**3
LEAST_MEMORY_GB: Final = 2.0  # the default run needs about this much
GOOD_MEMORY_GB: Final = 4.0
GLIBC_OF_WHEELS: Final = {"3.11": (2, 28)}  # of the packages in the lock; compat/README.md says why 3.11 differs
GLIBC_OF_OTHERS: Final = (2, 39)
ENGINE_TIMEOUT_S: Final = 3.0
PROXY_TIMEOUT_S: Final = 1.0
PROXIES: Final = ("http_proxy", "https_proxy", "all_proxy")
DISTRIBUTION: Final = "mnist-tfx"


def python() -> Iterator[Finding]:
    here = f"{platform.python_version()} in {sys.prefix}"
    try:
        supported = metadata(DISTRIBUTION)["Requires-Python"]
    except PackageNotFoundError:
        yield Finding("Python", "error", f"{here}, where {DISTRIBUTION} is not installed", "make setup")
        return
    if SpecifierSet(supported).contains(platform.python_version(), prereleases=True):
        yield Finding("Python", "ok", here)
    else:
        fix = "make clean, then make setup PYTHON=python3.11"
        yield Finding("Python", "error", f"{here}; supported is {supported}", fix)


def c_library() -> Iterator[Finding]:
    name, version = platform.libc_ver()
    if name != "glibc":
        return  # macOS
    needed = GLIBC_OF_WHEELS.get("{}.{}".format(*sys.version_info), GLIBC_OF_OTHERS)
    if tuple(map(int, version.split(".")[:2])) >= needed:
        yield Finding("glibc", "ok", version)
    else:
        found = "{}; the packages for Python {}.{} need {}.{}".format(version, *sys.version_info[:2], *needed)
        yield Finding("glibc", "error", found, "make clean, then make setup PYTHON=python3.11; or a newer system")


def cores() -> Iterator[Finding]:
    usable, there = resources.cores(), os.cpu_count() or 1
    limited = f" of {there} (limited by the affinity or the container)" if usable < there else ""
    slow = "give the container more than one CPU: training takes longer on one"
    yield Finding("cores", "warning" if usable == 1 else "ok", f"{usable}{limited}", slow if usable == 1 else "")


def memory() -> Iterator[Finding]:
    machine, limit = psutil.virtual_memory(), resources.memory_bytes()
    free_gb, limit_gb = min(machine.available, limit) / GB, limit / GB
    limited = " (the container's limit)" if limit < machine.total else ""
    found = f"{limit_gb:.1f} GB{limited}, {free_gb:.1f} GB of the machine's are free"
    if free_gb >= GOOD_MEMORY_GB:
        yield Finding("memory", "ok", found)
        return
    short = limit_gb < LEAST_MEMORY_GB
    fix = f"{'give the container more' if limited else 'end other programs'}: a run needs {LEAST_MEMORY_GB:.0f} to "
    yield Finding("memory", "error" if short else "warning", found, f"{fix}{GOOD_MEMORY_GB:.0f} GB")


def ports(home: Path) -> Iterator[Finding]:
    """The default ports of a server; taken by this home's own server is fine."""
    taken = [port for port in (GRPC_PORT, REST_PORT) if not _is_free(port)]
    if not taken:
        yield Finding("ports", "ok", f"{GRPC_PORT} and {REST_PORT} are free")
        return
    shown = " and ".join(map(str, taken))
    try:
        server = json.loads((home / "serving" / "server.json").read_text())
        ours = {server["grpc_port"], server["rest_port"]} >= {*taken} and bool(version_states(server["rest_port"], 0.5))
    except (OSError, ValueError, KeyError, TypeError):
        ours = False
    if ours:
        yield Finding("ports", "ok", f"{shown} used by this home's server")
        return
    other = command("serving", "up", "--grpc-port", free_port(), "--rest-port", free_port())
    yield Finding("ports", "warning", f"{shown} taken{_holders(taken)}", f"use others: {other}")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections that were closed do not count
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def _holders(ports: list[int]) -> str:
    """ " by process 12 (python)", as far as this user may see it."""
    found = set()
    for connection in psutil.net_connections("tcp"):
        if connection.status == psutil.CONN_LISTEN and connection.laddr.port in ports and connection.pid:
            try:
                found.add(f"process {connection.pid} ({psutil.Process(connection.pid).name()})")
            except psutil.Error:
                continue
    return f" by {' and '.join(sorted(found))}" if found else ""


def engine() -> Iterator[Finding]:
    """docker or podman is optional: without one the embedded server is used."""
    problems = {name: container_engine.engine_problem(name, ENGINE_TIMEOUT_S) for name in container_engine.ENGINES}
    running = [name for name, problem in problems.items() if problem is None]
    if not running:
        broken = [str(problem) for name, problem in problems.items() if problem != f"no {name}"]
        found = "; ".join(broken or [f"no {' or '.join(container_engine.ENGINES)}"])
        fix = "start it, for TensorFlow Serving's own server" if broken else ""
        yield Finding("container", "warning" if broken else "ok", f"{found}: the embedded server is used", fix)
        return
    for name in running:
        if container_engine.image_id(name, ENGINE_TIMEOUT_S):
            yield Finding("container", "ok", f"{name} has {container_engine.IMAGE}")
            return
    found = f"{running[0]} is running, without {container_engine.IMAGE}: the embedded server is used"
    yield Finding("container", "warning", found, container_engine.pull_command(running[0]))


def proxies() -> Iterator[Finding]:
    """Those of the environment, without their passwords; each must accept a connection."""
    given = {name: os.environ.get(name) or os.environ.get(name.upper()) for name in PROXIES}
    addresses = {urlsplit(value if "://" in value else f"http://{value}") for value in given.values() if value}
    if not addresses:
        yield Finding("proxies", "ok", "none")
    for address in sorted(addresses):
        try:
            shown = f"{address.hostname}:{address.port or 80}"
            with socket.create_connection((str(address.hostname), address.port or 80), PROXY_TIMEOUT_S):
                yield Finding("proxies", "ok", shown)
        except (OSError, ValueError) as e:
            fix = f"correct or unset {', '.join(name for name, value in given.items() if value)}"
            yield Finding("proxies", "warning", f"{address.hostname}: no connection ({e})", fix)
