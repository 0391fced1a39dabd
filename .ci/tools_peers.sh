# shellcheck shell=bash disable=SC2034
# The peers of `peers.sh`, in the manner of `tools.sh`: other people's gRPC, out of the
# registries, pinned, with our few lines that use it, built once into the cache.

readonly GRPC_GO=v1.85.0
readonly GO_PROTOBUF=v1.36.12
readonly GRPC_JS=1.14.7
readonly PROTO_LOADER=0.8.1
readonly GRPC_JS_HEALTH=2.1.0
readonly PROTOC_GEN_GO_GRPC=v1.6.2
readonly TS_PROTO=2.18.0
readonly TS_PROTO_RUNTIME=2.17.0
readonly TYPESCRIPT=7.0.2
readonly NODE_TYPES=20.19.43
readonly JAVA_PROTOC=4.36.2
# 1.85.1, which the peer has, has no generator for Linux.
readonly JAVA_GRPC_PROTOC=1.83.0

# Where they are; empty if they are not there.
peers_python='' peers_go='' peers_java='' peers_node=''
# The programs of `tests/clients`, with stubs that were made as its README says.
clients_python='' clients_go='' clients_node=''

# Gives `peers_python`, a folder of modules.
python_peer() {
    python_packages peers-python .ci/requirements-peers.txt && peers_python=$packages
}

# Gives `peers_go`, a program, and `clients_go`.
go_peer() {
    peer go build_go_peer .ci/peers/peer.go && peers_go=$peer/peer
    clients go build_go_clients && clients_go=$peer/bin
}

# Gives `peers_java`, a folder of classes and jars, and compiles stubs.
java_peer() {
    peer java build_java_peer .ci/peers/pom.xml .ci/peers/Tool.java && peers_java=$peer
    clients java build_java_stubs
}

# Gives `peers_node`, a folder of modules, and `clients_node`.
node_peer() {
    peer node install_node_peer && peers_node=$peer/node_modules
    clients node build_node_clients && clients_node=$peer/out
}

# Gives `clients_python`, with stubs beside.
python_clients() {
    clients python build_python_clients && clients_python=$peer
}

# clients LANGUAGE INSTALLER: gives `peer`, made of what a clone has of the contract and of
# these programs.
clients() {
    local files
    mapfile -t files < <(git ls-files proto tests/clients)
    peer "clients-$1" "$2" "${files[@]}"
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

# clone DIR: what a clone has there, and a `protoc`.
clone() {
    git ls-files -z proto tests/clients | xargs -0 cp --parents --target-directory "$1" && mkdir "$1/tools" &&
        printf '#!/bin/sh\nPYTHONPATH=%s exec python3 -m grpc_tools.protoc "$@"\n' "$peers_python" >"$1/tools/protoc" &&
        chmod +x "$1/tools/protoc"
}

# stubs DIR LANGUAGE: runs the commands that the README has for the language.
stubs() {
    local command
    command=$(awk -v title="## $2" '/^## / { ours = $0 == title } ours && /^mkdir|protoc -I/ { inside = 1 }
        inside { print; inside = /\\$/ }' tests/clients/README.md)
    (cd "$1" && PYTHONPATH=$peers_python PATH=$1/tools:$PATH bash -euc "${command/#python /python3 }")
}

build_python_clients() {
    clone "$1" && stubs "$1" Python && mv "$1"/tests/clients/python/* "$1"
}

build_go_clients() {
    clone "$1" && GOBIN=$1/tools go install "google.golang.org/protobuf/cmd/protoc-gen-go@$GO_PROTOBUF" &&
        GOBIN=$1/tools go install "google.golang.org/grpc/cmd/protoc-gen-go-grpc@$PROTOC_GEN_GO_GRPC" &&
        stubs "$1" Go && mv "$1"/tests/clients/go/* "$1" && (cd "$1" && go mod init example.com/agent &&
            go get "google.golang.org/grpc@$GRPC_GO" "google.golang.org/protobuf@$GO_PROTOBUF" &&
            go mod tidy && CGO_ENABLED=0 go build -trimpath -o bin/ ./agent ./tool_service)
}

build_node_clients() {
    clone "$1" && npm install --silent --no-audit --no-fund --ignore-scripts --prefix "$1" \
        "@grpc/grpc-js@$GRPC_JS" "grpc-health-check@$GRPC_JS_HEALTH" "@bufbuild/protobuf@$TS_PROTO_RUNTIME" \
        "ts-proto@$TS_PROTO" "typescript@$TYPESCRIPT" "@types/node@$NODE_TYPES" &&
        stubs "$1" TypeScript && mv "$1"/tests/clients/typescript/* "$1" &&
        (cd "$1" && node_modules/.bin/tsc --strict --module node20 --target es2022 --outDir out ./*.ts)
}

build_java_stubs() {
    local generator=io.grpc:protoc-gen-grpc-java:$JAVA_GRPC_PROTOC:exe:linux-x86_64
    clone "$1" && for tool in "com.google.protobuf:protoc:$JAVA_PROTOC:exe:linux-x86_64" "$generator"; do
        mvn --quiet --batch-mode --no-transfer-progress dependency:copy -Dartifact="$tool" -DoutputDirectory="$1/tools" \
            -Dmdep.stripVersion || return 1
    done
    mv "$1"/tools/protoc-gen-grpc-java-*.exe "$1/tools/protoc-gen-grpc-java" && chmod +x "$1"/tools/* &&
        printf '#!/bin/sh\nexec %s -I%s "$@"\n' "$1"/tools/protoc-linux-x86_64.exe \
            "$peers_python/grpc_tools/_proto" >"$1/tools/protoc" &&
        stubs "$1" Java && javac -classpath "$peers_java/*" -d "$1/classes" "$1"/src/fanfare/v1/*.java
}
