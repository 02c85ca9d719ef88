"""Section "Model card": the card that is also in the folder of a pushed version."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from components.validation import model_card
from pipeline.report.sources import Sources


@dataclass(frozen=True)
class Section:
    """Content of the section: `card` in Model Card Toolkit's schema; None if the model was not evaluated."""

    card: dict[str, Any] | None
    intended: tuple[str, ...] = model_card.USES
    out_of_scope: tuple[str, ...] = model_card.OUT_OF_SCOPE
    factors: tuple[str, ...] = model_card.FACTORS
    caveats: tuple[str, ...] = model_card.LIMITATIONS


def section(sources: Sources) -> Section:
    if sources.gate is None:
        return Section(None)
    subject = model_card.Subject(
        version=sources.run.version or "",
        run_id=sources.run.run_id,
        date=sources.manifest.created_utc if sources.manifest else sources.run.started_utc or "",
        commit=sources.manifest.git_commit if sources.manifest else None,
        settings=sources.run.settings or {},
        data_sha256=sources.data_sha256,
        slices=sources.gate.metrics.get("slices", {}),
        class_names=sources.class_names,
    )
    return Section(model_card.card(subject))
