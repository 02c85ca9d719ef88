"""What a start checks, and the config file that it writes."""

from __future__ import annotations

import socket
import sys

from components.common import contract
from components.common.commands import command
from components.common.errors import InputError
from components.common.files import write_durably
from components.versions import manifest
from components.versions.release import pushed_versions, read_release, served_versions, version_folder
from serving.launch import backends, model_config
from serving.launch.backends import Choice, Preferred, Setup
from serving.launch.proof import check_pushed


def prepare(setup: Setup, preferred: Preferred, *, pull: bool = True) -> Choice:
    """Choose the backend, check its requirements, write its config file. Raises InputError.

    Args:
        pull: pull TensorFlow Serving's image if it is needed and missing.
    """
    if not pushed_versions(setup.home):
        base = setup.models / contract.MODEL_NAME
        raise InputError(f"{base}: no version has been pushed", f"Run the pipeline first: {command('pipeline', 'run')}")
    release = read_release(setup.home)
    needed = {*release.labels.values()} or {max(served_versions(setup.home, release))}
    for version in needed:
        check_pushed(setup.home, version)  # a server would wait forever for a missing version
        if not setup.unproven:
            manifest.verify(version_folder(setup.home, version))
    for port in (setup.grpc_port, setup.rest_port):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError as e:
                raise InputError(
                    f"port {port} cannot be used ({e.strerror})",
                    "Stop the process that uses it, or choose other ports: --grpc-port N --rest-port N",
                ) from e
    choice = backends.choose(preferred, pull=pull)
    setup.folder.mkdir(parents=True, exist_ok=True)
    base_path = backends.base_path(choice.name, setup)
    config = model_config.of_release(setup.home, base_path, release, choice.name, unproven=setup.unproven)
    write_durably(setup.config_file, config)
    if not (setup.unproven or release.labels) and (above := model_config.foreign_above(setup.home, max(needed))):
        print(f"pushed by no run, so not served: {', '.join(above)} in {setup.models}", file=sys.stderr)
    return choice
