# shellcheck shell=bash disable=SC2034
# The peers of `peers.sh`, in the manner of `tools.sh`: other people's gRPC, out of the
# registries, pinned, with our few lines that use it, built once into the cache.

readonly GRPC_GO=v1.85.0
readonly GO_PROTOBUF=v1.36.12
readonly GRPC_JS=1.14.7
readonly PROTO_LOADER=0.8.1
readonly GRPC_JS_HEALTH=2.1.0

# Where they are; empty if they are not there.
peers_python='' peers_go='' peers_java='' peers_node=''

# Gives `peers_python`, a folder of modules.
python_peer() {
    python_packages peers-python .ci/requirements-peers.txt && peers_python=$packages
}

# Gives `peers_go`, a program.
go_peer() {
    peer go build_go_peer .ci/peers/peer.go && peers_go=$peer/peer
}

# Gives `peers_java`, a folder of classes and jars.
java_peer() {
    peer java build_java_peer .ci/peers/pom.xml .ci/peers/Tool.java && peers_java=$peer
}

# Gives `peers_node`, a folder of modules.
node_peer() {
    peer node install_node_peer && peers_node=$peer/node_modules
}

# peer NAME INSTALLER FILES...: gives `peer`, a folder made of these files by this file.
peer() {
    local name=$1 installer=$2 sum
    shift 2
    sum=$(cat .ci/tools_peers.sh "$@" | sha256sum) || return 1
    peer=$cache/peers-$name-${sum:0:12}
    [[ -d $peer ]] || install_into "$peer" "$installer"
}

build_go_peer() {
    cp .ci/peers/peer.go "$1" || return 1
    (cd "$1" && go mod init fanfare-ci/peers &&
        go get "google.golang.org/grpc@$GRPC_GO" "google.golang.org/protobuf@$GO_PROTOBUF" &&
        CGO_ENABLED=0 go build -trimpath -o peer peer.go) 2>"$1/log" ||
        { cat "$1/log" >&2; return 1; }
}

build_java_peer() {
    mvn --quiet --batch-mode --no-transfer-progress --file .ci/peers/pom.xml dependency:copy-dependencies \
        -DoutputDirectory="$1" && javac -classpath "$1/*" -d "$1" .ci/peers/Tool.java
}

install_node_peer() {
    npm install --silent --no-audit --no-fund --ignore-scripts --prefix "$1" \
        "@grpc/grpc-js@$GRPC_JS" "@grpc/proto-loader@$PROTO_LOADER" \
        "grpc-health-check@$GRPC_JS_HEALTH"
}
