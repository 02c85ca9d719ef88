"""The quick ones of the drills (all: `make drills`): a fault against a home that a server serves and a client asks."""

from __future__ import annotations

import pytest

from tests.drills import faults
from tests.drills.drill import Fault, Range, Row
from tests.drills.faults import STRICT, expect, killed_at
from tests.drills.product import Product, Watch


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Range:
    return Range(tmp_path_factory.mktemp("drills"))


def held(ground: Range, fault: Fault, repeat: bool = True) -> Row:
    row = ground.hold(fault.__name__, fault, repeat)
    assert not row.problems
    assert row.answered > 0
    return row


@pytest.mark.parametrize("fault", [faults.blind_to_one_digit, faults.nan_weights])
def test_a_model_that_must_not_be_served_is_not_pushed(ground: Range, fault: Fault) -> None:
    row = held(ground, fault, repeat=False)
    assert (row.before, row.after) == ("v2", "v2")


def test_tampered_weights_are_noticed_and_not_loaded_again(ground: Range) -> None:
    row = held(ground, faults.tampered_weights, repeat=False)
    assert (row.before, row.after) == ("v2", "v3")  # the rerun's


def test_an_edited_manifest_is_noticed_and_replaced(ground: Range) -> None:
    row = held(ground, faults.edited_manifest)
    assert (row.before, row.after, row.repeated) == ("v2", "v2", "v3")


def test_kill_9_in_infra_validator_and_pusher_leaves_nothing_to_clean_up(ground: Range) -> None:
    def killed_twice(product: Product, watch: Watch) -> str:
        words = (*STRICT, "--set", "train.seed=3")
        for node, delay_s in (("InfraValidator", 0.7), ("Pusher", 0.02)):  # the second run goes on from the first
            hit = killed_at(product, watch, node, delay_s, *words)
            expect(hit == node, f"meant for {node}, hit {hit}")
        return "killed twice"

    held(ground, killed_twice)
