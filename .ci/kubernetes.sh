#!/usr/bin/env bash
# Renders deploy/kubernetes and the Helm chart with the real tools, and checks what comes out:
# what Helm and kube-score say, whether the objects fit together and fit the program (first
# argument, or the release build), and whether a real API server (etcd and kube-apiserver, built
# from source: minutes) takes all of it: kubectl applies each overlay over the one before, Helm
# installs, upgrades and rolls back, and each pod template is admitted as a pod under the
# `restricted` standard. No node is behind it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# shellcheck source=.ci/lib.sh
source .ci/lib.sh
# shellcheck source=.ci/tools.sh
source .ci/tools.sh

readonly KUBERNETES=1.37.2
# module PATH VERSION KEY: downloads it, and says where something of it is.
module() {
    go mod download -json "$1@$2" | python3 -c 'import json, sys; print(json.load(sys.stdin)[sys.argv[1]])' "$3"
}

# One module, so that the programs share their libraries. k8s.io/kubernetes has those of its own
# folders by `replace`, which only counts in a main module: they are published as v0.x.
build_kubernetes_tools() {
    local staged operator
    # shellcheck disable=SC2086  # one argument each
    staged=$(awk -v version="v0.${KUBERNETES#*.}" '$2 == "=>" && $3 ~ "^./staging/" {
        print "-replace=" $1 "=" $1 "@" version }' "$(module k8s.io/kubernetes "v$KUBERNETES" GoMod)") &&
        operator=$(module github.com/prometheus-operator/prometheus-operator v0.85.0 Dir) &&
        mkdir "$1/score" "$1/definitions" &&
        cp "$operator"/example/prometheus-operator-crd/*_{servicemonitors,prometheusrules}.yaml "$1/definitions" &&
        go_get "$1/score" -tool github.com/zegl/kube-score/cmd/kube-score@v1.20.0 && go_build "$1/score" tool &&
        (cd "$1" && go mod init example.com/tools && go mod edit $staged &&
            go get -tool "k8s.io/kubernetes/cmd/kubectl@v$KUBERNETES" "k8s.io/kubernetes/cmd/kube-apiserver@v$KUBERNETES" \
                helm.sh/helm/v4/cmd/helm@v4.3.1 go.etcd.io/etcd/server/v3@v3.7.3) &&
        # Clients and charts ask for the version.
        ldflags="-s -w -X k8s.io/component-base/version.gitVersion=v$KUBERNETES" go_build "$1" tool &&
        mv "$1/bin/server" "$1/bin/etcd" && mv "$1/score/bin/kube-score" "$1/bin" && pinned 2a9792e6b9a9902a "$1"/bin/*
}

kubernetes_tools=$cache/kubernetes-$KUBERNETES-$(sum_of <(declare -f build_kubernetes_tools))
PATH=$kubernetes_tools/bin:$PATH

chart=deploy/helm/fanfare
# Helm keeps nothing outside of it.
export HELM_CACHE_HOME=$tmp/helm HELM_CONFIG_HOME=$tmp/helm HELM_DATA_HOME=$tmp/helm

# Kubernetes' version, of which the chart may ask; the tool takes its own.
template() {
    helm template $chart --name-template fanfare --namespace fanfare --kube-version "v$KUBERNETES" "$@"
}

# refused SENTENCE COMMAND...: it must fail, and say why.
refused() {
    local sentence=$1
    shift
    if "$@" >"$tmp/refused" 2>&1; then
        die "taken, not refused: $*"
    fi
    grep -qF -- "$sentence" "$tmp/refused" || die "$*: no '$sentence' in: $(<"$tmp/refused")"
}

if ! command -v go >/dev/null; then
    # Passes in CI too: not every machine that builds Rust has Go.
    not_run 'kubectl, helm, kube-score, the API server' 'there is no go to build them with'
    exit
fi
python_tools || die "pip can't install the tools"
install_into "$kubernetes_tools" build_kubernetes_tools || die "go can't build Kubernetes' tools"
FANFARE=${1:-$(release_binary)}

printf 'kustomize and helm template\n'
rendered=$tmp/rendered
mkdir "$rendered"
for folder in base overlays/demo overlays/production; do
    kubectl kustomize "deploy/kubernetes/$folder" >"$rendered/${folder##*/}.yaml"
