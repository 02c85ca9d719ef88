"""Swap the served version under a steady load: each request must be answered by a version that is published.

    python -m benchmarks.serving.swaps      (2 minutes; needs a pushed model in workspace/)

The pushed version is published again and again under higher numbers, in a folder that the embedded server polls; old
versions are deleted. Writes build/bench_serving_swaps.json.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
import time
from pathlib import Path
from typing import Final

from benchmarks import harness
from benchmarks.serving.clients import SteadyLoad, embedded_server, grpc_call, percentiles_ms
from components.common import contract
from components.versions.publish import prune, publish
from serving.protocol import serving_pb2 as pb

STATUS: Final = "/tensorflow.serving.ModelService/GetModelStatus"
KEPT_VERSIONS: Final = 2


async def swap(port: int, model: Path, base: Path, swaps: int, interval_s: float) -> tuple[dict[int, float], int]:
    """Publish a version every `interval_s`, and wait until it is loaded.

    Returns:
        {version: time.perf_counter() just before it was published}; the number of versions loaded in time
    """
    request = pb.GetModelStatusRequest(model_spec=pb.ModelSpec(name=contract.MODEL_NAME)).SerializeToString()
    published_s: dict[int, float] = {}
    loaded = 0

    async with grpc_call(port, STATUS) as status:
        for _ in range(swaps):
            began_s = time.perf_counter()
            version = int((await asyncio.to_thread(publish, model, base, 1)).name)
            published_s[version] = began_s
            prune(base, KEPT_VERSIONS, tuple)
            while time.perf_counter() < began_s + interval_s:
                states = pb.GetModelStatusResponse.FromString(await status(request)).model_version_status
                newest = max(states, key=lambda state: state.version)
                if newest.version == version and newest.state == pb.ModelVersionStatus.AVAILABLE:
                    loaded += 1
                    break
                await asyncio.sleep(0.05)
            await asyncio.sleep(max(0.0, began_s + interval_s - time.perf_counter()))
    return published_s, loaded


def measure(model: Path, swaps: int, seconds: float, requests_per_s: float) -> dict[str, object]:
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder, contract.MODEL_NAME)
        publish(model, base, 1)
        with embedded_server(base) as (_, port):
            load = SteadyLoad(port, requests_per_s)
            published_s, loaded = asyncio.run(load.run(swap(port, model, base, swaps, seconds / swaps)))
    samples = load.samples
    return {
        "swaps": loaded,
        "requests": len(samples) + len(load.failures),
        "failed": len(load.failures),
        "failures": load.failures[:5],
        "answered_by_a_version_before_it_was_published": sum(
            sample.sent_s < published_s.get(sample.version, 0.0) for sample in samples
        ),
        "versions_that_answered": len({sample.version for sample in samples}),
        **percentiles_ms([sample.latency_s for sample in samples]),
    }


def main() -> None:
    parser = harness.argument_parser(__doc__, home=True)
    parser.add_argument("--swaps", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--rate", type=float, default=200.0, help="requests per second")
    options = parser.parse_args()
    result = measure(harness.pushed_model(options.home), options.swaps, options.seconds, options.rate)
    print(json.dumps(result, indent=1))
    harness.write_result("bench_serving_swaps.json", result)
    if result["failed"] or result["answered_by_a_version_before_it_was_published"]:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
