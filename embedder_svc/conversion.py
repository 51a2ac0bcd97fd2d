"""Converting models to ONNX: once each, in a process of its own, kept in a folder for every later start."""

import fcntl
import hashlib
import json
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from embedder_svc import converted, weights
from embedder_svc.encoding import LoadError

logger = logging.getLogger(__name__)

Kind = Literal["encoder", "reranker"]

# Raised whenever the same model would be converted to something else.
_VERSION = 2
_TIMEOUT_S = 3600.0
_KEY_DIGITS = 16


def convert(kind: Kind, model: Path, cache: Path) -> Path:
    """The folder of the converted model: the one in the cache, else made now.

    Several processes may ask for one at once: the first converts, the others wait for it. What is found damaged
    is made again. Raises LoadError where the model cannot be converted.
    """
    if converted.is_converted(model):
        return model
    try:
        cache.mkdir(parents=True, exist_ok=True)
        folder = cache / _name(kind, model)
        with _locked(folder.with_suffix(".lock")):
            if not _is_whole(folder):
                _make(kind, model, folder)
    except OSError as error:
        raise LoadError(f"{model.name}: cannot be converted in {cache}: {error}") from error
    return folder


def _name(kind: Kind, model: Path) -> str:
    """Tells apart whatever makes another graph: weights, configuration, and how we convert."""
    configuration = converted.digest(path for path in sorted(model.rglob("*.json")) if path.is_file())
    key = f"{_VERSION} {kind} {weights.revision(model)} {configuration}"
    return hashlib.sha256(key.encode()).hexdigest()[:_KEY_DIGITS]


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Alone among processes; a process that dies lets go."""
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _is_whole(folder: Path) -> bool:
    if not folder.exists():
        return False
    try:
        converted.read(folder)
    except converted.Corrupt as error:
        logger.warning("a converted model is damaged and made again: %s", error)
        return False
    return True


def _make(kind: Kind, model: Path, folder: Path) -> None:
    """Convert beside the folder and put it in place whole; what an earlier attempt left is swept away."""
    partial = folder.with_suffix(".partial")
    for path in (partial, folder):
        shutil.rmtree(path, ignore_errors=True)
    partial.mkdir()
    logger.info("converting %s to ONNX, once", model.name)
    try:
        _run(kind, model, partial)
        partial.replace(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _run(kind: Kind, model: Path, folder: Path) -> None:
    """In a process of its own, whose gigabyte of torch goes with it."""
    order = json.dumps({"kind": kind, "model": str(model), "folder": str(folder)})
    command = [sys.executable, "-m", "embedder_svc.exporting", order]
    environment = {**os.environ, "TQDM_DISABLE": "1"}
    try:
        done = subprocess.run(  # noqa: S603 - arguments of our own
            command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False, env=environment
        )
    except subprocess.TimeoutExpired as error:
        raise LoadError(f"{model.name}: not converted within {_TIMEOUT_S:.0f} s") from error
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        raise LoadError(f"{model.name}: cannot be converted to ONNX: {last}")
