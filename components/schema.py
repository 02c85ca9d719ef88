"""The curated schema as an artifact of the pipeline."""

# No `from __future__ import annotations` here: TFX reads the annotations of a @component at run time.

from pathlib import Path
from typing import Final

from google.protobuf import text_format
from tensorflow_metadata.proto.v0 import schema_pb2
from tfx.dsl.component.experimental.annotations import OutputArtifact, Parameter
from tfx.dsl.component.experimental.decorators import component
from tfx.types.standard_artifacts import Schema

from components.common import contract
from components.common.settings import DataSettings

TEMPLATE: Final = Path(__file__).with_name("schema.pbtxt")
FILE_NAME: Final = "schema.pbtxt"  # the name that TFX's readers look for


def curated_schema(settings: DataSettings) -> schema_pb2.Schema:
    """The schema of schema.pbtxt with the label range and intensity bounds of `settings`."""
    schema = text_format.Parse(TEMPLATE.read_text(), schema_pb2.Schema())
    features = {feature.name: feature for feature in schema.feature}
    features[contract.LABEL].int_domain.max = settings.classes - 1
    features[contract.MEAN_INTENSITY].float_domain.min = settings.min_mean_intensity
    features[contract.MEAN_INTENSITY].float_domain.max = settings.max_mean_intensity
    return schema


def schema_text(settings: DataSettings) -> str:
    return str(text_format.MessageToString(curated_schema(settings)))


@component
def CuratedSchema(schema: OutputArtifact[Schema], text: Parameter[str]) -> None:
    """Publishes `text` (a Schema in text format) as a Schema artifact.

    TFX's ImportSchemaGen takes a path, and its cache key holds only that path: an edited schema would stay
    cached. Here the text itself is the parameter.
    """
    Path(schema.uri).mkdir(parents=True, exist_ok=True)
    Path(schema.uri, FILE_NAME).write_text(text)
