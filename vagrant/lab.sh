#!/bin/bash
# Vagrant with a libvirtd of its own, in namespaces of their own (network, mount, process): no bridge, no rule, no
# file below /etc/libvirt or /var/lib/libvirt and no process of the machine is touched, and the end of process 1 of
# the namespaces is the end of every guest. For machines without libvirt and for tests; as root.
#
#   lab.sh setup            install what it needs (Debian 12 or 13)
#   lab.sh start            start libvirtd
#   lab.sh exec COMMAND     run COMMAND inside, in the current directory
#   lab.sh stop             end everything
#   lab.sh run COMMAND      start, exec, and stop whatever COMMAND's exit status was
#
# LAB_DIR holds all state (default: .lab beside this script); after `stop` it may be removed.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
LAB_DIR=$(realpath -m "${LAB_DIR:-$here/.lab}")
pidfile=$LAB_DIR/pid

alive() { # a stale pid file must never lead to another process
    [ -s "$pidfile" ] && [ -r "/proc/$(cat "$pidfile")/environ" ] &&
        grep -qzFx "LAB_DIR=$LAB_DIR" "/proc/$(cat "$pidfile")/environ"
}

inside() { # process 1 of the new namespaces
    # /sys shows the network namespace it was mounted in, and libvirt reads
    # bridges there; /run gets the sockets and pid files.
    mount -t sysfs sysfs /sys
    mount -t tmpfs tmpfs /run
    local d
    for d in etc/libvirt var/lib/libvirt var/cache/libvirt var/log/libvirt; do
        mkdir -p "$LAB_DIR/$d"
        mount --bind "$LAB_DIR/$d" "/$d"
    done
    ip link set lo up
    # Else frames between two guests pass the connection tracking of this
    # namespace: a transparent proxy has the same addresses and ports on two
    # bridges, which would be taken for one connection.
    if [ -e /proc/sys/net/bridge/bridge-nf-call-iptables ]; then
        sysctl -qw net.bridge.bridge-nf-call-iptables=0 \
            net.bridge.bridge-nf-call-ip6tables=0
    fi
    cat >/etc/libvirt/libvirtd.conf <<CONF
auth_unix_ro = "none"
auth_unix_rw = "none"
log_outputs = "2:file:/var/log/libvirt/libvirtd.log"
CONF
    # No cgroups, no security driver, no mount namespace per guest, and no
    # virtlogd: libvirtd alone is enough.
    cat >/etc/libvirt/qemu.conf <<CONF
user = "root"
group = "root"
security_driver = "none"
cgroup_controllers = [ ]
namespaces = [ ]
remember_owner = 0
stdio_handler = "file"
CONF
    # For machines whose firmware has no UUID to offer.
    echo "host_uuid = \"$(cat /proc/sys/kernel/random/uuid)\"" >>/etc/libvirt/libvirtd.conf
    trap 'exit 0' TERM
    libvirtd --pid-file /run/libvirtd.pid &
    wait
}

start() {
    ! alive || { echo "already started: $pidfile" >&2; exit 1; }
    mkdir -p "$LAB_DIR"
    export LAB_DIR
    setsid unshare --net --mount --pid --fork --kill-child --mount-proc \
        "$here/lab.sh" inside </dev/null >"$LAB_DIR/inside.log" 2>&1 &
    local outer=$! i first=
    for i in $(seq 100); do
        [ -d "/proc/$outer" ] || break
        first=$(cat "/proc/$outer/task/$outer/children" 2>/dev/null || :)
        first=${first%% *}
        if [ -n "$first" ]; then
            echo "$first" >"$pidfile"
            # A session of its own is scheduled as a group, within which alone `nice` counts: the group gets ours.
            { nice >"/proc/$first/autogroup"; } 2>/dev/null || :
            # virsh connects only once libvirtd listens.
            ! lab_exec virsh -c qemu:///system version >/dev/null 2>&1 || return 0
        fi
        sleep 0.2
    done
    echo "libvirtd did not start:" >&2
    cat "$LAB_DIR/inside.log" >&2
    stop
    exit 1
}

lab_exec() {
    alive || { echo "not started" >&2; return 1; }
    env VAGRANT_HOME="$LAB_DIR/vagrant.d" VAGRANT_DOTFILE_PATH="$LAB_DIR/dot" \
        VAGRANT_DEFAULT_PROVIDER=libvirt VAGRANT_CHECKPOINT_DISABLE=1 \
        VAGRANT_BOX_UPDATE_CHECK_DISABLE=1 \
        nsenter -t "$(cat "$pidfile")" --net --mount --pid --wdns="$PWD" "$@"
}

stop() {
    alive || return 0
    local first i
    first=$(cat "$pidfile")
    # A process 1 dies only by SIGKILL from outside, and takes all others of
    # its namespace along.
    kill -KILL "$first" 2>/dev/null || :
    for i in $(seq 50); do [ -d "/proc/$first" ] || break; sleep 0.1; done
    rm -f "$pidfile"
}

setup() {
    # libvirt-daemon-system-sysv, because the other one wants systemd itself; policy-rc.d, because no libvirtd of
    # the machine's own is needed, and nothing that is not wanted should start.
    local package missing=()
    for package in vagrant vagrant-libvirt libvirt-daemon-system libvirt-daemon-system-sysv qemu-system-x86 qemu-utils \
        dnsmasq-base ebtables rsync openssh-client iproute2 procps tcpdump \
        mmdebstrap e2fsprogs fdisk grub-common grub-pc-bin; do
        dpkg -s "$package" >/dev/null 2>&1 || missing+=("$package")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    local made=no
    if [ ! -e /usr/sbin/policy-rc.d ]; then
        printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
        chmod 755 /usr/sbin/policy-rc.d
        made=yes
    fi
    local code=0
    . "$here/../scripts/apt.sh"
    { apt_update && apt_install "${missing[@]}"; } || code=$?
    [ $made = no ] || rm -f /usr/sbin/policy-rc.d
    return $code
}

cmd=${1:?setup, start, exec, stop or run}
shift
case $cmd in
inside) inside ;;
setup) setup ;;
start) start ;;
exec) lab_exec "$@" ;;
stop) stop ;;
run)
    trap stop EXIT
    start
    rc=0
    lab_exec "$@" || rc=$?
    exit $rc
    ;;
*) echo "unknown: $cmd" >&2; exit 2 ;;
esac
