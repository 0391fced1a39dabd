#!/usr/bin/env bash
# Lints the contract with buf (first argument) in an empty folder (second
# argument), and checks its format. The files of google.rpc come out of the
# tonic-types crate, as in build.rs: nothing is vendored.
set -euo pipefail
buf=$1
work=$2

# StreamExecuteTools takes the request of ExecuteTools on purpose: the same
# batch, answered in another way. Two equal messages would drift apart.
accepted=(
    '"fanfare.v1.ExecuteToolsRequest" is used as the request or response type for multiple RPCs.'
    'RPC request type "ExecuteToolsRequest" should be named "StreamExecuteToolsRequest" or'
)

crate=$(cargo metadata --locked --format-version 1 | python3 -c '
import json, sys
packages = json.load(sys.stdin)["packages"]
print(*{p["manifest_path"] for p in packages if p["name"] == "tonic-types"}, sep="\n")
')
mkdir -p "$work/google/google/rpc"
cp -r proto .ci/buf.yaml "$work"
cp "$(dirname "$crate")"/proto/*.proto "$work/google/google/rpc"

# In the folder, so that messages name the files as they are in the repository.
cd "$work"
"$buf" format --diff --exit-code proto

status=0
"$buf" lint proto >found || status=$?
# 100: it has found something, all of which is in the file.
if [[ $status != 0 && $status != 100 ]]; then
    exit "$status"
fi
printf '%s\n' "${accepted[@]}" >accepted
if grep -vFf accepted found; then
    exit 1
fi
for message in "${accepted[@]}"; do
    if ! grep -qF "$message" found; then
        printf 'accepted, but not found any more: %s\n' "$message" >&2
        exit 1
    fi
done
