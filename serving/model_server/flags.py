"""tensorflow_model_server's flags: `--flag=value`, or `--flag` for booleans. Unknown flags are printed and ignored."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Final

# Accepted but ignored, for scripts written for the real server.
ONLY_REAL_SERVER: Final = frozenset({
    "ssl_config_file", "use_alts_credentials",
    "enable_per_model_batching_parameters", "enable_profiler", "prefer_tflite_model", "num_load_threads",
    "num_unload_threads", "flush_filesystem_caches", "platform_config_file", "thread_pool_factory_config_file",
    "per_process_gpu_memory_fraction", "xla_cpu_compilation_enabled", "tensorflow_session_config_file",
    "num_request_iterations_for_warmup", "rest_api_num_threads", "grpc_max_threads",
    "enable_signature_method_name_check", "mixed_precision", "num_tflite_pools", "num_tflite_interpreters_per_pool",
    "remove_unused_fields_from_bundle_metagraph", "skip_initialize_tpu", "xla_gpu_compilation_enabled",
})  # fmt: skip


ON_LOOPBACK: Final = "(true if bound to loopback)"


class FlagError(ValueError):
    """A flag with an invalid value."""


@dataclass(frozen=True)
class Flags:
    """Names and defaults are those of tensorflow_model_server, up to `version`; the rest are this server's own."""

    port: int = 8500
    grpc_socket_path: str = ""
    rest_api_port: int = 0
    rest_api_timeout_in_ms: int = 30_000
    rest_api_enable_cors_support: bool = False
    model_name: str = "default"
    model_base_path: str = ""
    model_config_file: str = ""
    model_config_file_poll_wait_seconds: int = 0
    file_system_poll_wait_seconds: int = 1
    allow_version_labels_for_unavailable_models: bool = False
    max_num_load_retries: int = 5
    load_retry_interval_micros: int = 60_000_000
    enable_model_warmup: bool = True
    tensorflow_session_parallelism: int = 0
    tensorflow_intra_op_parallelism: int = 0
    tensorflow_inter_op_parallelism: int = 0
    saved_model_tags: str = "serve"
    monitoring_config_file: str = ""
    grpc_channel_arguments: str = ""
    enable_grpc_healthcheck_service: bool = False
    enable_serialization_as_tensor_content: bool = False
    enable_batching: bool = False
    batching_parameters_file: str = ""
    version: bool = False
    # The real server binds to all interfaces; this stand-in binds to loopback by default.
    bind_address: str = "127.0.0.1"
    # Append stdout and stderr to this file, which is rotated.
    log_file: str = ""
    # Load a version only if it passes verification against its manifest, and only from configured base paths.
    proven_only: bool = False
    # Whether HandleReloadConfigRequest is allowed; by default only if bound to loopback.
    allow_reload: bool | None = None
    reload_timeout_in_ms: int = 120_000
    # Limits of requests and connections; see limits.py and docs/serving.md.
    max_request_bytes: int = 16 * 2**20
    max_tensor_bytes: int = 16 * 2**20
    max_decoder_bytes: int = 2**30
    max_decoder_requests: int = 32
    max_pending_requests: int = 2000
    max_pending_bytes: int = 512 * 2**20
    max_connections: int = 1000
    max_header_bytes: int = 64 * 2**10
    max_headers: int = 100
    receive_timeout_in_ms: int = 30_000


def parse(arguments: Sequence[str]) -> tuple[Flags, list[str]]:
    """Return the flags, and notes about arguments that have no effect.

    Raises:
        FlagError: a value of the wrong type, or mutually exclusive flags.
    """
    types = {field.name: field.type for field in fields(Flags)}
    values: dict[str, Any] = {}
    notes = []
    for argument in arguments:
        name, equals, raw = argument.removeprefix("--").partition("=")
        if not argument.startswith("--") or (name not in types and name not in ONLY_REAL_SERVER):
            notes += [f"unknown argument: {argument}", usage()]
        elif name in ONLY_REAL_SERVER:
            notes.append(f"--{name} has no effect here: only tensorflow_model_server supports it")
        else:
            values[name] = _value(name, str(types[name]), raw if equals else None)
    flags = Flags(**values)
    if flags.batching_parameters_file and not flags.enable_batching:
        raise FlagError(
            "server_options.batching_parameters_file is set without setting server_options.enable_batching to true."
        )
    parallelism = (
        flags.tensorflow_session_parallelism,
        flags.tensorflow_intra_op_parallelism,
        flags.tensorflow_inter_op_parallelism,
    )
    if all(parallelism):
        raise FlagError("--tensorflow_session_parallelism cannot be combined with both the intra-op and inter-op flags")
    return flags, notes


def _value(name: str, kind: str, raw: str | None) -> Any:
    if kind.startswith("bool"):
        if raw is None or raw.lower() in {"true", "1"}:
            return True
        if raw.lower() in {"false", "0"}:
            return False
        raise FlagError(f"--{name}={raw}: expected true or false")
    if raw is None:
        raise FlagError(f"--{name}: expected --{name}=VALUE")
    if kind != "int":
        return raw
    try:
        value = int(raw)
    except ValueError:
        raise FlagError(f"--{name}={raw}: expected a whole number") from None
    if value < 1 and name.startswith(("max_", "receive_", "reload_")) and name != "max_num_load_retries":
        raise FlagError(f"--{name}={raw}: must be at least 1")
    return value


def usage() -> str:
    lines = ["usage: python -m serving.model_server [--flag=value ...]", "Flags, with their defaults:"]
    lines += [f"  --{field.name}={ON_LOOPBACK if field.default is None else field.default}" for field in fields(Flags)]
    return os.linesep.join(lines)
