"""The DAG of the pipeline. Each node but TFX's StatisticsGen is implemented in components/<node>.py."""

from __future__ import annotations

from tfx.components.statistics_gen.component import StatisticsGen
from tfx.orchestration.pipeline import Pipeline

from components.baseline import Baseline
from components.common import contract
from components.common.home import Home
from components.data.idx import IdxFiles
from components.evaluator import Evaluator
from components.example_gen import ExampleGen
from components.example_validator import ExampleValidator
from components.infra_validator import InfraValidator
from components.pusher import Pusher
from components.schema import Schema
from components.trainer import Trainer
from components.transform import Transform
from pipeline.beam import pipeline_args
from pipeline.lineage import connection_config
from pipeline.settings import Settings


def create_pipeline(settings: Settings, files: IdxFiles, home: Home) -> Pipeline:
    """The DAG; both orchestrators run it. Kubeflow Pipelines has its own metadata and ignores the connection."""
    data_sha256 = files.hashes()

    # Writes the IDX files as tf.Examples in three splits: train, eval and test.
    example_gen = ExampleGen(files, settings.data, data_sha256)
    examples = example_gen.outputs["examples"]

    # Publishes the schema that the examples must match.
    schema = Schema(settings.data)

    # Computes counts, means and histograms of every feature in every split. The schema makes the label categorical.
    statistics_gen = StatisticsGen(examples=examples, schema=schema.outputs["schema"])

    # Compares the statistics with the schema, with each other and with earlier data; anomalies stop the run.
    example_validator = ExampleValidator(
        statistics_gen.outputs["statistics"], schema.outputs["schema"], settings.data, home.accepted_statistics
    )

    # Builds the graph that normalises and flattens images, in training and in serving.
    transform = Transform(examples, schema.outputs["schema"], settings.data, settings.transform)
    transform.add_upstream_node(example_validator)

    # Trains the network on train, validates it on eval, exports a SavedModel.
    trainer = Trainer(
        examples, transform.outputs["transform_graph"], schema.outputs["schema"], settings.data, settings.train
    )
    model = trainer.outputs["model"]

    # Finds the pushed version to compare the new model with.
    baseline = Baseline(candidate=model, versions=home.serving_model)

    # Evaluates the model on test and blesses it if it reaches the thresholds.
    evaluator = Evaluator(examples, model, baseline.outputs["model"], settings.gate, settings.data.class_names)
    blessing = evaluator.outputs["blessing"]

    # Loads the blessed model in a real server and compares its predictions with the evaluation.
    infra_validator = InfraValidator(
        model, blessing, evaluator.outputs["evaluation"], settings.infra, settings.serving.backend
    )

    # Publishes the model as a new version, with one rename, if both validations passed.
    pusher = Pusher(model, blessing, infra_validator.outputs["blessing"], home.serving_model, settings, data_sha256)

    return Pipeline(
        pipeline_name=contract.MODEL_NAME,
        pipeline_root=str(home.artifacts),
        components=[
            *(example_gen, schema, statistics_gen, example_validator, transform),
            *(trainer, baseline, evaluator, infra_validator, pusher),
        ],
        beam_pipeline_args=pipeline_args(settings.beam),
        metadata_connection_config=connection_config(home.metadata),
        enable_cache=True,
    )
