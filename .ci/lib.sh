# shellcheck shell=bash
# What the gate's scripts share: where tools and temporary files are, the binary,
# installing, and what happens when a check can't be run; and the steps of `run`:
# headlines, durations, the summary. Sourced in the checkout's folder.

exec </dev/null
cache=${XDG_CACHE_HOME:-$HOME/.cache}/fanfare-ci
new=$cache/new.$$
mkdir -p "$cache"
tmp=$(mktemp -d)
trap 'rm -rf "$tmp" "$new"' EXIT
PATH=$PATH:$HOME/.cargo/bin:/usr/local/go/bin

# Says where the release build's binary is, made anew.
release_binary() {
    cargo build --quiet --release --locked >&2 &&
        cargo metadata --locked --no-deps --format-version 1 | python3 -c '
import json, sys; print(json.load(sys.stdin)["target_directory"] + "/release/fanfare")'
}

# install_into DIR INSTALLER: DIR is there completely or not at all.
install_into() {
    local start=$SECONDS
    rm -rf "$new"
    mkdir "$new" && "$2" "$new" || return 1
    # Another run may have been faster.
    mv -T "$new" "$1" 2>/dev/null || true
    printf 'installed %s in %d s\n' "$1" $((SECONDS - start))
}

# python_packages NAME REQUIREMENTS: gives `packages`, a folder with those.
packages='' requirements=''
python_packages() {
    local sum
    sum=$(sha256sum <"$2") || return 1
    packages=$cache/$1-${sum:0:12}
    if [[ ! -d $packages ]]; then
        requirements=$2 install_into "$packages" pip_install
    fi
}

pip_install() {
    if ! python3 -m pip --version >/dev/null 2>&1; then
        apt_install python3-pip || return 1
    fi
    PIP_ROOT_USER_ACTION=ignore python3 -m pip install --quiet --disable-pip-version-check \
        --no-deps --require-hashes --target "$1" --requirement "$requirements"
}

apt_install() {
    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y "$@"
}

step_name=
step_start=0
gate_start=$SECONDS
summary=()
passed=

# step NAME: ends the step before it and begins this one.
step() {
    end_step
    step_name=$1
    step_start=$SECONDS
    printf '\n==> %s\n' "$step_name"
}

end_step() {
    if [[ -n $step_name ]]; then
        note "ok       $((SECONDS - step_start)) s" "$step_name"
        printf '==> ok: %s (%d s)\n' "$step_name" $((SECONDS - step_start))
    fi
    step_name=
}

note() {
    summary+=("$(printf '%-16s %s' "$1" "$2")")
}

# if_changed NAME PATHS COMMAND...: runs a slow check whose outcome hangs on these files,
# unless `.ci/passed` says that it passed whole with exactly these; FULL=1 runs it anyway.
# Whoever changes the files runs it with FULL=1 and commits the line that it leaves there.
if_changed() {
    local name=$1 sum notes
    # shellcheck disable=SC2086  # several paths
    sum=$(git ls-files -z -- $2 | LC_ALL=C sort -z | xargs -0 sha256sum | sha256sum) || return 1
    sum=${sum:0:32}
    if [[ ${FULL:-} != 1 ]] && grep -qxF "$name $sum" .ci/passed; then
        not_run "$name" 'it passed with the same files before: FULL=1 runs it again'
        return
    fi
    notes=$(cat "$FANFARE_CI_NOTES")
    "${@:3}" || return 1
    # A part that was not run has not passed.
    if [[ $(cat "$FANFARE_CI_NOTES") == "$notes" ]]; then
        sed -i "/^$name /d" .ci/passed
        printf '%s %s\n' "$name" "$sum" >>.ci/passed
        sort -o .ci/passed .ci/passed
    fi
}

# not_run WHAT WHY: says that a check was left out; the gate goes on, and says so again
# at its end, also of the scripts that it starts.
not_run() {
    printf 'NOT RUN: %s: %s\n' "$1" "$2" | tee -a "${FANFARE_CI_NOTES:-/dev/null}"
}

# missing WHAT WHY: a tool can't be had. In CI that is a failure.
missing() {
    if [[ ${CI:-} == true ]]; then
        die "$1: $2"
    fi
    not_run "$1" "$2"
}

die() {
    printf 'error: %s\n' "$1" >&2
    exit 1
}

# The trap on EXIT: the summary, and which step failed. A signal may come with
# exit code 0, so passing has to be said.
report() {
    [[ -z $step_name ]] || note "FAILED   $((SECONDS - step_start)) s" "$step_name"
    printf '\n'
    printf '%s\n' "${summary[@]}"
    [[ ! -f ${FANFARE_CI_NOTES:-} ]] || cat "$FANFARE_CI_NOTES"
    if [[ -n $passed ]]; then
        printf '\nThe gate passed in %d s.\n' $((SECONDS - gate_start))
    else
        printf '\nThe gate FAILED after %d s: %s\n' $((SECONDS - gate_start)) \
            "${step_name:-set-up}" >&2
    fi
}
