#!/usr/bin/env bash
# Has a real API server (etcd and kube-apiserver, built from source: minutes) take all that
# deploy/ makes: kubectl applies each overlay over the one before, Helm installs, upgrades
# and rolls back, and each pod template is admitted as a pod under the `restricted` standard.
# Runs if the binaries are in the cache or FULL=1. No node is behind it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# shellcheck source=.ci/lib.sh
source .ci/lib.sh
# shellcheck source=.ci/tools_kubernetes.sh
source .ci/tools_kubernetes.sh

if [[ ! -d $api_server_dir && ${FULL:-} != 1 ]]; then
    not_run 'the API server' 'takes minutes to build: FULL=1 does'
    exit
fi
if ! command -v go >/dev/null; then
    not_run 'the API server' 'there is no go to build it with'
    exit
fi
processes=()
stop() {
    # Asked politely, the API server looks for its etcd for minutes.
    [[ ${#processes[@]} == 0 ]] || kill -KILL "${processes[@]}" 2>/dev/null || true
    wait 2>/dev/null
    rm -rf "$tmp" "$new"
}
trap stop EXIT
kubernetes_tools || die "go can't build kubectl and helm"
kubernetes_python || die "pip can't install kubernetes-validate"
api_server_tools || die "go can't build etcd and kube-apiserver"
export KUBECONFIG=$tmp/kubeconfig
export HELM_CACHE_HOME=$tmp/helm HELM_CONFIG_HOME=$tmp/helm HELM_DATA_HOME=$tmp/helm

# up NAME COMMAND...: waits until the command says yes.
up() {
    local name=$1 end=$((SECONDS + 120))
    shift
    until "$@" >"$tmp/up" 2>&1; do
        if ((SECONDS >= end)) || ! kill -0 "${processes[@]}" 2>/dev/null; then
            die "$name does not come up: $(<"$tmp/up") $(tail -5 "$tmp/$name.log")"
        fi
        sleep 0.2
    done
}

# refused SENTENCE COMMAND...: it must fail, and say why.
refused() {
    local sentence=$1
    shift
    if "$@" >"$tmp/refused" 2>&1; then
        die "the API server takes what it must refuse: $sentence"
    fi
    grep -qF -- "$sentence" "$tmp/refused" || die "no '$sentence' in: $(<"$tmp/refused")"
}

read -r etcd_port peer_port port < <(python3 -c '
import sys; sys.path.insert(0, ".ci")
from processes import free_ports
print(*free_ports(3))')
store=http://127.0.0.1:$etcd_port peer=http://127.0.0.1:$peer_port
"$etcd" --data-dir "$tmp/etcd" --unsafe-no-fsync --log-level error \
    --listen-client-urls "$store" --advertise-client-urls "$store" --listen-peer-urls "$peer" \
    --initial-advertise-peer-urls "$peer" --initial-cluster "default=$peer" >"$tmp/etcd.log" 2>&1 &
processes+=($!)
openssl genrsa -out "$tmp/accounts.key" 2048 2>"$tmp/openssl"
echo 'a-token,admin,0,system:masters' >"$tmp/tokens"
"$kube_apiserver" --etcd-servers "$store" --cert-dir "$tmp/certificates" \
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
up kube-apiserver "$kubectl" get --raw /readyz
"$kubectl" version | grep Server

apply=("$kubectl" apply --server-side --validate=strict)
"${apply[@]}" --filename "$definitions"
"$kubectl" wait --for=condition=Established --timeout=60s crd --all

printf '\nkustomize, one after the other in the same namespace\n'
for overlay in base overlays/demo overlays/production; do
    printf '%s:\n' "$overlay"
    "${apply[@]}" --kustomize "deploy/kubernetes/$overlay"
done
"$kubectl" diff --server-side --kustomize deploy/kubernetes/overlays/production
# As people do; and what they take away.
"$kubectl" delete --wait=false --kustomize deploy/kubernetes/overlays/production >"$tmp/deleted"

printf '\nHelm\n'
chart=deploy/helm/fanfare
"$kubectl" create namespace with-helm
"$kubectl" label namespace with-helm pod-security.kubernetes.io/enforce=restricted
"$kubectl" create priorityclass high --value 1000
"$helm" --namespace with-helm install fanfare $chart
"$helm" --namespace with-helm upgrade fanfare $chart \
    --values $chart/ci/production-values.yaml >"$tmp/notes"
"$helm" --namespace with-helm rollback fanfare 1
"$helm" --namespace with-helm history fanfare

printf '\npods, under the restricted standard\n'
mkdir "$tmp/rendered" "$tmp/pods"
bash .ci/kubernetes.sh --render "$tmp/rendered"
PYTHONPATH=$kubernetes_python python3 .ci/kubernetes_pods.py "$tmp/pods" "$tmp"/rendered/*.yaml
for pod in "$tmp"/pods/*.yaml; do
    "${apply[@]}" --namespace with-helm --dry-run=server --filename "$pod"
done

# And does it refuse anything?
pod=$tmp/pods/base-fanfare.yaml
take=("${apply[@]}" --namespace with-helm --force-conflicts --dry-run=server --filename)
sed 's/runAsNonRoot: true/runAsNonRoot: false/' "$pod" >"$tmp/root.yaml"
refused 'violates PodSecurity "restricted' "${take[@]}" "$tmp/root.yaml"
sed 's/readOnlyRootFilesystem/readOnlyRootFileSystem/' "$pod" >"$tmp/typo.yaml"
refused 'readOnlyRootFileSystem' "${take[@]}" "$tmp/typo.yaml"
sed 's/whenUnsatisfiable: DoNotSchedule/whenUnsatisfiable: Never/' \
    "$tmp/rendered/chart-production.yaml" >"$tmp/bad.yaml"
refused 'Unsupported value: "Never"' "${take[@]}" "$tmp/bad.yaml"
printf '\n%s pods admitted, 3 bad objects refused\n' "$(find "$tmp/pods" -name '*.yaml' | wc -l)"
