#!/usr/bin/env bash
# deploy/config/fanfare.schema.json against `fanfare check`, by Taplo, which is what
# editors check TOML with. Runs alone, and as a step of the gate. That the files
# there are what the code says, `cargo test` checks.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# shellcheck source=.ci/lib.sh
source .ci/lib.sh

if ! python_packages config .ci/requirements-config.txt; then
    missing 'the schema of the configuration' "pip can't install taplo"
    exit
fi
fanfare=${1:-$(release_binary)}
timeout 300 python3 .ci/config.py --fanfare "$fanfare" --taplo "$packages/bin/taplo"
