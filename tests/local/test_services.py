"""The services as the local mesh runs them."""

from pathlib import Path

import pytest

from deploy.local.errors import StartError
from deploy.local.services import program
from deploy.local.settings import LocalSettings

SETTINGS = LocalSettings()


def index_uri(data: Path) -> str:
    """Where the retriever is told to keep its chunks."""
    return program("retriever", SETTINGS, SETTINGS.ports, data).environment["RAGMESH_RETRIEVER_INDEX_URI"]


def test_chunks_of_an_earlier_version_are_not_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The mesh does not start beside them; it says what moves them, and starts when that is done or not wanted."""
    assert index_uri(tmp_path) == f"lance:{tmp_path}/index"
    (tmp_path / "milvus.db").mkdir()
    with pytest.raises(StartError, match=r"retriever_svc\.move --from milvus:.*/milvus\.db --to lance:.*/index"):
        index_uri(tmp_path)
    monkeypatch.setenv("RAGMESH_RETRIEVER_INDEX_URI", f"milvus:{tmp_path}/milvus.db")
    assert index_uri(tmp_path) == f"milvus:{tmp_path}/milvus.db"
    monkeypatch.delenv("RAGMESH_RETRIEVER_INDEX_URI")
    (tmp_path / "index").mkdir()
    assert index_uri(tmp_path) == f"lance:{tmp_path}/index"
