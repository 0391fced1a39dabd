# shellcheck shell=bash
# What the gate's scripts share: where tools and temporary files are, installing, the
# binary, and what happens when a check can't be run. Sourced in the checkout's folder.

exec </dev/null
cache=${XDG_CACHE_HOME:-$HOME/.cache}/fanfare-ci
mkdir -p "$cache"
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
PATH=$PATH:$HOME/.cargo/bin:/usr/local/go/bin

# Says where the release build's binary is, made anew.
release_binary() {
    cargo build --quiet --release --locked >&2 &&
        cargo metadata --locked --no-deps --format-version 1 | python3 -c '
import json, sys; print(json.load(sys.stdin)["target_directory"] + "/release/fanfare")'
}

# install_into DIR COMMAND...: has DIR made by `COMMAND... FOLDER` if it is not there: it is
# there completely or not at all.
install_into() {
    local dir=$1 start=$SECONDS new
    shift
    [[ ! -d $dir ]] || return 0
    new=$(mktemp -d "$dir.XXXXXX")
    if ! "$@" "$new" >"$new.log" 2>&1; then
        cat "$new.log" >&2
        rm -rf "$new" "$new.log"
        return 1
    fi
    rm "$new.log"
    # Another run may have been faster.
    mv -T "$new" "$dir" 2>/dev/null || rm -rf "$new"
    printf 'installed %s in %d s\n' "$dir" $((SECONDS - start))
}

# sum_of FILE...: twelve digits that change with what is in them.
sum_of() {
    cat "$@" | sha256sum | head -c 12
}

apt_install() {
    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "$@"
}

# not_run WHAT WHY: says that a check was left out; the gate goes on, and says so again
# at its end, also of the scripts that it starts.
not_run() {
    printf 'NOT RUN: %s: %s\n' "$1" "$2" | tee -a "${FANFARE_CI_NOTES:-/dev/null}"
}

# missing WHAT WHY: a tool can't be had. In CI that is a failure.
missing() {
    [[ ${CI:-} != true ]] || die "$1: $2"
    not_run "$1" "$2"
}

die() {
    printf 'error: %s\n' "$1" >&2
    exit 1
}
