# shellcheck shell=bash disable=SC2154
# The gate's tools: out of the registries, pinned, once into the cache, whose folders are
# named after what they are made of. Each function fails if what it is for can't be had.
# Sourced after `lib.sh`.

# Python: what requirements.txt names, each file of it with its hash.
python=$cache/python-$(sum_of .ci/requirements.txt)
PATH=$python/bin:$cache/promtool/usr/bin:$PATH
python_tools() {
    install_into "$python" pip_install .ci/requirements.txt
}
# What providers.txt names, beside it: `PROVIDERS` is for `models.py`.
PROVIDERS=$cache/providers-$(sum_of .ci/providers.txt)
export PROVIDERS
provider_types() {
    install_into "$PROVIDERS" pip_install .ci/providers.txt
}
pip_install() {
    python3 -m pip --version || apt_install python3-pip || return 1
    PIP_ROOT_USER_ACTION=ignore python3 -m pip install --quiet --disable-pip-version-check \
        --no-deps --require-hashes --target "$2" --requirement "$1"
}

# Prometheus and promtool: out of Debian's package, which would start a server if it were
# installed.
prometheus_tool() {
    install_into "$cache/promtool" unpack_prometheus
}
unpack_prometheus() {
    apt-get update -qq && (cd "$1" && apt-get download -qq prometheus) &&
        dpkg -x "$1"/prometheus_*.deb "$1" && rm "$1"/prometheus_*.deb
}

# Go: programs are built from source by their versions. A committed go.sum would have the
# checksum of each module; `pinned` has one sum of them all.

# go_get DIR MODULE@VERSION...: makes DIR a module that needs them.
go_get() {
    (cd "$1" && go mod init "example.com/${name:-agent}" && go get "${@:2}")
}

# go_build DIR PACKAGE...: builds DIR's packages into DIR/bin.
go_build() {
    (cd "$1" && CGO_ENABLED=0 go build -trimpath -ldflags "${ldflags:--s -w}" -o bin/ "${@:2}")
}

# pinned SUM PROGRAM...: fails unless the modules that are linked into the programs have this
# sum: paths, versions and checksums. Nothing that was built runs before.
pinned() {
    local found
    found=$(go version -m "${@:2}" | awk '$4 ~ /^h1:/ { print $2, $3, $4 }' |
        LC_ALL=C sort -u | sha256sum) || return 1
    [[ ${found:0:16} == "$1" ]] ||
        { printf 'the modules in %s have the sum %s, not %s\n' "${*:2}" "${found:0:16}" "$1" >&2 && return 1; }
}

# The peers, which `peers.sh` tries Fanfare with, and the programs of `tests/clients`: other
# people's gRPC with our few lines. Stubs are made by the commands that clients' README has.
readonly GRPC_JAVA_PROTOC=1.83.0 # 1.85.1, which the peer has, has no generator for Linux.
readonly NODE_MODULES='@grpc/grpc-js@1.14.7 grpc-health-check@2.1.0 @grpc/reflection@1.0.4 @grpc/proto-loader@0.8.1
    @bufbuild/protobuf@2.17.0 ts-proto@2.18.0 typescript@7.0.2 @types/node@20.19.43'
# The new grpcurl too, so that libraries are compiled once.
readonly GO_TOOLS='github.com/fullstorydev/grpcurl/cmd/grpcurl@v1.9.4
    google.golang.org/protobuf/cmd/protoc-gen-go@v1.36.12
    google.golang.org/grpc/cmd/protoc-gen-go-grpc@v1.6.2 google.golang.org/grpc@v1.85.0'
mapfile -t peers_files < <(git ls-files proto tests/clients .ci/peers/{pom.xml,Tool.java,*.go,peer.js})
peers=$cache/peers-$(sum_of .ci/tools.sh .ci/requirements.txt "${peers_files[@]}")
# For `rig.py`.
export FANFARE PEERS=$peers PYTHONPATH=$python:$PWD/proto:$PWD/.ci:$PWD/.ci/peers PYTHONDONTWRITEBYTECODE=1

python_peer() { install_into "$peers-python" build_python_peer; }
go_peer() { install_into "$peers-go" build_go_peer; }
java_peer() { install_into "$peers-java" build_java_peer; }
node_peer() { install_into "$peers-node" build_node_peer; }

# clone DIR: what a clone has of the contract, of these programs and of the peers; and a protoc.
clone() {
    cp --parents --target-directory "$1" "${peers_files[@]}" && mkdir -p "$1/bin" &&
        printf '#!/bin/sh\nPYTHONPATH=%s exec python3 -m grpc_tools.protoc "$@"\n' "$python" >"$1/bin/protoc" &&
        chmod +x "$1/bin/protoc"
}

