"""Write the Python stubs and Envoy's descriptor set from the contract: `python protos/generate.py OUT`.

It needs the packages of the extra `gen` (grpcio-tools, mypy-protobuf), no network and no buf.
"""

import re
import shutil
import sys
import tempfile
from pathlib import Path

from grpc_tools import protoc

PROTOS = Path(__file__).resolve().parent
VENDORED = PROTOS / "third_party"

# No published package carries these stubs; google.api and google.rpc come from googleapis-common-protos.
STUBLESS = [VENDORED / "buf/validate/validate.proto", VENDORED / "xds/data/orca/v3/orca_load_report.proto"]

# Envoy turns google.rpc.Status into JSON only with the messages of its details in the descriptor set.
ERROR_DETAILS = VENDORED / "google/rpc/error_details.proto"


def main(out: Path) -> None:
    """Replace the folder `out`; a contract that does not compile leaves it as it was."""
    contract = sorted((PROTOS / "ragmesh").rglob("*.proto"))
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as scratch:
        fresh = Path(scratch) / out.name
        fresh.mkdir()
        _write_stubs(contract, fresh)
        _write_descriptor_set(contract, fresh / "ragmesh.pb")
        shutil.rmtree(out, ignore_errors=True)
        fresh.rename(out)


def _write_stubs(contract: list[Path], out: Path) -> None:
    _protoc([f"--python_out={out}", f"--mypy_out=quiet:{out}"], [*contract, *STUBLESS])
    services = [proto for proto in contract if re.search(r"^service ", proto.read_text(), re.MULTILINE)]
    _protoc([f"--grpc_python_out={out}", f"--mypy_grpc_out=quiet,only_async:{out}"], services)


def _write_descriptor_set(contract: list[Path], target: Path) -> None:
    _protoc([f"--descriptor_set_out={target}", "--include_imports"], [*contract, ERROR_DETAILS])


def _protoc(options: list[str], protos: list[Path]) -> None:
    """Run protoc with its plugins found beside this interpreter, whether or not its venv is activated."""
    plugins = [
        f"--plugin={name}={Path(sys.executable).with_name(name)}"
        for name in ("protoc-gen-mypy", "protoc-gen-mypy_grpc")
    ]
    # The vendored folder comes first, so that what it holds has one name and not `third_party/...` too.
    includes = [f"-I{VENDORED}", f"-I{PROTOS}", f"-I{Path(protoc.__file__).with_name('_proto')}"]
    if status := protoc.main(["protoc", *includes, *plugins, *options, *map(str, protos)]):
        sys.exit(status)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
