"""The curated schema as an artifact of the pipeline."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from google.protobuf import text_format
from tensorflow_metadata.proto.v0 import schema_pb2
from tfx.dsl.components.base import base_component, base_executor, executor_spec
from tfx.types import artifact_utils, component_spec, standard_artifacts
from tfx.types import standard_component_specs as keys
from tfx.types.channel import OutputChannel

from components.common import contract
from components.common.settings import DataSettings

TEMPLATE: Final = Path(__file__).with_name("schema.pbtxt")
FILE_NAME: Final = "schema.pbtxt"  # the name that TFX's readers look for


def curated_schema(settings: DataSettings) -> schema_pb2.Schema:
    """The schema in schema.pbtxt with the label range and intensity bounds of `settings`."""
    schema = text_format.Parse(TEMPLATE.read_text(), schema_pb2.Schema())
    features = {feature.name: feature for feature in schema.feature}
    features[contract.LABEL].int_domain.max = settings.classes - 1
    features[contract.MEAN_INTENSITY].float_domain.min = settings.min_mean_intensity
    features[contract.MEAN_INTENSITY].float_domain.max = settings.max_mean_intensity
    return schema


class Executor(base_executor.BaseExecutor):
    """Writes the schema's text into the Schema artifact."""

    def Do(self, input_dict: dict[str, Any], output_dict: dict[str, Any], exec_properties: dict[str, Any]) -> None:
        folder = Path(artifact_utils.get_single_uri(output_dict[keys.SCHEMA_KEY]))
        folder.mkdir(parents=True, exist_ok=True)
        (folder / FILE_NAME).write_text(exec_properties["text"])


class _Spec(component_spec.ComponentSpec):
    INPUTS: dict[str, Any] = {}
    OUTPUTS = {keys.SCHEMA_KEY: component_spec.ChannelParameter(type=standard_artifacts.Schema)}
    PARAMETERS = {"text": component_spec.ExecutionParameter(type=str)}


class Schema(base_component.BaseComponent):
    """TFX component: the schema as a Schema artifact.

    TFX's ImportSchemaGen has a path in its cache key, so an edited schema would stay cached. Here the text itself is
    the parameter.
    """

    SPEC_CLASS = _Spec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(Executor)

    def __init__(self, settings: DataSettings) -> None:
        schema = OutputChannel(standard_artifacts.Schema, self, keys.SCHEMA_KEY)
        text = str(text_format.MessageToString(curated_schema(settings)))
        super().__init__(spec=_Spec(schema=schema, text=text))
