#!/usr/bin/env bash
# deploy/observability and deploy/compose.yaml, by the tools that will read them: promtool,
# Prometheus, an OpenTelemetry Collector, and compose's own library. The first argument is the
# binary to run; by default the release build.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# shellcheck source=.ci/lib.sh
source .ci/lib.sh
# shellcheck source=.ci/tools.sh
source .ci/tools.sh

observability=deploy/observability
build_stack_tools() {
    # shellcheck disable=SC2046  # one argument each
    mkdir "$1/collector" "$1/compose" && cp .ci/stack/compose.go "$1/compose" && cp .ci/stack/collector.yaml "$1/collector" &&
        go_get "$1" -tool go.opentelemetry.io/collector/cmd/builder@v0.160.0 github.com/compose-spec/compose-go/v2/cli@v2.14.0 &&
        go_build "$1" tool ./compose && pinned 3f6cc8c9282dbdb6 "$1/bin/builder" "$1/bin/compose" &&
        # Modules are not got by the builder: its `go mod tidy` wants those of others' tests, too.
        name=collector go_get "$1/collector" go.opentelemetry.io/collector/otelcol@v0.160.0 \
            $(sed -n 's/.*gomod: \(\S*\) \(v[0-9.]*\).*/\1@\2/p' .ci/stack/collector.yaml) &&
        (cd "$1/collector" && ../bin/builder --config collector.yaml --skip-get-modules --skip-compilation && go get .) &&
        go_build "$1/collector" . && pinned 41b6403787df9567 "$1/collector/bin/collector"
}
stack_tools=$cache/stack-$(sum_of .ci/stack/c* <(declare -f build_stack_tools))

FANFARE=${1:-$(release_binary)}
"$FANFARE" check --config deploy/compose/fanfare.toml >/dev/null
python_tools || die "pip can't install the tools"
prometheus_tool || die "apt can't unpack Prometheus"
promtool check rules $observability/rules.yml
promtool test rules $observability/rules_test.yml
# With its rules where it looks for them.
sed "s|/etc/prometheus/rules.yml|$PWD/$observability/rules.yml|" deploy/compose/prometheus.yml >"$tmp/prometheus.yml"
promtool check config "$tmp/prometheus.yml"
python3 .ci/stack/static.py

if ! command -v go >/dev/null; then
    # Passes in CI too: not every machine that builds Rust has Go.
    not_run 'compose.yaml, the collector, the stack' 'there is no go to build their tools with'
    exit
fi
install_into "$stack_tools" build_stack_tools || die "go can't build the collector and compose's reader"
"$stack_tools/bin/compose" deploy/compose.yaml >"$tmp/project.json"
for file in deploy/compose/collector.yaml $observability/collector.yaml; do
    TRACES_ENDPOINT=localhost:4317 "$stack_tools/collector/bin/collector" validate --config "$file"
    printf '%s: valid\n' "$file"
done
timeout 180 python3 .ci/stack/stack.py "$stack_tools/collector/bin/collector" "$tmp/project.json"
