"""vLLM's own OpenAI server, what `vllm serve` runs: an upstream for the `openai` engine, a rival for benchmarks."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

_START_S = 220.0
_END_S = 40.0
NAME = "tiny"
# The command `vllm` asks for the version of a package of that name, which the CPU build has not.
_SERVE = (sys.executable, "-m", "vllm.entrypoints.openai.api_server")
_ENVIRONMENT = {
    # On a CPU the model then runs in the engine's process, not in one more.
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_NO_USAGE_STATS": "1",
    "OMP_NUM_THREADS": "1",
    "HF_HUB_OFFLINE": "1",
}
# As the generator's vLLM engine has them on a CPU.
_ARGUMENTS = (
    "--dtype=float32",
    "--enforce-eager",
    "--block-size=32",
    "--no-enable-chunked-prefill",
    "--enable-prompt-tokens-details",
    '--structured-outputs-config={"backend": "xgrammar", "disable_any_whitespace": true}',
)


@dataclass(frozen=True)
class VllmServer:
    """A running server; `url` is what clients are given, `/v1` included."""

    process: subprocess.Popen[bytes]
    url: str

    def running(self) -> int:
        """The requests that the engine works on or holds back, by the server's own metrics."""
        with urllib.request.urlopen(f"{self.url.removesuffix('/v1')}/metrics", timeout=10) as response:
            metrics = response.read().decode()
        counts = re.findall(r"^vllm:num_requests_(?:running|waiting)\{.*\} (\S+)$", metrics, re.MULTILINE)
        return int(sum(map(float, counts)))


@contextmanager
def vllm_server(
    model: Path, folder: Path, max_running: int, kv_cache_bytes: int = 64 * 1024 * 1024, more: Sequence[str] = ()
) -> Iterator[VllmServer]:
    """The server on a free port, ready to answer; its log is in the folder, and at the end nothing of it is left.

    `more` are further arguments of the server, which win.
    """
    port = _free_port()
    arguments = [
        f"--served-model-name={NAME}",
        "--host=127.0.0.1",
        f"--port={port}",
        f"--max-num-seqs={max_running}",
        f"--kv-cache-memory-bytes={kv_cache_bytes}",
        *_ARGUMENTS,
        *more,
    ]
    log = folder / "vllm-serve.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*_SERVE, f"--model={model}", *arguments],
            env=os.environ | _ENVIRONMENT,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    server = VllmServer(process, f"http://127.0.0.1:{port}/v1")
    try:
        _wait_until_serving(server, log)
        yield server
        process.terminate()
        process.wait(timeout=_END_S)
    finally:
        # Its engine has a process of its own, in the same group.
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def _wait_until_serving(server: VllmServer, log: Path) -> None:
    ends_s = time.monotonic() + _START_S
    while time.monotonic() < ends_s and server.process.poll() is None:
        try:
            with urllib.request.urlopen(f"{server.url}/models", timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    raise AssertionError(log.read_text(errors="replace")[-4000:])
