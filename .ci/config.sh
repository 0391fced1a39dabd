#!/usr/bin/env bash
# deploy/config/fanfare.schema.json against `fanfare check`, by Taplo, which is what
# editors check TOML with. Runs alone, and as a step of the gate. That the files
# there are what the code says, `cargo test` checks.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# shellcheck source=.ci/lib.sh
source .ci/lib.sh
# Not followed: most of its variables are for others.
# shellcheck source=/dev/null
source .ci/tools.sh

cache=${XDG_CACHE_HOME:-$HOME/.cache}/fanfare-ci
new=$cache/new.$$
mkdir -p "$cache"
trap 'rm -rf "$new"' EXIT
PATH=$PATH:$HOME/.cargo/bin

pip_install_taplo() {
    if ! python3 -m pip --version >/dev/null 2>&1; then
        apt_install python3-pip || return 1
    fi
    PIP_ROOT_USER_ACTION=ignore python3 -m pip install --quiet --disable-pip-version-check \
        --no-deps --require-hashes --target "$1" --requirement .ci/requirements-config.txt
}

sum=$(sha256sum <.ci/requirements-config.txt)
dir=$cache/config-${sum:0:12}
if [[ ! -d $dir ]] && ! install_into "$dir" pip_install_taplo; then
    missing 'the schema of the configuration' "pip can't install taplo"
    exit
fi
cargo build --quiet --release --locked
target=$(cargo metadata --locked --no-deps --format-version 1 |
    python3 -c 'import json, sys; print(json.load(sys.stdin)["target_directory"])')
timeout 300 python3 .ci/config.py --fanfare "$target/release/fanfare" --taplo "$dir/bin/taplo"
