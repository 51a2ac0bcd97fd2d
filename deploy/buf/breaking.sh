#!/usr/bin/env bash
# Fail where the contract breaks callers that were built against COMMIT.
# usage: breaking.sh COMMIT, with BUF naming the program
set -euo pipefail

commit=$1
if ! git cat-file -e "$commit^{commit}" 2>/dev/null; then
    echo "buf breaking: this clone's history does not reach back to $commit; nothing to compare with"
    exit 0
fi

published=build/published-contract
rm -rf "$published"
mkdir -p "$published"
git archive "$commit" buf.yaml protos | tar -x -C "$published"
"$BUF" breaking --against "$published"
