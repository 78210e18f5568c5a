#!/usr/bin/env bash
# Puts into FOLDER what the container tests need: Compose and Buildx as plugins of the docker command, and a base image
# (base.tar) that stands in for python:3.11-slim-bookworm, which can't be pulled everywhere. A Docker Engine is
# installed where there is none; none is started. Needs root and Debian 12; it uses the package sources that are configured.
set -euo pipefail
folder=$(realpath -m "${1:?usage: prepare.sh FOLDER}")
export DEBIAN_FRONTEND=noninteractive

if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "the container tests run an engine of their own: that needs root, and apt-get to install it" >&2
    exit 1
fi
mkdir -p "$folder"
scratch=$(mktemp -d)
policy=
trap 'rm -rf "$scratch" $policy' EXIT

install_engine() {
    echo "==> installing docker.io and mmdebstrap"
    if ! [ -e /usr/sbin/policy-rc.d ]; then
        # Installed is not started (invoke-rc.d(8)).
        policy=/usr/sbin/policy-rc.d
        printf '#!/bin/sh\nexit 101\n' >$policy
        chmod 755 $policy
    fi
    apt-get update -qq
    apt-get install -qq -y --no-install-recommends docker.io iptables mmdebstrap >/dev/null
}

# Debian 12 has no Compose 2; that of Debian 13 is a program without dependencies.
unpack_plugins() {
    echo "==> unpacking Compose and Buildx"
    mkdir -p "$scratch/parts" "$scratch/lists/partial" "$scratch/plugins" "$folder/cli-plugins"
    for sources in /etc/apt/sources.list /etc/apt/sources.list.d/debian.sources; do
        [ ! -e "$sources" ] || sed 's/bookworm/trixie/g' "$sources" >"$scratch/parts/$(basename "$sources")"
    done
    apt=(apt-get -qq -o Dir::Etc::sourcelist=/dev/null -o Dir::Etc::sourceparts="$scratch/parts"
        -o Dir::State::lists="$scratch/lists" -o Dir::Cache="$scratch/cache" -o APT::Sandbox::User=root)
    "${apt[@]}" update
    cd "$scratch/plugins"
    "${apt[@]}" download docker-compose docker-buildx
    for package in *.deb; do
        dpkg-deb -x "$package" .
    done
    cp usr/libexec/docker/cli-plugins/docker-{compose,buildx} "$folder/cli-plugins/"
}

# With this machine's certificates: where its network is inspected, pip would trust no index without them.
make_base() {
    echo "==> making the base image"
    local certificates=${PIP_CERT:-/etc/ssl/certs/ca-certificates.crt}
    mmdebstrap --quiet --variant=minbase --include=python3,python3-venv,ca-certificates \
        --customize-hook="cp '$certificates' \"\$1/etc/ssl/certs/ca-certificates.crt\"" \
        --customize-hook='printf "[global]\ncert = /etc/ssl/certs/ca-certificates.crt\n" >"$1/etc/pip.conf"' \
        bookworm "$folder/base.new.tar"
}

if ! [ -x /usr/sbin/dockerd ] || ! [ -x /usr/bin/mmdebstrap ] || ! command -v iptables >/dev/null; then
    install_engine
fi
if ! [ -e "$folder/base.tar" ]; then
    unpack_plugins &
    plugins=$!
    make_base
    wait $plugins
    # Its presence says that all is here.
    mv "$folder/base.new.tar" "$folder/base.tar"
fi
