"""The generator's knobs."""

import json
from pathlib import Path

import pytest

from generator_svc.settings import Settings
from meshkit.settings import load


def test_engine_arguments_are_json_or_a_yaml_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both give the same mapping."""
    given = {"max_num_seqs": 4, "compilation_config": {"mode": 0}}
    file = tmp_path / "engine.yaml"
    file.write_text("max_num_seqs: 4\ncompilation_config:\n  mode: 0\n")

    for value in (json.dumps(given), str(file)):
        monkeypatch.setenv("RAGMESH_GENERATOR_ENGINE_ARGS", value)
        assert load(Settings).engine_args == given


@pytest.mark.parametrize("value", ["{broken", "no/such/file.yaml", "[1]"])
def test_wrong_engine_arguments_name_the_variable(
    value: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The process ends with 2 and one line."""
    monkeypatch.setenv("RAGMESH_GENERATOR_ENGINE_ARGS", value)

    with pytest.raises(SystemExit) as caught:
        load(Settings)

    assert caught.value.code == 2
    assert "RAGMESH_GENERATOR_ENGINE_ARGS" in capsys.readouterr().err
