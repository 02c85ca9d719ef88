"""The variables of a training run: what a step changes and a checkpoint contains."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import tensorflow as tf

from components.common.settings import TrainSettings
from components.training import optimizers
from components.training.model import MLP


@dataclass
class State:
    """All variables of a run.

    Attributes:
        model: the network that is trained.
        best: a copy of `model` at its best evaluation, if settings.keep is "best"; else None.
        step: steps done, int64 scalar.
        best_accuracy: accuracy of `best` on the eval split, 0..1; -1 before the first evaluation.
        variables: all of the above by the names that the checkpoints use.
    """

    model: MLP
    best: MLP | None
    optimizer: optimizers.Optimizer
    step: tf.Variable
    best_accuracy: tf.Variable
    variables: dict[str, tf.Variable] = field(default_factory=dict)

    @classmethod
    def create(cls, sizes: Sequence[int], settings: TrainSettings) -> State:
        """The state before the first step; `sizes` are the units per layer, input and output included."""

        def network() -> MLP:
            return MLP(sizes, settings.seed, settings.activation)

        model = network()
        state = cls(
            model=model,
            best=network() if settings.keep == "best" else None,
            optimizer=optimizers.create(model.trainable_variables, settings),
            step=tf.Variable(0, dtype=tf.int64, trainable=False),
            best_accuracy=tf.Variable(-1.0, trainable=False),
        )
        for name, one in {"model": model, "best": state.best}.items():
            if one is not None:
                state.variables |= {f"{name}/{key}": variable for key, variable in one.named_weights().items()}
        state.variables |= {f"optimizer/{key}": variable for key, variable in state.optimizer.slots.items()}
        state.variables |= {"step": state.step, "best_accuracy": state.best_accuracy}
        return state

    def remember_best(self, accuracy: float) -> None:
        """Copy `model` into `best`, if `best` is wanted and this accuracy on the eval split is the highest so far."""
        if self.best is not None and np.float32(accuracy) > self.best_accuracy.numpy():  # of a tie the first stays
            self.best_accuracy.assign(accuracy)
            for name, variable in self.best.named_weights().items():
                variable.assign(self.model.named_weights()[name].numpy())