done
template >"$rendered/chart.yaml"
template --values $chart/ci/production-values.yaml >"$rendered/chart-production.yaml"
template --values $chart/ci/minimal-values.yaml --name-template tools >"$rendered/chart-minimal.yaml"
# Names that look like something else.
for name in xyzzy 1234 true 1.5 null 1e3 0x10; do
    {
        template --set-string "fullnameOverride=$name,mounts[0].name=m" \
            --set-string "mounts[0].secret=$name,mounts[0].mountPath=/m,priorityClassName=$name" \
            --set-string "serviceAccount.name=$name" --set serviceMonitor.enabled=true
        # Without an override.
        template --name-template "$name"
    } >"$rendered/named-$name.yaml"
done

printf 'helm lint\n'
helm lint --strict --quiet $chart
for values in "$chart"/ci/*.yaml; do
    helm lint --strict --quiet --values "$values" $chart
done
printf '[services.a]\nendpoint = "http://a:1"\n' >"$tmp/loopback.toml"
while IFS='|' read -r sentence values; do
    IFS='|' read -ra arguments <<<"$values"
    refused "$sentence" template "${arguments[@]/#LOOPBACK/config=$tmp/loopback.toml}"
done <<'END'
replicas|--set|replicas=-1
additional properties 'replica' not allowed|--set|replica=3
/image/pullPolicy|--set|image.pullPolicy=Sometimes
/image/digest|--set|image.digest=sha256:0
/config|--set|config=
/mounts/0|--set|mounts[0].name=tls,mounts[0].mountPath=/tls
/autoscaling/minReplicas|--set|autoscaling.minReplicas=0
autoscaling.maxReplicas: must be at least minReplicas|--set|autoscaling.maxReplicas=1
/serviceMonitor/interval|--set|serviceMonitor.interval=often
/networkPolicy/callers/0|--set|networkPolicy.callers[0].namespace=agents
server.listen is "127.0.0.1:50051" by default: the|--set-file|LOOPBACK
config: server.admin_listen is "off": the|--set-string|config=server = { listen = "0.0.0.0:50051"\, admin_listen = "off" }
config: server.listen is "[::]:50052": the|--set-string|config=server = { listen = "[::]:50052"\, admin_listen = "[::]:9464" }
config: is no TOML|--set-string|config=server = [
END
# What is null is as if it were left out, section by section and value by value.
for value in env workerThreads replicas terminationGracePeriodSeconds image.pullPolicy podDisruptionBudget service \
    serviceAccount serviceMonitor podDisruptionBudget.maxUnavailable service.type networkPolicy networkPolicy.enabled \
    topologySpread topologySpread.node autoscaling autoscaling.minReplicas autoscaling.maxReplicas; do
    template --set "$value=null" | cmp "$rendered/chart.yaml" - || die "$value=null is not the default"
done

printf 'kube-score\n'
# Neither the demo's tools nor `helm test`, which ends: they need no budgets and policies.
mkdir "$tmp/scored"
cp "$rendered"/{base,production}.yaml "$tmp/scored"
template --no-hooks >"$tmp/scored/chart.yaml"
template --no-hooks --values $chart/ci/production-values.yaml >"$tmp/scored/chart-production.yaml"
accepted=(
    # A limit throttles bursts while the node is idle; the request is what the node is shared by.
    --ignore-container-cpu-limit
    # Tags are not moved, and a node that has the image starts it without the registry.
    --ignore-test container-image-pull-policy
    # Nothing is written; logs are rotated by the kubelet, and a limit would evict by their size.
    --ignore-test container-ephemeral-storage-request-and-limit
    # topologySpreadConstraints do that, by zone and node, for any number of replicas.
    --ignore-test deployment-has-host-podantiaffinity
)
for file in "$tmp"/scored/*.yaml; do
    kube-score score --exit-one-on-warning --kubernetes-version "v${KUBERNETES%.*}" "${accepted[@]}" \
        --enable-optional-test container-ports-check,container-seccomp-profile "$file" >"$tmp/score" 2>&1 ||
        die "$file: $(<"$tmp/score")"
done

printf 'how it fits together\n'
timeout 120 python3 .ci/kubernetes.py "$rendered"

printf '\nan API server\n'
processes=()
stop() {
    # Asked politely, the API server looks for its etcd for minutes.
    [[ ${#processes[@]} == 0 ]] || kill -KILL "${processes[@]}" 2>/dev/null || true
    wait 2>/dev/null
    rm -rf "$tmp"
}
trap stop EXIT
export KUBECONFIG=$tmp/kubeconfig
read -r etcd_port peer_port port < <(FANFARE='' python3 -c 'from rig import free_ports; print(*free_ports(3))')
store=http://127.0.0.1:$etcd_port peer=http://127.0.0.1:$peer_port
etcd --data-dir "$tmp/etcd" --unsafe-no-fsync --log-level error \
    --listen-client-urls "$store" --advertise-client-urls "$store" --listen-peer-urls "$peer" \
    --initial-advertise-peer-urls "$peer" --initial-cluster "default=$peer" >"$tmp/etcd.log" 2>&1 &
processes+=($!)
openssl genrsa -out "$tmp/accounts.key" 2048 2>/dev/null
echo 'a-token,admin,0,system:masters' >"$tmp/tokens"
kube-apiserver --etcd-servers "$store" --cert-dir "$tmp/certificates" \
    --bind-address 127.0.0.1 --advertise-address 127.0.0.1 --endpoint-reconciler-type none \
    --secure-port "$port" --token-auth-file "$tmp/tokens" \
    --authorization-mode RBAC --service-cluster-ip-range 10.0.0.0/24 \
    --service-account-issuer https://127.0.0.1 --service-account-key-file "$tmp/accounts.key" \
    --service-account-signing-key-file "$tmp/accounts.key" >"$tmp/kube-apiserver.log" 2>&1 &
processes+=($!)
cat >"$KUBECONFIG" <<END
apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: "https://127.0.0.1:$port", insecure-skip-tls-verify: true}}]
users: [{name: u, user: {token: a-token}}]
contexts: [{name: x, context: {cluster: c, user: u}}]
current-context: x
END
end=$((SECONDS + 120))
until kubectl get --raw /readyz >"$tmp/up" 2>&1; do
    if ((SECONDS >= end)) || ! kill -0 "${processes[@]}"; then
        die "no API server: $(<"$tmp/up") $(tail -5 "$tmp"/*.log)"
    fi
    sleep 0.2
done
kubectl version | grep Server

# Pod security is decided on pods, and a Deployment that breaks it is only warned of.
restricted=(pod-security.kubernetes.io/{enforce,warn}"=restricted")
apply=(kubectl apply --server-side --force-conflicts --validate=strict --warnings-as-errors)
"${apply[@]}" --filename "$kubernetes_tools/definitions"
kubectl wait --for=condition=Established --timeout=60s crd --all
# One after the other in the same namespace.
for overlay in base overlays/demo overlays/production; do
    "${apply[@]}" --kustomize "deploy/kubernetes/$overlay"
done
kubectl diff --server-side --force-conflicts --kustomize deploy/kubernetes/overlays/production
# As people do; and what they take away.
kubectl delete --wait=false --kustomize deploy/kubernetes/overlays/production >"$tmp/deleted"

kubectl create namespace with-helm
kubectl label namespace with-helm "${restricted[@]}"
kubectl create priorityclass high --value 1000
helm --namespace with-helm install fanfare $chart
helm --namespace with-helm upgrade fanfare $chart --values $chart/ci/production-values.yaml >"$tmp/notes"
helm --namespace with-helm rollback fanfare 1
helm --namespace with-helm history fanfare
take=("${apply[@]}" --namespace with-helm --dry-run=server --filename)
"${take[@]}" "$rendered/chart.yaml"
"${take[@]}" "$rendered/chart-production.yaml"
template --no-hooks --values $chart/ci/minimal-values.yaml --name-template tools | "${take[@]}" -

# And does it refuse anything?
sed 's/runAsNonRoot: true/runAsNonRoot: false/' "$tmp/scored/chart.yaml" >"$tmp/root.yaml"
refused 'violate PodSecurity "restricted' "${take[@]}" "$tmp/root.yaml"
sed 's/readOnlyRootFilesystem/readOnlyRootFileSystem/' "$tmp/scored/chart.yaml" >"$tmp/typo.yaml"
refused 'readOnlyRootFileSystem' "${take[@]}" "$tmp/typo.yaml"
