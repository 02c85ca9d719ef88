"""The pipeline, on one screen. Wiring only: what a node does is in components/."""

from __future__ import annotations

from dataclasses import asdict

from tfx.components.statistics_gen.component import StatisticsGen
from tfx.components.trainer.component import Trainer
from tfx.components.transform.component import Transform
from tfx.dsl.components.common.resolver import Resolver
from tfx.orchestration.metadata import sqlite_metadata_connection_config
from tfx.orchestration.pipeline import Pipeline
from tfx.proto import pusher_pb2, trainer_pb2
from tfx.types import Channel
from tfx.types.standard_artifacts import Model, ModelBlessing

from components.baseline import LatestBlessedBaseline
from components.common import contract
from components.common.home import Home
from components.data.idx import IdxFiles
from components.evaluator import GateEvaluator, eval_config
from components.example_gen import IdxExampleGen
from components.example_validator import StrictExampleValidator
from components.infra_validator import InfraValidator
from components.pushed_baseline import PushedBaseline
from components.pusher import AtomicPusher
from components.schema import CuratedSchema, schema_text
from components.validation.model_signature import Takes
from pipeline.beam import pipeline_args
from pipeline.settings import Settings


def create_pipeline(settings: Settings, files: IdxFiles, home: Home, *, local: bool = True) -> Pipeline:
    """Args: local: keeps ML Metadata in the home and has a Resolver, which Kubeflow Pipelines cannot run."""
    data, data_sha256 = {"data": asdict(settings.data)}, files.hashes()
    takes = asdict(Takes(settings.data.image_height, settings.data.image_width, settings.data.classes))

    example_gen = IdxExampleGen(files, settings.data, data_sha256).with_id("ExampleGen")
    examples = example_gen.outputs["examples"]
    statistics = StatisticsGen(examples=examples)
    schema = CuratedSchema(text=schema_text(settings.data)).with_id("Schema")
    validator = StrictExampleValidator(
        statistics=statistics.outputs["statistics"], schema=schema.outputs["schema"]
    ).with_id("ExampleValidator")

    transform = Transform(
        examples=examples,
        schema=schema.outputs["schema"],
        preprocessing_fn="components.transform.preprocessing_fn",
        materialize=False,  # the Trainer applies the graph in memory: see docs/decisions/0002
        disable_statistics=True,
        custom_config={"pixels": settings.data.pixels, "scaling": settings.transform.scaling},
    )
    transform.add_upstream_node(validator)  # anomalies stop the run here

    trainer = Trainer(
        run_fn="components.trainer.run_fn",
        examples=examples,
        transform_graph=transform.outputs["transform_graph"],
        schema=schema.outputs["schema"],
        train_args=trainer_pb2.TrainArgs(splits=[contract.TRAIN_SPLIT], num_steps=settings.train.steps),
        eval_args=trainer_pb2.EvalArgs(splits=[contract.EVAL_SPLIT]),
        custom_config={"train": asdict(settings.train), **data},
    )
    model = trainer.outputs["model"]

    baseline = (
        Resolver(
            strategy_class=LatestBlessedBaseline,
            config=takes,
            candidate=model,
            model=Channel(type=Model),
            model_blessing=Channel(type=ModelBlessing),
        )
        if local
        else PushedBaseline(candidate=model, versions=str(home.serving_model), **takes)
    ).with_id("Baseline")
    evaluator = GateEvaluator(
        examples=examples,
        example_splits=[contract.TEST_SPLIT],
        model=model,
        baseline_model=baseline.outputs["model"],
        eval_config=eval_config(settings.gate),
    ).with_id("Evaluator")

    infra_validator = InfraValidator(
        model=model,
        model_blessing=evaluator.outputs["blessing"],
        evaluation=evaluator.outputs["evaluation"],
        settings=settings.infra,
        backend=settings.serving.backend,
    )

    pusher = AtomicPusher(
        model=model,
        model_blessing=evaluator.outputs["blessing"],
        infra_blessing=infra_validator.outputs["blessing"],
        push_destination=pusher_pb2.PushDestination(
            filesystem=pusher_pb2.PushDestination.Filesystem(base_directory=str(home.serving_model))
        ),
        custom_config={
            "settings": {
                name: asdict(getattr(settings, name)) for name in ("data", "transform", "train", "gate", "infra")
            },
            "data_sha256": data_sha256,
            "keep_versions": settings.push.keep_versions,
        },
    ).with_id("Pusher")

    return Pipeline(
        pipeline_name=contract.MODEL_NAME,
        pipeline_root=str(home.artifacts),
        components=[
            *(example_gen, statistics, schema, validator, transform, trainer, baseline),
            *(evaluator, infra_validator, pusher),
        ],
        beam_pipeline_args=pipeline_args(settings.beam),
        metadata_connection_config=sqlite_metadata_connection_config(str(home.metadata)) if local else None,
        enable_cache=True,
    )
