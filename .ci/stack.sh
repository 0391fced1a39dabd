#!/usr/bin/env bash
# deploy/observability and deploy/compose.yaml, by the tools that will read them:
# promtool, Prometheus, an OpenTelemetry Collector, and compose's own library.
#
#   bash .ci/stack.sh [FANFARE]
#
# FANFARE is the binary to run; by default the release build.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# shellcheck source=.ci/lib.sh
source .ci/lib.sh
# Most of its tools are not for here.
# shellcheck source=/dev/null
source .ci/tools.sh
# shellcheck source=.ci/tools_stack.sh
source .ci/tools_stack.sh

observability=deploy/observability
fanfare=${1:-$(release_binary)}

"$fanfare" check --config deploy/compose/fanfare.toml >"$tmp/settings"

project=()
if ! command -v go >/dev/null; then
    # Passes in CI too: not every machine that builds Rust has Go.
    not_run 'compose.yaml, the collector, the stack' 'there is no go to build their tools with'
else
    compose_tool || missing 'compose.yaml' "its reader can't be built"
    if [[ -n $compose_config ]]; then
        "$compose_config" deploy/compose.yaml >"$tmp/project.json"
        project=(--project "$tmp/project.json")
    fi
fi
python3 .ci/stack_static.py "${project[@]}"

prometheus_tool || missing 'rules, and the stack' "Prometheus can't be unpacked"
if [[ -n $promtool ]]; then
    "$promtool" check rules "$observability/rules.yml"
    "$promtool" test rules "$observability/rules_test.yml"
    # With its rules where it looks for them.
    sed "s|/etc/prometheus/rules.yml|$PWD/$observability/rules.yml|" \
        deploy/compose/prometheus.yml >"$tmp/prometheus.yml"
    "$promtool" check config "$tmp/prometheus.yml"
fi

if command -v go >/dev/null; then
    # FULL=1: the collector with everything that the configuration for Kubernetes
    # names. That takes twice as long to build, so else its one processor for
    # Kubernetes is left out of both.
    kubernetes=
    if [[ ${FULL:-} == 1 ]]; then kubernetes=kubernetes; fi
    collector_tool "$kubernetes" || missing 'the collector' "it can't be built"
fi
if [[ -n $otelcol ]]; then
    python3 .ci/stack_static.py --without-kubernetes >"$tmp/without-kubernetes.yaml"
    files=("$tmp/without-kubernetes.yaml" deploy/compose/collector.yaml)
    if [[ -n $kubernetes ]]; then
        files+=("$observability/collector.yaml")
    else
        not_run 'k8s_attributes in collector.yaml' 'FULL=1 builds it, too'
    fi
    for file in "${files[@]}"; do
        TRACES_ENDPOINT=localhost:4317 "$otelcol" validate --config "$file"
        printf '%s: valid\n' "$file"
    done
fi

python_tools || missing 'the stack' "pip can't install grpcurl"
if [[ -n $otelcol && -n $prometheus && -n $compose_config && -n $grpcurl_old ]]; then
    timeout 180 python3 .ci/stack.py --fanfare "$fanfare" --collector "$otelcol" \
        --prometheus "$prometheus" --grpcurl "$grpcurl_old" \
        --production "$tmp/without-kubernetes.yaml" --project "$tmp/project.json"
fi
