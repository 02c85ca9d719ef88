"""Options that several commands share, and their errors as JSON."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Final

import typer

from components.common import ROOT
from components.common.command_line import say
from components.common.errors import UserError

DEFAULT_CONFIG: Final = ROOT / "configs" / "default.toml"
ConfigOption = Annotated[Path, typer.Option("--config", help="A TOML file of settings; configs/ has several.")]
OverridesOption = Annotated[
    list[str] | None, typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Override one setting; repeatable.")
]


@contextmanager
def errors_in_json(as_json: bool) -> Iterator[None]:
    """With --json, also print an error as a JSON object on stdout."""
    try:
        yield
    except UserError as e:
        if as_json:
            from pipeline.run import refused

            say(refused(str(e), e.exit_code).to_json())
        raise
