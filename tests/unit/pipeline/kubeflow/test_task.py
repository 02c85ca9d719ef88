from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pipeline.kubeflow.task import parse

MODEL = {"artifactType": {"instanceSchema": "title: tfx.Model\ntype: object\n"}}
COMPONENT = {
    "inputDefinitions": {
        "artifacts": {"model": MODEL, "baseline_model": MODEL},
        "parameters": {"eval_config": {"parameterType": "STRING"}, "train_steps": {"parameterType": "NUMBER_INTEGER"}},
    },
    "outputDefinitions": {"artifacts": {"evaluation": MODEL}},
}


def artifact(uri: Path | str, **more: Any) -> dict[str, Any]:
    return {"artifacts": [{"name": "same", "uri": str(uri), "type": {"instanceSchema": ""}, "futureField": 1, **more}]}


def executor_input(tmp_path: Path) -> str:
    logs = {"artifacts": [{"uri": "minio://b/logs", "type": {"schemaTitle": "system.Artifact"}}]}
    return json.dumps({
        "inputs": {
            "parameterValues": {"eval_config": "{}", "train_steps": 500.0},
            "artifacts": {"model": artifact("minio://b/model"), "baseline_model": artifact(tmp_path)},
        },
        "outputs": {
            "artifacts": {"evaluation": artifact("s3://b/evaluation"), "executor-logs": logs},
            "outputFile": "/tmp/out.json",
        },
        "futureField": {"x": 1},
    })  # fmt: skip


def test_types_and_keys_come_from_the_compiled_component(tmp_path: Path) -> None:
    task = parse(json.dumps(COMPONENT), executor_input(tmp_path))
    inputs, outputs = task.executor_input.inputs, task.executor_input.outputs
    assert set(inputs.artifacts) == {"model", "baseline_model"}
    assert set(outputs.artifacts) == {"evaluation"}
    model, baseline = (inputs.artifacts[key].artifacts[0] for key in ("model", "baseline_model"))
    assert (model.uri, baseline.uri) == ("/minio/b/model", str(tmp_path))
    assert "tfx.Model" in model.type.instance_schema
    assert model.name != baseline.name
    assert task.uris == {"/minio/b/model": "minio://b/model", "/s3/b/evaluation": "s3://b/evaluation"}
    assert task.parameters == {"train.steps": 500.0}
    assert set(inputs.parameter_values) == {"eval_config"}
