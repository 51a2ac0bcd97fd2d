"""Settings from the environment."""

import pytest
from pydantic import Field, SecretStr
from pydantic_settings import SettingsConfigDict

from meshkit.settings import ChannelSettings, ServerSettings, load


class Settings(ServerSettings):
    """A service's settings: its own knobs, a secret and a channel."""

    model_config = SettingsConfigDict(env_prefix="RAGMESH_PROBE_")

    max_batch_tokens: int = Field(100, ge=1)
    token: SecretStr = Field(SecretStr(""), min_length=0, max_length=8)
    retriever: ChannelSettings = ChannelSettings()


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        ("RAGMESH_PROBE_MAX_BATCH_TOKENS", "0", "greater than or equal to 1"),
        ("RAGMESH_PROBE_MAX_DEADLINE_S", "-1", "greater than 0"),
        ("RAGMESH_PROBE_MAX_MESSAGE_BYTES", "many", "integer"),
        ("RAGMESH_PROBE_RETRIEVER__DEFAULT_DEADLINE_S", "soon", "number"),
        ("RAGMESH_PROBE_RETRIEVER__TYPO", "1", "permitted"),
        ("RAGMESH_PROBE_TYPO", "1", "no such setting"),
        ("RAGMESH_PROBE_TOKEN", "longer-than-eight", "at most 8"),
    ],
)
def test_bad_value(
    variable: str, value: str, words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A bad value ends the process with 2 and one line that names the variable and not its value."""
    monkeypatch.setenv(variable, value)
    with pytest.raises(SystemExit) as caught:
        load(Settings)
    (line,) = capsys.readouterr().err.splitlines()
    assert caught.value.code == 2
    assert line.startswith(f"{variable}: ")
    assert words in line
    assert "longer-than-eight" not in line


def test_not_json(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A whole channel given as something that is not JSON is named, too."""
    monkeypatch.setenv("RAGMESH_PROBE_RETRIEVER", "not json")
    with pytest.raises(SystemExit):
        load(Settings)
    assert "retriever" in capsys.readouterr().err


def test_good_values(monkeypatch: pytest.MonkeyPatch) -> None:
    """Values are read with their types, nested ones too; another service's variables are not our business."""
    monkeypatch.setenv("RAGMESH_PROBE_MAX_BATCH_TOKENS", "7")
    monkeypatch.setenv("RAGMESH_PROBE_RETRIEVER__DEFAULT_DEADLINE_S", "2.5")
    monkeypatch.setenv("RAGMESH_OTHER_THING", "1")
    settings = load(Settings)
    assert settings.max_batch_tokens == 7
    assert settings.retriever.default_deadline_s == 2.5


@pytest.mark.parametrize("settings", [ServerSettings, ChannelSettings, Settings])
def test_descriptions(settings: type[ServerSettings]) -> None:
    """Every knob of meshkit's says what it is; a number's name or description gives the unit."""
    for name, field in settings.model_fields.items():
        if name not in {"max_batch_tokens", "token", "retriever"}:
            assert field.description, name


def test_process_name() -> None:
    """A process is named for the package of its settings."""
    assert ServerSettings().process == "meshkit"
