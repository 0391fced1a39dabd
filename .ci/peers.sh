#!/usr/bin/env bash
# Tries the program (first argument, or the release build) with programs of others:
# `peers.py` says how. More arguments: which scenarios, and `--full`. `--tools` only
# installs what they need.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# shellcheck source=.ci/lib.sh
source .ci/lib.sh
# shellcheck source=.ci/tools.sh
source .ci/tools.sh

# peer LANGUAGE PROGRAM...: has it built; or `services`, those whose methods are tools. Says so if the machine has not the programs, and
# passes in CI too: not every machine that builds Rust has all languages.
peer() {
    local program
    for program in "${@:2}"; do
        if ! command -v "$program" >/dev/null; then
            not_run "the peers in $1" "there is no $program"
            return
        fi
    done
    "$1_peer" || missing "the peers in $1" "they can't be built"
}

python_tools || die "pip can't install the tools"
provider_types || missing "the types of the providers' libraries" "pip can't install them"
prometheus_tool || die "apt can't unpack Prometheus"
peer python python3
peer go go
peer services go
peer java java javac mvn
peer node node npm
[[ ${1:-} != --tools ]] || exit 0
FANFARE=${1:-$(release_binary)}
python3 .ci/peers.py "${@:2}"
