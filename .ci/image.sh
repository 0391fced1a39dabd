#!/usr/bin/env bash
# Builds deploy/Dockerfile, stage by stage as it is written, and tries what comes
# out (image.py). No registry of images is reached: the one base image is made of
# the same Debian packages, and this machine's Rust toolchain is mounted into it, as
# are cargo's registry and settings, which so get into no layer. Needs root.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# shellcheck source=.ci/lib.sh
source .ci/lib.sh
# shellcheck source=.ci/tools.sh
source .ci/tools.sh

python_tools || die "pip can't install the tools"
hadolint --no-color --failure-threshold style deploy/Dockerfile

if [[ $(id -u) != 0 ]] || ! { command -v buildah >/dev/null || apt_install buildah; }; then
    missing 'the image' 'needs root, and buildah'
    exit
fi
# One run at a time: they share the layers, which the next run takes up.
exec 9>"$cache/images.lock"
flock --timeout 1800 9 || die 'another run holds the store of layers'
buildah_() {
    timeout 1500 buildah --root "$cache/images" --runroot "$tmp/containers" "$@"
}
clean_up() {
    buildah_ rm --all >/dev/null 2>&1 || true
    rm -rf "$tmp"
}
trap clean_up EXIT

# rust_image NAME: makes what the official image of that name holds but for the toolchain:
# Debian's release as in the tag, a C compiler and CA certificates.
rust_image() {
    local container
    command -v mmdebstrap >/dev/null || apt_install mmdebstrap || return 1
    mmdebstrap --quiet --mode=root --variant=essential --dpkgopt=force-unsafe-io \
        --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
        --include=ca-certificates,gcc,libc6-dev "${1##*-}" "$tmp/rust.tar" &&
        container=$(buildah_ from scratch) &&
        buildah_ add --quiet "$container" "$tmp/rust.tar" / >/dev/null &&
        buildah_ config --env CARGO_HOME=/usr/local/cargo \
            --env "PATH=/usr/local/rustup/toolchain/bin:/usr/sbin:/usr/bin:/sbin:/bin" \
            "$container" &&
        buildah_ commit --quiet --rm "$container" "$1" >/dev/null && rm "$tmp/rust.tar"
}
base=$(sed -n 's/^ARG RUST_IMAGE=//p' deploy/Dockerfile)
buildah_ inspect --type image "$base" >/dev/null 2>&1 || rust_image "$base" || die "can't make a stand-in for $base"

cargo_home=${CARGO_HOME:-$HOME/.cargo}
mkdir -p "$cargo_home/registry"
mounts=(
    --volume "$(rustc --print sysroot | xargs realpath):/usr/local/rustup/toolchain:ro"
    --volume "$cargo_home/registry:/usr/local/cargo/registry"
)
[[ ! -f $cargo_home/config.toml ]] ||
    mounts+=(--volume "$cargo_home/config.toml:/usr/local/cargo/config.toml:ro")
if [[ -n ${SSL_CERT_FILE:-} ]]; then
    # Cargo reads this file, too: it is in a folder above the build's.
    printf '[http]\ncainfo = "/.cargo/ca.crt"\n' >"$tmp/ca.toml"
    mounts+=(--volume "$tmp/ca.toml:/.cargo/config.toml:ro" --volume "$SSL_CERT_FILE:/.cargo/ca.crt:ro")
fi

# build CONTEXT NAME [OPTION]...: tags keep the layers of the stages for the next run.
build() {
    buildah_ build --isolation chroot --layers --pull-never --format docker \
        --file deploy/Dockerfile "${mounts[@]}" --tag "localhost/$2" "${@:3}" "$1" 2>&1 | tee "$tmp/build"
}
image_id() {
    buildah_ images --quiet --no-trunc "localhost/$1"
}

build . fanfare-dependencies --target dependencies
build . fanfare-build --target build
revision=$(git rev-parse HEAD)
build . fanfare --build-arg "REVISION=$revision"

# The crates are not compiled again for a change of ours.
mkdir "$tmp/context"
cp -a Cargo.toml Cargo.lock build.rs proto src "$tmp/context"
echo '// A change.' >>"$tmp/context/src/lib.rs"
build "$tmp/context" fanfare-changed --target dependencies >/dev/null
[[ $(image_id fanfare-changed) == "$(image_id fanfare-dependencies)" ]] ||
    die "a change in src/ compiles the dependencies again: $(<"$tmp/build")"
buildah_ rmi localhost/fanfare-changed >/dev/null
# What no tag reaches goes.
buildah_ rmi --prune >/dev/null

container=$(buildah_ from --pull-never localhost/fanfare)
mkdir "$tmp/root"
cp -a "$(buildah_ mount "$container")/." "$tmp/root"
buildah_ inspect --type image localhost/fanfare >"$tmp/image.json"
# Its own network: the ports of deploy/ are free in it, and port 53.
FANFARE=/usr/local/bin/fanfare timeout 120 unshare --net python3 .ci/image.py "$tmp/root" "$tmp/image.json" "$revision"
