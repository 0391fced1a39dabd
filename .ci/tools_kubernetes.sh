# shellcheck shell=bash disable=SC2034
# The tools of `kubernetes.sh` and `api_server.sh`, in the manner of `tools.sh`: sources
# and schemas out of the registries, pinned, built once into the cache.

readonly KUBERNETES=1.37.2
readonly HELM=v4.3.1
readonly ETCD=v3.7.3
readonly KUBE_SCORE=v1.20.0
readonly PROMETHEUS_OPERATOR=v0.85.0
kubernetes_dir=$cache/kubernetes-$KUBERNETES-helm-$HELM-kube-score-$KUBE_SCORE
api_server_dir=$cache/api-server-$KUBERNETES-etcd-$ETCD

# Where the tools are; empty if they are not there.
kubectl='' helm='' kube_score='' definitions='' kubernetes_python='' etcd='' kube_apiserver=''

# Gives `kubectl`, `helm`, `kube_score` and `definitions`, a folder of custom resources'.
# No registry has them prebuilt.
kubernetes_tools() {
    if [[ ! -d $kubernetes_dir ]]; then
        install_into "$kubernetes_dir" build_kubernetes_tools || return 1
    fi
    kubectl=$kubernetes_dir/kubectl
    helm=$kubernetes_dir/helm
    kube_score=$kubernetes_dir/kube-score
    definitions=$kubernetes_dir/definitions
}

# Gives `kubernetes_python`, a folder of modules.
kubernetes_python() {
    python_packages kubernetes-python .ci/requirements-kubernetes.txt || return 1
    kubernetes_python=$packages
}

# Gives `etcd` and `kube_apiserver`.
api_server_tools() {
    if [[ ! -d $api_server_dir ]]; then
        install_into "$api_server_dir" build_api_server || return 1
    fi
    etcd=$api_server_dir/etcd
    kube_apiserver=$api_server_dir/kube-apiserver
}

build_kubernetes_tools() {
    kubernetes_module "$1/module" &&
        go_build "$1/module" k8s.io/kubernetes/cmd/kubectl "$1/kubectl" &&
        go_build "$1/module" helm.sh/helm/v4/cmd/helm "$1/helm" &&
        GOBIN=$1 CGO_ENABLED=0 go install -trimpath -ldflags '-s -w' \
            "github.com/zegl/kube-score/cmd/kube-score@$KUBE_SCORE" &&
        custom_resource_definitions "$1/definitions"
}

build_api_server() {
    kubernetes_module "$1/module" &&
        go_build "$1/module" go.etcd.io/etcd/server/v3 "$1/etcd" &&
        go_build "$1/module" k8s.io/kubernetes/cmd/kube-apiserver "$1/kube-apiserver"
}

# kubernetes_module DIR: a module that the programs are built from, so that they share
# their libraries. k8s.io/kubernetes has those of its own folders by `replace`, which only
# counts in a main module: they are published as v0.x.
kubernetes_module() {
    local file staged
    mkdir "$1" && file=$(module k8s.io/kubernetes "v$KUBERNETES" GoMod) &&
        staged=$(awk -v version="v0.${KUBERNETES#*.}" '$2 == "=>" && $3 ~ "^./staging/" {
            print "-replace=" $1 "=" $1 "@" version }' "$file") && [[ -n $staged ]] || return 1
    # shellcheck disable=SC2086  # one argument each
    (cd "$1" && go mod init fanfare-ci/kubernetes &&
        go mod edit $staged &&
        go get -tool "k8s.io/kubernetes/cmd/kubectl@v$KUBERNETES" \
            "k8s.io/kubernetes/cmd/kube-apiserver@v$KUBERNETES" \
            "helm.sh/helm/v4/cmd/helm@$HELM" "go.etcd.io/etcd/server/v3@$ETCD") 2>"$1.log" ||
        { cat "$1.log" >&2; return 1; }
}

# go_build MODULE PACKAGE FILE. Clients and charts ask for the version.
go_build() {
    (cd "$1" && CGO_ENABLED=0 go build -trimpath -o "$3" -ldflags \
        "-s -w -X k8s.io/component-base/version.gitVersion=v$KUBERNETES" "$2")
}

custom_resource_definitions() {
    local dir
    dir=$(module github.com/prometheus-operator/prometheus-operator "$PROMETHEUS_OPERATOR" Dir) &&
        mkdir "$1" &&
        cp "$dir"/example/prometheus-operator-crd/*_{servicemonitors,prometheusrules}.yaml "$1"
}

# module PATH VERSION KEY: downloads it, and says where something of it is.
module() {
    go mod download -json "$1@$2" |
        python3 -c 'import json, sys; print(json.load(sys.stdin)[sys.argv[1]])' "$3"
}