# stubs DIR LANGUAGE: runs the commands that the README has for the language.
stubs() {
    local command
    command=$(awk -v title="### $2" '/^##/ { ours = $0 == title } ours && /^mkdir|protoc -I/ { inside = 1 }
        inside { print; inside = /\\$/ }' tests/clients/README.md)
    (cd "$1" && PYTHONPATH=$python PATH=$1/bin:$PATH bash -euc "${command/#python /python3 }")
}

build_python_peer() {
    clone "$1" && stubs "$1" Python && mv "$1"/tests/clients/python/* "$1"
}

build_go_peer() {
    # shellcheck disable=SC2086  # one argument each
    go_get "$1" -tool $GO_TOOLS && go_build "$1" tool && pinned 38490e434fb2d005 "$1"/bin/* && clone "$1" &&
        stubs "$1" Go && mv "$1"/tests/clients/go/* "$1" && mkdir "$1/peer" && mv "$1/.ci/peers/peer.go" "$1/peer" &&
        go_build "$1" ./agent ./tool_service ./peer
}

build_node_peer() {
    # shellcheck disable=SC2086  # one argument each
    clone "$1" && npm install --silent --no-audit --no-fund --ignore-scripts --prefix "$1" $NODE_MODULES &&
        stubs "$1" TypeScript && mv "$1"/tests/clients/typescript/* "$1/.ci/peers/peer.js" "$1" &&
        (cd "$1" && node_modules/.bin/tsc --strict --module node20 --target es2022 --outDir out ./*.ts)
}

maven() {
    mvn --quiet --batch-mode --no-transfer-progress "$@"
}

build_java_peer() {
    local tool
    clone "$1" && maven --file .ci/peers/pom.xml dependency:copy-dependencies -DoutputDirectory="$1" || return 1
    for tool in com.google.protobuf:protoc:4.36.2 io.grpc:protoc-gen-grpc-java:$GRPC_JAVA_PROTOC; do
        maven dependency:copy -Dartifact="$tool:exe:linux-x86_64" -DoutputDirectory="$1/bin" -Dmdep.stripVersion || return 1
    done
    mv "$1"/bin/protoc-gen-grpc-java-*.exe "$1/bin/protoc-gen-grpc-java" && chmod +x "$1"/bin/* &&
        printf '#!/bin/sh\nexec %s -I%s "$@"\n' "$1"/bin/protoc-linux-x86_64.exe \
            "$python/grpc_tools/_proto" >"$1/bin/protoc" &&
        stubs "$1" Java &&
        javac -classpath "$1/*" -d "$1" "$1"/src/fanfare/v1/*.java tests/clients/java/*.java .ci/peers/Tool.java
}

# Services of others, whose methods are tools: grpc-go's examples as they are, one of them with
# reflection, too; our few lines on Connect; and descriptor sets, with comments.
readonly GO_SERVICES='google.golang.org/grpc/examples@v0.0.0-20260825154716-030ee8becb20
    google.golang.org/grpc@v1.85.0 connectrpc.com/connect@v1.21.1
    connectrpc.com/grpcreflect@v1.3.1 connectrpc.com/grpchealth@v1.5.0'
services_peer() { install_into "$peers-services" build_services; }

build_services() {
    local examples name GOFLAGS="${GOFLAGS:-} -mod=mod"
    export GOFLAGS
    # shellcheck disable=SC2086  # one argument each
    name=services go_get "$1" $GO_SERVICES && mkdir "$1"/{bin,connect,route_guide} &&
        cp .ci/peers/connect.go "$1/connect" &&
        examples=$(cd "$1" && go list -m -f '{{.Dir}}' google.golang.org/grpc/examples) || return 1
    sed -e 's|^\tgrpcServer.Serve(lis)|\treflection.Register(grpcServer)\n&|' \
        -e 's|^\t"google.golang.org/grpc"$|&\n\t"google.golang.org/grpc/reflection"|' \
        "$examples/route_guide/server/server.go" >"$1/route_guide/main.go"
    go_build "$1" ./connect ./route_guide || return 1
    for name in features/reflection features/error_details features/deadline; do
        (cd "$1" && CGO_ENABLED=0 go build -trimpath -ldflags '-s -w' -o "bin/${name#*/}" \
            "google.golang.org/grpc/examples/$name/server") || return 1
    done
    pinned b146ef4bfd77a1de "$1"/bin/* || return 1
    for name in route_guide/routeguide/route_guide helloworld/helloworld/helloworld features/proto/echo/echo; do
        PYTHONPATH=$python python3 -m grpc_tools.protoc -I"$examples" --include_imports --include_source_info \
            --descriptor_set_out="$1/${name##*/}.binpb" "$examples/$name.proto" || return 1
    done
}
