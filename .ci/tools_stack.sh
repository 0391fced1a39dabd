# shellcheck shell=bash
# The tools of `stack.sh`: like those of `tools.sh`, which is sourced before it.

# Where the tools are; empty if they are not there.
otelcol='' compose_config='' prometheus=''

# Gives `otelcol`, built from the modules of the released one; and, if asked for with
# `kubernetes`, with the processor that needs Kubernetes' client.
collector_tool() {
    local dir
    dir=$cache/collector${1:+-$1}-$(source_sum .ci/collector) || return 1
    if [[ ! -d $dir ]]; then
        go_tags=${1:-} install_into "$dir" build_collector || return 1
    fi
    otelcol=$dir/collector
}

# Gives `compose_config`, which prints a compose file as docker compose understands it.
compose_tool() {
    local dir
    dir=$cache/compose-config-$(source_sum .ci/compose) || return 1
    if [[ ! -d $dir ]]; then
        install_into "$dir" build_compose_config || return 1
    fi
    compose_config=$dir/compose
}

# Gives `promtool` and `prometheus`, which come in one package.
prometheus_tool() {
    promtool_tool || return 1
    prometheus=${promtool%/*}/prometheus
    [[ -x $prometheus ]]
}

source_sum() {
    local sum
    sum=$(cat "$1"/* | sha256sum) && printf '%s' "${sum:0:12}"
}

build_collector() {
    build_go .ci/collector "$1"
}

build_compose_config() {
    build_go .ci/compose "$1"
}

# build_go FOLDER OUT: what go.mod and go.sum say, and nothing newer.
build_go() {
    CGO_ENABLED=0 GOFLAGS=-mod=readonly \
        go build -C "$1" -tags "${go_tags:-}" -trimpath -ldflags='-s -w' -o "$2/" .
}
