"""Put the sections together as one HTML page; the templates are in templates/."""

from __future__ import annotations

import base64
import functools
import hashlib
from pathlib import Path
from typing import Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from pipeline import records
from pipeline.report import card, data, environment, errors, graph, training, verdict
from pipeline.report.sources import Sources

TEMPLATES: Final = Path(__file__).with_name("templates")


def render(sources: Sources) -> str:
    """The page of a run."""
    run, baseline = sources.run, sources.baseline
    shown = verdict.section(sources)
    answers, before = sources.predictions, baseline.predictions if baseline else None
    found = errors.errors(answers, sources.class_names, before) if answers is not None else None
    style = (TEMPLATES / "style.css").read_text()
    return (
        _templates()
        .get_template("page.html")
        .render(
            run=run,
            verdict=shown,
            dag=graph.nodes(run.nodes, sources.executions),
            curves=training.curves(sources.training, baseline.training if baseline else None),
            training=sources.training,
            settings=training.not_default(run.settings),
            differences=records.differences(sources.previous, run) if sources.previous else None,
            previous=sources.previous,
            reproduce=training.reproduce(run.settings),
            data=data.section(sources),
            errors=found,
            reliability=errors.reliability(found.bins) if found else None,
            confident_errors=errors.errors_by_confidence(found.bins) if found else None,
            baseline_version=sources.baseline_version,
            lineage=graph.lineage(run.version, shown.serving, sources.executions, sources.data_sha256),
            card=card.section(sources),
            environment=environment.section(sources),
            lacks=sources.lacks
            | ({f"baseline's {what}": why for what, why in baseline.lacks.items()} if baseline else {}),
            style=style,
            style_sha256=base64.b64encode(hashlib.sha256(style.encode()).digest()).decode(),
        )
    )


@functools.cache
def _templates() -> Environment:
    templates = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters["number"] = verdict.number
    return templates
