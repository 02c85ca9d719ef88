from __future__ import annotations

import os
import signal
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from components.common.errors import UserError
from components.training.checkpoints import Checkpoint, Checkpoints, run_key
from components.training.loop import Point, Trained, evaluate, next_stop, unrolled_steps
from components.training.state import State
from tests.support.training import AUGMENTED, SCALE, arrays, run, small_settings, split

KEY = run_key({})


def assert_same_weights(found: Trained, wanted: Trained) -> None:
    for name, array in arrays(wanted).items():
        np.testing.assert_array_equal(arrays(found)[name], array, err_msg=name)


@pytest.mark.parametrize(
    "chosen",
    [
        AUGMENTED,
        {"optimizer": "sgd", "learning_rate": 1.0, "activation": "tanh"},
        {"optimizer": "momentum", "learning_rate": 0.1, "loss_reduction": "mean"},
        {"optimizer": "sgd", "learning_rate": 1.0 / 64, "loss_reduction": "sum", "schedule": "constant"},
        {"keep": "best"},
        {"activation": "relu", "hidden_layers": (16, 8, 16)},
        {"hidden_layers": ()},
    ],
    ids=["augmented", "sgd", "momentum", "sum", "best", "relu", "linear"],
)
def test_training_learns_and_is_repeatable(chosen: dict[str, object]) -> None:
    first, second = (run(small_settings(**chosen)) for _ in range(2))
    assert [point.step for point in first.history] == [151]
    assert evaluate(first.model, split(300, 2).batches(), SCALE)[0] > 0.9
    assert_same_weights(second, first)


def test_another_seed_gives_other_weights() -> None:
    a, b = (arrays(run(small_settings(seed=seed, steps=1))) for seed in (1, 2))
    assert not np.array_equal(a["weights/0"], b["weights/0"])


def test_the_sum_is_the_mean_with_batch_size_times_the_rate() -> None:
    same = {"optimizer": "sgd", "steps": 21}
    summed = arrays(run(small_settings(**same, loss_reduction="sum", learning_rate=0.01)))
    mean = arrays(run(small_settings(**same, learning_rate=0.64)))
    for name, array in summed.items():
        np.testing.assert_allclose(array, mean[name], atol=1e-5)


def test_the_history_has_loss_rate_and_validation() -> None:
    points: list[tuple[Point, float]] = []
    settings = small_settings(steps=301, eval_every_steps=120)
    trained = run(settings, report=lambda point, rate: points.append((point, rate)))
    assert [point.step for point, _ in points] == [120, 240, 250, 301]
    assert [point.eval_accuracy is not None for point, _ in points] == [True, True, False, True]
    assert points[-1][0].loss < points[0][0].loss
    assert points[-1][0].learning_rate < points[0][0].learning_rate
    assert all(rate > 0 for _, rate in points)
    assert trained.history == [point for point, _ in points]


def test_best_exports_the_best_validation_and_last_the_last() -> None:
    ruined = {"schedule": "constant", "optimizer": "sgd", "learning_rate": 100.0, "steps": 61, "eval_every_steps": 6}
    best, last = run(small_settings(**ruined, keep="best")), run(small_settings(**ruined))
    accuracies = [point.eval_accuracy or 0.0 for point in best.history]
    assert max(accuracies) > accuracies[-1]  # otherwise both would export the same weights
    assert evaluate(best.model, split(200, 1).batches(), SCALE)[0] == max(accuracies)
    assert evaluate(last.model, split(200, 1).batches(), SCALE)[0] == accuracies[-1]


def test_of_equal_validations_best_keeps_the_first() -> None:
    state = State.create((4, 2), small_settings(keep="best"))
    assert state.best is not None
    state.remember_best(0.3)  # as float32 it is a little more, as float64 a little less than what the variable has
    kept = state.best.named_weights()["biases/0"].numpy()
    state.model.biases[0].assign([1.0, 2.0])
    state.remember_best(0.3)
    np.testing.assert_array_equal(state.best.named_weights()["biases/0"], kept)
    state.remember_best(0.31)
    np.testing.assert_array_equal(state.best.named_weights()["biases/0"], [1.0, 2.0])


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_divergence_is_an_error_with_a_remedy_and_leaves_no_checkpoint(tmp_path: Path, value: float) -> None:
    checkpoints = Checkpoints(tmp_path, KEY)
    broken = SCALE._replace(scale=np.full_like(SCALE.scale, value))
    with pytest.raises(UserError, match=r"diverged: the loss is (nan|inf) after 3 steps") as caught:
        run(small_settings(steps=6, eval_every_steps=3, checkpoint_every_steps=3), checkpoints, scale=broken)
    assert "train.learning_rate" in caught.value.remedy and caught.value.exit_code == 1
    assert not checkpoints.path.exists()


