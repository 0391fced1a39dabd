#!/usr/bin/env bash
# Tries the program (first argument, or the release build) with tool services and callers
# in other languages: `peers.py` says how. More arguments: the scenarios to run, as
# `NAME` or `NAME:PEER`, or `--full` for as many calls as they were once shown with.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# shellcheck source=.ci/lib.sh
source .ci/lib.sh
# shellcheck source=.ci/tools.sh
source .ci/tools.sh
# shellcheck source=.ci/tools_peers.sh
source .ci/tools_peers.sh

# have PEER PROGRAM...: whether the machine can build and run it. Says so if not, and
# passes in CI too: not every machine that builds Rust has all languages.
have() {
    local program
    for program in "${@:2}"; do
        if ! command -v "$program" >/dev/null; then
            not_run "the peers in $1" "there is no $program"
            return 1
        fi
    done
}

fanfare=${1:-$(release_binary)}
if ! python_peer || ! python_tools; then
    missing 'peers in other languages' "pip can't install grpcio or Envoy"
    exit
fi
python_clients || die 'the programs of tests/clients in Python do not compile'
if have Go go; then go_peer || missing 'the peers in Go' "go can't build them"; fi
if have Java java javac mvn; then java_peer || missing 'the peers in Java' "Maven can't install them"; fi
if have Node node npm; then node_peer || missing 'the peers in Node' "npm can't install them"; fi

PYTHONPATH=$peers_python:proto PYTHONDONTWRITEBYTECODE=1 python3 .ci/peers.py \
    --fanfare "$fanfare" --envoy "$envoy" --grpcurl "$grpcurl_old" \
    --go "$peers_go" --java "$peers_java" --node "$peers_node" --clients-python "$clients_python" \
    --clients-go "$clients_go" --clients-node "$clients_node" "${@:2}"
