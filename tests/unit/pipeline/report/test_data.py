from __future__ import annotations

import numpy as np
from google.protobuf import text_format
from tensorflow_metadata.proto.v0.statistics_pb2 import DatasetFeatureStatisticsList as Statistics

from pipeline.report import data

SPLIT = """
datasets {
  num_examples: 10
  features {
    path { step: "label" } type: INT
    string_stats { rank_histogram { buckets { label: "0" sample_count: 6 } buckets { label: "2" sample_count: 4 } } }
  }
  features { path { step: "image" } type: STRING string_stats { unique: 10 } }
  features {
    path { step: "ink" } type: FLOAT
    num_stats {
      mean: 0.5 min: 0.25 max: 0.75 median: 0.5
      histograms { type: QUANTILES buckets { low_value: 0 high_value: 1 sample_count: 10 } }
      histograms {
        type: STANDARD
        buckets { low_value: 0.25 high_value: 0.5 sample_count: 4 }
        buckets { low_value: 0.5 high_value: 0.75 sample_count: 6 }
      }
    }
  }
}
"""


def statistics() -> dict[str, Statistics]:
    return {split: text_format.Parse(SPLIT, Statistics()) for split in ("train", "test")}


def test_splits_are_compared_by_share_of_each_class_and_density_of_each_feature() -> None:
    classes, ink = data.charts(statistics(), ["zero", "one", "two"])
    assert classes.legend == ("train", "test")
    assert [bar[-1] for bar in classes.bars] == [
        f"{split} {name}: {share}"
        for split in ("train", "test")
        for name, share in (("zero", 60), ("one", 0), ("two", 40))
    ]
    assert [line.name for line in ink.lines] == ["train", "test"]
    assert ink.lines[0].words == "from 1.6 at 0.375 to 2.4 at 0.625"
    assert [(one.name, one.split, one.mean) for one in data.features(statistics())] == [
        ("ink", "train", 0.5),
        ("ink", "test", 0.5),
    ]
    assert data.charts({}, []) == []


def test_each_class_has_samples_even_one_without_images() -> None:
    pixels, labels = np.zeros((20, 28, 28), np.uint8), np.arange(20) % 2
    zero, one, two = data.samples(pixels, labels, ["zero", "one", "two"])
    assert (len(zero.uris), len(one.uris), len(two.uris)) == (data.SAMPLES, data.SAMPLES, 0)
    assert data.samples(None, None, ["zero"]) == []
