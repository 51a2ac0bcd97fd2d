"""The generator's process with vLLM and a tiny model, as it is run in earnest."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

_START_S = 200.0
_END_S = 40.0
MAX_RUNNING = 8


@dataclass
class VllmProcess:
    """A running generator; `target` is its address, `metrics` the URL of its figures."""

    process: subprocess.Popen[bytes]
    log: Path
    target: str = ""
    metrics: str = ""

    def wait_until_serving(self) -> None:
        """Return when it says where it serves."""
        ends_s = time.monotonic() + _START_S
        while time.monotonic() < ends_s and self.process.poll() is None:
            for line in self.log.read_text().splitlines():
                if '"serving on' in line:
                    said = json.loads(line)
                    self.target = f"127.0.0.1:{said['port']}"
                    self.metrics = f"http://127.0.0.1:{said['metrics_port']}/metrics"
                    return
            time.sleep(0.1)
        raise AssertionError(self.log.read_text()[-4000:])

    def engines(self) -> list[psutil.Process]:
        """The processes that vLLM started."""
        return psutil.Process(self.process.pid).children(recursive=True)

    def kill_engine(self) -> None:
        """End vLLM's engine as a crash would."""
        for engine in self.engines():
            if "EngineCore" in " ".join(engine.cmdline()):
                engine.kill()

    def signal_group(self, number: signal.Signals) -> None:
        """Send the signal to the process and to those it started, as a terminal does."""
        os.killpg(self.process.pid, number)

    def wait(self) -> int:
        """The exit code, when it has ended."""
        return self.process.wait(timeout=_END_S)


@contextmanager
def vllm_process(model: Path, folder: Path, **settings: str) -> Iterator[VllmProcess]:
    """The process, serving on a free port, with further settings; at the end nothing of it is left."""
    own = {
        "LISTEN": "127.0.0.1:0",
        "METRICS_LISTEN": "127.0.0.1:0",
        "MODEL": str(model),
        "MODEL_NAME": "tiny",
        "MAX_RUNNING": str(MAX_RUNNING),
        "KV_CACHE_BYTES": str(64 * 1024 * 1024),
        **settings,
    }
    clean = {name: value for name, value in os.environ.items() if not name.startswith("RAGMESH_")}
    environment = clean | {f"RAGMESH_GENERATOR_{name}": value for name, value in own.items()}
    log = folder / "generator.log"
    with log.open("wb") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-m", "generator_svc"],
            env=environment,
            stdout=stderr,
            stderr=stderr,
            start_new_session=True,
        )
    running = VllmProcess(process, log)
    engines: list[psutil.Process] = []
    try:
        running.wait_until_serving()
        engines = running.engines()
        yield running
    finally:
        if process.poll() is None:
            engines += running.engines()
            process.terminate()
            process.wait(timeout=_END_S)
        _, left = psutil.wait_procs(engines, timeout=5)
        for engine in left:
            engine.kill()
    assert not left, "vLLM's processes outlived the generator"