class StopError(Exception):
    """Ends a run without saving anything, like kill -9."""


EVERY = {"steps": 121, "checkpoint_every_steps": 40, "eval_every_steps": 30}
INTERRUPTED = {
    "augmented": {**EVERY, **AUGMENTED},
    "best, momentum": {**EVERY, "keep": "best", "optimizer": "momentum"},
}


@pytest.fixture(scope="module", params=INTERRUPTED)
def uninterrupted(request: pytest.FixtureRequest) -> tuple[dict[str, object], Trained]:
    """Settings, and a complete run with them."""
    chosen: dict[str, object] = INTERRUPTED[request.param]
    return chosen, run(small_settings(**chosen))


@pytest.mark.parametrize("stopped_at", [60, 120])
def test_a_run_resumed_at_any_point_ends_with_the_same_weights(
    tmp_path: Path, uninterrupted: tuple[dict[str, object], Trained], stopped_at: int
) -> None:
    chosen, whole = uninterrupted
    settings, checkpoints = small_settings(**chosen), Checkpoints(tmp_path, KEY)

    def stop(point: Point, _: float) -> None:
        if point.step >= stopped_at:
            raise StopError

    with pytest.raises(StopError):
        run(settings, checkpoints, report=stop)
    resumed = run(settings, checkpoints)
    assert resumed.resumed_at_step == (stopped_at - 1) // 40 * 40  # it stops before that step's own checkpoint
    assert [(p.step, p.eval_accuracy) for p in resumed.history] == [(p.step, p.eval_accuracy) for p in whole.history]
    assert_same_weights(resumed, whole)


def test_a_run_resumes_with_another_checkpoint_interval(
    tmp_path: Path, uninterrupted: tuple[dict[str, object], Trained]
) -> None:
    chosen, whole = uninterrupted
    checkpoints = Checkpoints(tmp_path, KEY)

    def stop(point: Point, _: float) -> None:
        if point.step >= 60:
            raise StopError

    with pytest.raises(StopError):
        run(small_settings(**{**chosen, "checkpoint_every_steps": 7}), checkpoints, report=stop)
    resumed = run(small_settings(**{**chosen, "checkpoint_every_steps": 40}), checkpoints)
    assert resumed.resumed_at_step == 56
    assert_same_weights(resumed, whole)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_run_with_a_checkpoint_of_its_last_step(tmp_path: Path, number: signal.Signals) -> None:
    settings, checkpoints = small_settings(steps=121, eval_every_steps=30), Checkpoints(tmp_path, KEY)
    steps = []

    def send(point: Point, _: float) -> None:
        steps.append(point.step)
        if point.step == 60:
            os.kill(os.getpid(), number)

    def terminated(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(number, terminated)
    try:
        with pytest.raises(KeyboardInterrupt):
            run(settings, checkpoints, report=send)
    finally:
        assert signal.signal(number, before) is terminated  # the loop restored the handler
    assert steps == [30, 60]
    assert run(settings, checkpoints).resumed_at_step == 60


def test_a_checkpoint_of_another_network_is_never_loaded(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    checkpoints = Checkpoints(tmp_path, KEY)  # the same key: only the arrays differ
    checkpoints.save(Checkpoint(50, {"model/weights/0": np.ones((2, 2), np.float32)}, []))
    assert run(small_settings(steps=1), checkpoints).resumed_at_step == 0
    assert "another architecture" in caplog.text


def test_calls_end_where_something_is_due() -> None:
    settings = small_settings(steps=580, eval_every_steps=400, checkpoint_every_steps=0)
    stops = [0]
    while stops[-1] < settings.steps:
        stops.append(next_stop(stops[-1], settings))
    assert stops == [0, 250, 400, 500, 580]


@given(st.integers(1, 2000), st.integers(1, 700), st.integers(0, 700), st.integers(0, 1999))
@hypothesis_settings(max_examples=50)
def test_every_call_is_a_whole_number_of_unrolled_iterations(
    steps: int, every: int, checkpoint_every: int, first: int
) -> None:
    settings = small_settings(steps=steps, eval_every_steps=every, checkpoint_every_steps=checkpoint_every)
    step = first
    while step < steps:
        stop = next_stop(step, settings)
        assert (stop - step) % unrolled_steps(settings, first) == 0
        step = stop


def test_unrolling_does_not_change_the_weights() -> None:
    same = {"steps": 30, **AUGMENTED}
    many, one = small_settings(**same, checkpoint_every_steps=0), small_settings(**same, checkpoint_every_steps=7)
    assert (unrolled_steps(many), unrolled_steps(one)) == (5, 1)
    assert_same_weights(run(many), run(one))
