"""The generator's knobs."""

from pathlib import Path

import pytest

from generator_svc.settings import Settings
from meshkit.settings import load

MODEL_FILE = """\
model: acme/small
served_model_name: small
max_num_seqs: 4
max_model_len: 2048
dtype: bfloat16
lora_adapters:
  legal: adapters/legal
gpu_memory_utilization: 0.5
compilation_config: {mode: 0}
"""


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model's file, which the environment names."""
    file = tmp_path / "small.yaml"
    file.write_text(MODEL_FILE)
    monkeypatch.setenv("RAGMESH_GENERATOR_MODEL", str(file))
    return file


def test_a_models_file_is_settings_and_engine_arguments(file: Path) -> None:
    """Under vLLM's names: those that the service needs too are its settings, the rest is for vLLM alone."""
    settings = load(Settings)

    assert (settings.model, settings.model_name, settings.dtype) == ("acme/small", "small", "bfloat16")
    assert (settings.max_running, settings.max_model_tokens) == (4, 2048)
    assert settings.lora_adapters == {"legal": "adapters/legal"}
    assert settings.engine_args == {"gpu_memory_utilization": 0.5, "compilation_config": {"mode": 0}}


def test_a_variable_wins_over_the_models_file(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is set; an engine argument wins for itself only."""
    monkeypatch.setenv("RAGMESH_GENERATOR_MAX_RUNNING", "8")
    monkeypatch.setenv("RAGMESH_GENERATOR_ENGINE_ARGS", '{"gpu_memory_utilization": 0.9}')

    settings = load(Settings)

    assert (settings.model, settings.max_running, settings.max_model_tokens) == ("acme/small", 8, 2048)
    assert settings.engine_args == {"gpu_memory_utilization": 0.9, "compilation_config": {"mode": 0}}


@pytest.mark.parametrize(
    ("text", "problem"),
    [("{broken", "cannot be read"), ("- a\n- list", "names no model"), ("max_num_seqs: 4", "names no model")],
)
def test_a_wrong_models_file_is_named(text: str, problem: str, file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The process ends with 2 and says which variable, which file and what is wrong with it."""
    file.write_text(text)

    assert_refused(capsys, "RAGMESH_GENERATOR_MODEL", str(file), problem)


def test_a_models_file_that_is_not_there_is_named(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As one that is wrong."""
    file.unlink()

    assert_refused(capsys, "RAGMESH_GENERATOR_MODEL", str(file), "cannot be read")


def test_a_wrong_value_in_a_models_file_is_named(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By the setting that it would be."""
    file.write_text("model: acme/small\nmax_num_seqs: many\n")

    assert_refused(capsys, "RAGMESH_GENERATOR_MAX_RUNNING")


def test_tenants_shares_are_an_object_of_positive_numbers(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As JSON; one of 0 would never have its turn."""
    monkeypatch.setenv("RAGMESH_GENERATOR_TENANT_SHARES", '{"acme": 3, "rivals": 0.5}')
    assert load(Settings).tenant_shares == {"acme": 3.0, "rivals": 0.5}

    monkeypatch.setenv("RAGMESH_GENERATOR_TENANT_SHARES", '{"acme": 0}')
    assert_refused(capsys, "RAGMESH_GENERATOR_TENANT_SHARES")


def assert_refused(capsys: pytest.CaptureFixture[str], *words: str) -> None:
    """Loading ends the process with 2 and one line with all of these words."""
    with pytest.raises(SystemExit) as caught:
        load(Settings)

    assert caught.value.code == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    for word in words:
        assert word in line


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("UPSTREAM_URL", "ftp://host/v1"),
        ("UPSTREAM_URL", "http://user:password@host/v1"),
        ("UPSTREAM_URL", "http://host:port/v1"),
        ("UPSTREAM_API_KEY", "sk-secret\n"),
        ("UPSTREAM_API", "other"),
    ],
)
def test_a_wrong_upstream_names_its_variable_and_not_its_value(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A key with a line end among them, as it is read from a file."""
    monkeypatch.setenv(f"RAGMESH_GENERATOR_{name}", value)

    with pytest.raises(SystemExit):
        load(Settings)

    said = capsys.readouterr().err
    assert f"RAGMESH_GENERATOR_{name}" in said
    assert value not in said


def test_a_model_and_an_upstream_exclude_each_other(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Either alone is fine."""
    monkeypatch.setenv("RAGMESH_GENERATOR_UPSTREAM_URL", "https://host/v1")
    assert load(Settings).upstream_url == "https://host/v1"

    monkeypatch.setenv("RAGMESH_GENERATOR_MODEL", "tiny")
    with pytest.raises(SystemExit):
        load(Settings)
    assert "RAGMESH_GENERATOR_UPSTREAM_URL: Value error, excludes RAGMESH_GENERATOR_MODEL" in capsys.readouterr().err
