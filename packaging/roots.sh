# shellcheck shell=bash
# To be sourced: root file systems of a Debian release, and what runs inside them. The sourcing script says `fails WHAT`,
# sets $work, a folder of its own, and stands in the project's root.
# DEBIAN_MIRROR: where the packages come from (default: what mmdebstrap uses by itself).

need_mmdebstrap() {
    ! command -v mmdebstrap >/dev/null || return 0
    . scripts/apt.sh
    apt_update
    apt_install mmdebstrap
}

# In namespaces of its own, whose end is the end of every process and mount in them. "network": the machine's own, to
# fetch packages by; "alone": one without any way out.
inside() {
    local root=$1 net=$2
    shift 2
    local flags=(--mount --pid --fork --uts --ipc --kill-child)
    [ "$net" = network ] || flags+=(--net)
    # shellcheck disable=SC2016  # expanded by the shell inside
    unshare "${flags[@]}" bash -euc '
        root=$1; shift
        mount --bind "$root" "$root"
        mount -t proc proc "$root/proc"
        mount -t sysfs sysfs "$root/sys"
        mount -t tmpfs tmpfs "$root/run"
        mount --rbind /dev "$root/dev"
        mount --make-rslave "$root/dev"
        ip link set lo up 2>/dev/null || true
        exec chroot "$root" /usr/bin/env -i HOME=/root PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8 \
            DEBIAN_FRONTEND=noninteractive "$@"' inside "$root" "$@"
}

bare_root() { # RELEASE ROOT: as a fresh minimal Debian, which reaches its packages as this machine does
    local base=$2
    mmdebstrap --quiet --mode=root --variant=minbase --include=ca-certificates,iproute2 "$1" "$base" \
        ${DEBIAN_MIRROR:+"$DEBIAN_MIRROR"} >"$work/log" 2>&1 || { cat "$work/log" >&2; fails "bare root file system"; }
    # How packages are fetched, and whose certificates are trusted, is the machine's business, here as there.
    if [ -f /etc/pip.conf ]; then cp /etc/pip.conf "$base/etc/pip.conf"; fi
    cp -r /usr/local/share/ca-certificates "$base/usr/local/share/"
    chroot "$base" update-ca-certificates >/dev/null 2>&1
    cp --remove-destination /etc/resolv.conf "$base/etc/resolv.conf"
    printf '#!/bin/sh\nexit 101\n' >"$base/usr/sbin/policy-rc.d"
    chmod 755 "$base/usr/sbin/policy-rc.d"
    inside "$base" network apt-get update -qq >"$work/log" 2>&1 || { cat "$work/log" >&2; fails "apt-get update"; }
}

build_in() { # ROOT: the package of this checkout, built there; it is in ROOT/source/dist
    mkdir "$1/source"
    git ls-files -z | tar --null -T - -cf - | tar -C "$1/source" -xf -
    inside "$1" network bash -euc '
        cd /source
        packaging/build.sh
    ' >"$work/log" 2>&1 || { cat "$work/log" >&2; fails "packaging/build.sh"; }
}
