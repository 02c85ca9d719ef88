from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.common.errors import InputError, UsageError
from pipeline import settings
from pipeline.settings import Settings
from tests.conftest import ROOT

DEFAULT = ROOT / "configs" / "default.toml"


def test_the_default_config_states_the_defaults() -> None:
    assert settings.load(DEFAULT) == Settings()


@pytest.mark.parametrize("config", sorted((ROOT / "configs").glob("*.toml")), ids=lambda path: path.stem)
def test_every_config_loads_and_states_its_command_and_score(config: Path) -> None:
    settings.load(config)
    head = config.read_text().partition("[")[0]
    assert ("make pipeline" in head or "python -m pipeline" in head) and "expected test accuracy" in head


def test_overrides_win_and_keep_their_types() -> None:
    loaded = settings.load(
        DEFAULT,
        [
            "train.steps=7",
            "train.learning_rate=1",
            "data.source=/a/b",
            "train.hidden_layers=[5]",
            'beam.args=["--x=1"]',
        ],
    )
    assert (loaded.train.steps, loaded.train.learning_rate, loaded.data.source) == (7, 1.0, "/a/b")
    assert loaded.train.hidden_layers == (5,)
    assert loaded.beam.args == ("--x=1",)


def test_an_unknown_key_is_answered_in_a_few_lines() -> None:
    with pytest.raises(UsageError) as error:
        settings.load(DEFAULT, ["gate.min_acuracy=0.5"])
    assert "gate.min_accuracy" in str(error.value) and str(DEFAULT) in str(error.value)
    assert len(str(error.value)) < 200 + len(str(DEFAULT))  # not every setting there is


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("train.step=5", "nearest is 'train.steps'"),
        ("training.steps=5", "nearest is 'train.steps'"),
        ("gate.min_acuracy=0.5", "nearest is 'gate.min_accuracy'"),
        ("train.steps", "expected section.key=value"),
        ("train.steps=many", "must be a whole number"),
        ("train.steps=1.5", "must be a whole number"),
        ("train.steps=true", "must be a whole number"),
        ("train.steps=0", "between 1 and"),
        ("train.hidden_layers=[1,'a']", "must be a whole number"),
        ("train.optimizer=adamm", "adamw, momentum, sgd"),
        ("transform.scaling=none", "unit, symmetric, standard"),
        ("train.augment_shift_pixels=-1", "0 or above"),
        ("train.momentum=1", "below 1"),
        ("train.learning_rate=nan", "above 0"),
        ("gate.min_accuracy=97", "between 0 and 1"),
        ("beam.runner=DirectRunner", "downloads a binary"),
        ("data.source=5", "must be text"),
        ("gate.significance=5", "between 0 and 1"),
        ("data.class_names=a,b", "has 2 names, but data.classes is 10"),
        ("data.class_names=5", "must be a list"),
        ("data.class_names=a,b,c,d,e,f,g,h,i,a", "all different"),
        ("data.class_names=a,b,c,d,e,f,g,,i,j", "not empty"),
        ('data.class_names=["a","b","c","d","e","f","g","h","i","\\n"]', "printable"),
    ],
)
def test_wrong_overrides_say_what_to_do(override: str, says: str) -> None:
    with pytest.raises(UsageError) as caught:
        settings.load(DEFAULT, [override])
    assert says in str(caught.value)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("text", ["T-shirt/top, Ankle boot", '["T-shirt/top", "Ankle boot"]'])
def test_class_names_are_a_list_or_separated_by_commas(text: str) -> None:
    loaded = settings.load(DEFAULT, ["data.classes=2", f"data.class_names={text}"])
    assert loaded.data.class_names == ("T-shirt/top", "Ankle boot")
    assert settings.load(DEFAULT, ["data.class_names="]).data.class_names == ()


@given(st.text(max_size=30))
def test_any_override_is_accepted_or_rejected_with_a_message(override: str) -> None:
    try:
        settings.load(DEFAULT, [override])
    except UsageError as e:
        assert e.problem


def test_broken_or_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.toml"):
        settings.load(tmp_path / "none.toml")
    (tmp_path / "broken.toml").write_text("[train\nsteps = 1")
    with pytest.raises(InputError, match=r"broken\.toml: not valid TOML"):
        settings.load(tmp_path / "broken.toml")
    (tmp_path / "deep.toml").write_text("a = " + "[" * 100_000)
    with pytest.raises(InputError, match=r"deep\.toml: not valid TOML: nested too deeply"):
        settings.load(tmp_path / "deep.toml")
    with pytest.raises(UsageError, match=r"--set train\.steps: nested too deeply"):
        settings.load(DEFAULT, ["train.steps=" + "[" * 100_000])
    (tmp_path / "flat.toml").write_text("steps = 1")
    with pytest.raises(UsageError, match="unknown setting 'steps'"):
        settings.load(tmp_path / "flat.toml")
