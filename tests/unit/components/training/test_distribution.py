from __future__ import annotations

import json
import subprocess
import sys

import pytest
import tensorflow as tf

from components.common import resources
from components.common.errors import UsageError
from components.training import distribution
from tests.conftest import ROOT

ALONE = json.dumps({"cluster": {"worker": ["127.0.0.1:1"]}, "task": {"type": "worker", "index": 0}})


@pytest.mark.parametrize(
    "config", ["", "{", "[]", '{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 3}}']
)
def test_workers_without_a_usable_tf_config_are_refused(monkeypatch: pytest.MonkeyPatch, config: str) -> None:
    monkeypatch.setenv("TF_CONFIG", config)
    with pytest.raises(UsageError, match="TF_CONFIG does not name the workers"):
        distribution.create("multi_worker")


def test_workers_in_a_process_that_has_used_tensorflow_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    tf.constant(1.0) + 1.0
    monkeypatch.setenv("TF_CONFIG", ALONE)
    with pytest.raises(UsageError, match="the Trainer in its own process"):
        distribution.create("multi_worker")


def test_a_batch_that_does_not_divide_among_the_replicas_is_refused() -> None:
    class Three:
        num_replicas_in_sync = 3

    assert distribution.examples_per_replica(9, Three()) == 3
    with pytest.raises(UsageError, match="multiple of the 3 replicas"):
        distribution.examples_per_replica(10, Three())


def test_the_cores_are_divided_among_the_shards_until_tensorflow_runs() -> None:
    program = """
import os, tensorflow as tf
from components.training.distribution import divide_cores
threads = tf.config.threading.get_intra_op_parallelism_threads
os.environ["TF_NUM_INTRAOP_THREADS"] = "3"
divide_cores(1)
print(threads())
del os.environ["TF_NUM_INTRAOP_THREADS"]
for shards in (1, 1000):
    divide_cores(shards)
    print(threads())
tf.zeros([]) + 1.0
divide_cores(1)
print(threads())
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["0", str(resources.cores()), "1", "1"]
