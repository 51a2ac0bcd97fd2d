#!/usr/bin/env bash
# Make a virtual environment that holds uv and PyTorch's CPU build; uv installs the rest.
# usage: venv.sh FOLDER, with PYTHON3 naming the interpreter and TORCH_INDEX a package index with PyTorch's CPU builds.
set -euo pipefail

venv=$1
torch=torch==2.13.0+cpu

fail() {
    echo "ragmesh: $1" >&2
    exit 1
}

python3=${PYTHON3:-$(command -v python3.11 || command -v python3)} ||
    fail "no Python found: apt-get install python3.11 python3.11-venv"
"$python3" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' ||
    fail "needs Python 3.11, and $python3 is $("$python3" --version); name another: make PYTHON3=/path/to/python3.11"
"$python3" -c 'import ensurepip' 2>/dev/null ||
    fail "$python3 cannot make virtual environments: apt-get install python3.11-venv"

"$python3" -m venv "$venv"
pip=("$venv/bin/pip" --disable-pip-version-check --quiet install)
"${pip[@]}" --require-hashes --requirement <(sed -n '/^uv==/,/[^\\]$/p' requirements.lock)

# uv does not read pip's own configuration, where a machine may have a CPU build at hand; PyPI has CUDA builds only.
# The dependencies come with the extra that asks for torch, at the versions of the lock.
"${pip[@]}" --no-deps "$torch" 2>/dev/null ||
    "${pip[@]}" --no-deps --index-url "$TORCH_INDEX" "$torch" ||
    fail "found no $torch in pip's sources nor at $TORCH_INDEX: make TORCH_INDEX=... names another index"
