#!/usr/bin/env bash
# Renders deploy/kubernetes and the Helm chart with the real tools, and checks what comes
# out: schemas, policies, whether the objects fit together and fit the program (first
# argument, or the release build). `--render DIR`: only renders, into DIR.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# shellcheck source=.ci/lib.sh
source .ci/lib.sh
# shellcheck source=.ci/tools_kubernetes.sh
source .ci/tools_kubernetes.sh

chart=deploy/helm/fanfare
# Helm keeps nothing outside of it.
export HELM_CACHE_HOME=$tmp/helm HELM_CONFIG_HOME=$tmp/helm HELM_DATA_HOME=$tmp/helm

render() {
    local file name
    while read -r file; do
        name=$(basename "$(dirname "$file")")
        # A component is rendered where it is used.
        if grep -q '^kind: Component$' "$file"; then
            continue
        fi
        "$kubectl" kustomize "$(dirname "$file")" >"$1/$name.yaml"
    done < <(find deploy -name kustomization.yaml)
    template >"$1/chart.yaml"
    template --values $chart/ci/production-values.yaml >"$1/chart-production.yaml"
    template --values $chart/ci/minimal-values.yaml --name-template tools >"$1/chart-minimal.yaml"
}

# Kubernetes' version, of which the chart may ask; the tool takes its own.
template() {
    "$helm" template $chart --name-template fanfare --namespace fanfare \
        --kube-version "v$KUBERNETES" "$@"
}

# refused SENTENCE ARGUMENTS...: Helm must refuse the values, and say why.
refused() {
    local sentence=$1
    shift
    if template "$@" >"$tmp/refused" 2>&1; then
        die "the chart takes $*"
    fi
    grep -qF -- "$sentence" "$tmp/refused" || die "$*: no '$sentence' in: $(<"$tmp/refused")"
}

# policies FILE...: kube-score finds nothing but what kubernetes-score.txt gives reasons for.
policies() {
    local file
    for file in "$@"; do
        # It says by its exit code that it has found something.
        "$kube_score" score --output-format json --kubernetes-version "v${KUBERNETES%.*}" \
            --ignore-container-cpu-limit --enable-optional-test container-ports-check \
            --enable-optional-test container-seccomp-profile "$file" >"$file.score" || true
    done
    python3 .ci/kubernetes_score.py .ci/kubernetes-score.txt "${@/%/.score}"
}

if ! command -v go >/dev/null; then
    # Passes in CI too: not every machine that builds Rust has Go.
    not_run 'kubectl, helm, kube-score' 'there is no go to build them with'
    exit
fi
kubernetes_tools || die "go can't build kubectl, helm and kube-score"
if [[ ${1:-} == --render ]]; then
    render "$2"
    exit
fi
kubernetes_python || die "pip can't install kubernetes-validate"
fanfare=${1:-$(release_binary)}

printf 'kustomize and helm template\n'
mkdir "$tmp/rendered"
render "$tmp/rendered"

printf 'helm lint\n'
"$helm" lint --strict --quiet $chart
for values in "$chart"/ci/*.yaml; do
    "$helm" lint --strict --quiet --values "$values" $chart
done
refused "replicas" --set replicas=-1
refused "additional properties 'replica' not allowed" --set replica=3
refused "/image/pullPolicy" --set image.pullPolicy=Sometimes
refused "/image/digest" --set image.digest=sha256:0
refused "/config" --set config=
refused "/mounts/0" --set 'mounts[0].name=tls,mounts[0].mountPath=/tls'
refused "/autoscaling/minReplicas" --set autoscaling.minReplicas=0
refused "autoscaling.maxReplicas: must be at least minReplicas" --set autoscaling.maxReplicas=1
refused "/serviceMonitor/interval" --set serviceMonitor.interval=often
refused "/networkPolicy/callers/0" --set 'networkPolicy.callers[0].namespace=agents'
printf '[services.a]\nendpoint = "http://a:1"\n' >"$tmp/loopback.toml"
refused 'server.listen is "127.0.0.1:50051" by default: the' --set-file config="$tmp/loopback.toml"
refused 'config: server.admin_listen is "off": the' --set-string \
    config='server = { listen = "0.0.0.0:50051"\, admin_listen = "off" }'
refused 'config: server.listen is "[::]:50052": the' --set-string \
    config='server = { listen = "[::]:50052"\, admin_listen = "[::]:9464" }'
refused "config: is no TOML" --set-string config='server = ['

printf 'values that are null, and names that look like something else\n'
# What is null is as if it were left out, section by section and value by value.
sections='env workerThreads replicas terminationGracePeriodSeconds image.pullPolicy autoscaling
    podDisruptionBudget service serviceAccount networkPolicy serviceMonitor topologySpread'
inner='autoscaling.minReplicas autoscaling.maxReplicas podDisruptionBudget.maxUnavailable
    service.type networkPolicy.enabled topologySpread.node'
for value in $sections $inner; do
    template --set "$value=null" >"$tmp/null.yaml"
    cmp "$tmp/rendered/chart.yaml" "$tmp/null.yaml" || die "$value=null is not the default"
done
for name in 1234 true 1.5 null 1e3 0x10; do
    template --name-template "n$name" --set-string "fullnameOverride=$name,mounts[0].name=m" \
        --set-string "mounts[0].secret=$name,mounts[0].mountPath=/m,priorityClassName=$name" \
        --set-string "serviceAccount.name=$name" --set serviceMonitor.enabled=true
    # Without an override.
    template --name-template "$name"
done >"$tmp/named.yaml"
PYTHONPATH=$kubernetes_python python3 .ci/kubernetes_schema.py "${KUBERNETES%.*}" \
    "$definitions" "$tmp/named.yaml"

printf 'kube-score\n'
# Neither the demo's tools nor `helm test`, which ends: they need no budgets and policies.
mkdir "$tmp/scored"
cp "$tmp"/rendered/{base,production}.yaml "$tmp/scored"
template --no-hooks >"$tmp/scored/chart.yaml"
template --no-hooks --values $chart/ci/production-values.yaml >"$tmp/scored/chart-production.yaml"
policies "$tmp"/scored/*.yaml

printf 'schemas, and how it fits together\n'
PYTHONPATH=$kubernetes_python timeout 120 python3 .ci/kubernetes.py --fanfare "$fanfare" \
    --kubernetes "${KUBERNETES%.*}" --definitions "$definitions" "$tmp/rendered"
