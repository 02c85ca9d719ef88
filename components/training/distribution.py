"""Training on one device, all GPUs of a machine, or several machines: tf.distribute behind one setting."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable
from typing import Final

import tensorflow as tf

from components.common import resources
from components.common.errors import UsageError

THREADS_VARIABLE: Final = "TF_NUM_INTRAOP_THREADS"  # read by TensorFlow
EXAMPLE = '{"cluster": {"worker": ["host0:5000", "host1:5000"]}, "task": {"type": "worker", "index": 0}}'


def create(name: str) -> tf.distribute.Strategy:
    """The strategy for train.strategy. "multi_worker" waits until all workers in TF_CONFIG have started.

    Raises:
        UsageError: multi_worker without a usable TF_CONFIG, or in a process where TensorFlow has already run.
    """
    if name == "mirrored":
        return tf.distribute.MirroredStrategy()
    if name == "multi_worker":
        _check_tf_config(os.environ.get("TF_CONFIG", ""))
        try:
            return tf.distribute.MultiWorkerMirroredStrategy()
        except RuntimeError as e:  # "Collective ops must be configured at program startup"
            raise UsageError(
                f"train.strategy=multi_worker needs the Trainer in its own process ({e})",
                "Run on Kubeflow, where each node is a process, or use train.strategy=mirrored or none.",
            ) from e
    return tf.distribute.get_strategy()


def divide_cores(shards: int) -> None:
    """Divide the cores equally among a batch's shards, which run in parallel. Call it before TensorFlow runs.

    The cores are those of the container: TensorFlow itself would start a thread for each core of the machine.

    By default every operation uses all cores, so the shards compete for them; dividing the cores made the default
    configuration 23 % faster. TF_NUM_INTRAOP_THREADS in the environment takes precedence. Has no effect in a process
    that has already used TensorFlow.
    """
    if THREADS_VARIABLE not in os.environ:
        with contextlib.suppress(RuntimeError):  # "cannot be modified after initialization"
            tf.config.threading.set_intra_op_parallelism_threads(max(1, resources.cores() // shards))
            tf.config.threading.set_inter_op_parallelism_threads(max(shards, resources.cores()))


def _check_tf_config(text: str) -> None:
    try:
        config = json.loads(text)
        workers, index = config["cluster"]["worker"], config["task"]["index"]
        usable = config["task"]["type"] == "worker" and 0 <= int(index) < len(workers)
    except (ValueError, KeyError, TypeError):
        usable = False
    if not usable:
        raise UsageError(
            "train.strategy is multi_worker, but TF_CONFIG does not name the workers and this task",
            f"Set it in each worker's environment: TF_CONFIG='{EXAMPLE}'",
        )


def is_chief(strategy: tf.distribute.Strategy) -> bool:
    """Whether this process is the first or only worker, which writes the files that all workers share."""
    resolver = strategy.cluster_resolver
    return not resolver or not resolver.task_type or resolver.task_id == 0


def examples_per_replica(batch_size: int, strategy: tf.distribute.Strategy) -> int:
    """Each replica's share of a batch. Raises UsageError if the batch does not divide evenly."""
    replicas = strategy.num_replicas_in_sync
    if batch_size % replicas:
        raise UsageError(f"train.batch_size is {batch_size}; it must be a multiple of the {replicas} replicas")
    return int(batch_size // replicas)


def copy_from_first(strategy: tf.distribute.Strategy, variables: Iterable[tf.Variable]) -> None:
    """Copy the first replica's values to all replicas: the other workers may not have found the checkpoint."""

    @tf.function
    def everywhere() -> None:
        def on_replica() -> None:
            context = tf.distribute.get_replica_context()
            first = tf.equal(context.replica_id_in_sync_group, 0)
            for variable in variables:
                value = tf.where(first, variable, tf.zeros_like(variable))
                variable.assign(context.all_reduce(tf.distribute.ReduceOp.SUM, value))

        strategy.run(on_replica)

    if strategy.num_replicas_in_sync > 1:
        everywhere()
