"""Stands in for the module of this name that tfx-bsl removed in 1.21 (see compat/README.md).

tensorflow-data-validation 1.16.1 imports it at start-up but calls it only for SQL slicing, which
this project does not use and newer releases no longer have.
"""

from typing import NoReturn


class RecordBatchSQLSliceQuery:
    """Raises RuntimeError when constructed: SQL slicing does not exist on this stack."""

    def __init__(self, *_: object, **__: object) -> None:
        _refuse()


def _refuse() -> NoReturn:
    raise RuntimeError(
        "SQL slicing (slicing_config.slicing_sql_keys) is gone from tfx-bsl 1.21; "
        "slice by feature with slice functions or slicing_feature_keys instead."
    )
