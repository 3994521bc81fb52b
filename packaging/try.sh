#!/usr/bin/env bash
# Tries the Debian package on fresh Debians: packaging/try.sh [RELEASE...]   (default: bookworm trixie)
# As root. Makes a bare root file system of each release, builds the package in a copy of it, installs it in another,
# and lets mail flow through it in each placement, in namespaces of their own; boots that root's own systemd, tries the
# service, an upgrade under mail and another boot; then takes everything away and looks for what is left.
# One line for each step that holds; exit status 0 only if all do.
# DEBIAN_MIRROR: where the packages come from (default: what mmdebstrap uses by itself).
# NIGHTMAIL_BEFORE: a package of an earlier version to upgrade from (default: the same one).
set -euo pipefail
cd "$(dirname "$0")/.."
[ "$(id -u)" = 0 ] || { echo "try: makes root file systems and namespaces, and needs root" >&2; exit 2; }
releases=("$@")
[ ${#releases[@]} -gt 0 ] || releases=(bookworm trixie)
. packaging/roots.sh
need_mmdebstrap

work=$(mktemp -d "${TMPDIR:-/tmp}/nightmail-try.XXXXXX")
group=$(basename "$work") # the control group of what is booted
finish() {
    halt_it
    rm -rf --one-file-system "$work"
}
trap finish EXIT
trap 'exit 130' INT TERM
holds() { printf '%-9s %s\n' "$release" "$1"; }
fails() { printf '%-9s FAILED: %s\n' "$release" "$1"; exit 1; }

# Boots a root's own systemd, in namespaces without any way out and in a control group of its own. Each boot has an
# identity of its own: by that systemd takes away what a boot before has left.
boot() {
    local root=$1
    cat /proc/sys/kernel/random/uuid >"$work/boot_id"
    mkdir "$work/groups"
    mount -t cgroup2 cgroup2 "$work/groups"
    mkdir "$work/groups/$group"
    # shellcheck disable=SC2016  # expanded by the shell inside
    bash -euc '
        echo $$ >"$2/cgroup.procs"
        exec unshare --mount --pid --fork --uts --ipc --net --cgroup --kill-child bash -euc "$3" boot "$1" "$4"' boot \
        "$root" "$work/groups/$group" '
        root=$1
        mount --bind "$root" "$root"
        mount -t proc proc "$root/proc"
        mount -t sysfs sysfs "$root/sys"
        mount --bind "$2" "$root/proc/sys/kernel/random/boot_id"
        mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
        mount -t tmpfs tmpfs "$root/run"
        mount -t tmpfs tmpfs "$root/tmp"
        mount --rbind /dev "$root/dev"
        mount --make-rslave "$root/dev"
        mount -t devpts -o newinstance devpts "$root/dev/pts"
        ip link set lo up
        exec chroot "$root" /usr/bin/env -i container=other PATH=/usr/sbin:/usr/bin:/sbin:/bin \
            /lib/systemd/systemd --unit=multi-user.target --log-target=journal' "$work/boot_id" \
        </dev/null >"$work/boot.log" 2>&1 &
    booted=$!
    local until=$((SECONDS + 60))
    until in_booted systemctl is-system-running 2>/dev/null | grep -q -e running -e degraded; do
        [ "$SECONDS" -lt "$until" ] || { cat "$work/boot.log" >&2; fails "systemd does not boot"; }
        sleep 0.2
    done
}

in_booted() {
    nsenter -t "$(pgrep -P "$booted")" --all --root --wd /usr/bin/env -i HOME=/root \
        PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive "$@"
}

halt_it() { # Everything in its namespaces ends with it.
    [ -n "${booted:-}" ] || return 0
    pkill -KILL -P "$booted" || kill "$booted" 2>/dev/null || true
    wait "$booted" 2>/dev/null || true
    booted=
    find "$work/groups/$group" -depth -type d -exec rmdir {} \;
    umount "$work/groups"
    rmdir "$work/groups"
}

install_in() {
    local root=$1
    shift
    inside "$root" network apt-get install -y -qq --no-install-recommends "$@" >"$work/log" 2>&1 ||
        { cat "$work/log" >&2; fails "apt-get install $*"; }
}

try() { # RELEASE is the loop's
    local base=$work/base build=$work/build root=$work/root
    bare_root "$release" "$base"
    cp -a "$base" "$build"
    build_in "$build"
    holds "the package builds: $(cd "$build/source/dist" && ls ./*.deb)"

    cp -a "$base" "$root"
    cp -r "$build/source/dist" "$root/dist"
    cp packaging/tried.sh "$root/tried.sh"
    inside "$root" network bash -euc '
        cd /
        apt-get install -y ./dist/nightmail_*.deb
    ' >"$work/log" 2>&1 || { cat "$work/log" >&2; fails "apt-get install"; }
    built=$(grep -rlaE '/debian/(nightmail|tools)/|/tmp/(tmp[.]|pip-|nightmail-compiled)' "$root/usr/lib/nightmail" || true)
    [ -z "$built" ] || fails "how it was built stands in ${built//$'\n'/ }"
    holds "the package installs, and nothing in it is of the place where it was built"
    # The lab's needs, not the gateway's.
    install_in "$root" postfix openssl tcpdump
    inside "$root" alone /tried.sh "$release" || fails "trying it"
    install_in "$root" systemd-sysv dbus
    if [ -n "${NIGHTMAIL_BEFORE:-}" ]; then
        cp "$NIGHTMAIL_BEFORE" "$root/before.deb"
        inside "$root" alone dpkg -i --force-downgrade /before.deb >"$work/log" 2>&1 ||
            { cat "$work/log" >&2; fails "an earlier package"; }
    fi
    cp packaging/{topology,booted,rebooted}.sh "$root"
    boot "$root"
    in_booted /booted.sh "$release" || fails "trying its service"
    halt_it # as by a power cut
    boot "$root"
    in_booted /rebooted.sh "$release" || fails "trying its service after a boot"
    halt_it
    rm -rf "$root/before.deb" "$root/dist"
    left=$(find "$root" -xdev -iname '*nightmail*' -not -path "$root/proc/*")
    [ -z "$left" ] || fails "left of it: $left"
    ! grep -q nightmail "$root/etc/passwd" "$root/etc/group" || fails "its user is left"
    holds "nothing is left of it"
    rm -rf --one-file-system "$base" "$build" "$root"
}

for release in "${releases[@]}"; do try; done
