#!/usr/bin/env bash
# Lints the contract with buf (first argument) in an empty folder (second
# argument), and checks its format; not that of google.rpc, which is not ours.
set -euo pipefail
buf=$1
work=$2

# StreamExecuteTools takes the request of ExecuteTools on purpose: the same
# batch, answered in another way. Two equal messages would drift apart.
accepted=(
    '"fanfare.v1.ExecuteToolsRequest" is used as the request or response type for multiple RPCs.'
    'RPC request type "ExecuteToolsRequest" should be named "StreamExecuteToolsRequest" or'
)

mkdir -p "$work"
cp -r proto .ci/buf.yaml "$work"

# In the folder, so that messages name the files as they are in the repository.
cd "$work"
"$buf" format --diff --exit-code --exclude-path proto/google proto

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
