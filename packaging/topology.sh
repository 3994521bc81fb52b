#!/bin/bash
# The network that a booted root file system of packaging/try.sh stands in, and what is done in it: sourced by booted.sh
# and rebooted.sh, and run by units at that system's boot (topology.sh WORD...).
# mail 10.1.0.10 -- 10.1.0.1 this system 10.0.0.1 -- 10.0.0.2 far 10.2.0.1 -- 10.2.0.10 world
set -euo pipefail
holds() { printf '%-9s %s\n' "$release" "$1"; }
fails() { printf '%-9s FAILED: %s\n' "$release" "$1"; journalctl -u nightmail --no-pager -n 40; exit 1; }
within() { # SECONDS COMMAND...
    local until=$((SECONDS + $1))
    shift
    until "$@" >/dev/null 2>&1; do
        [ "$SECONDS" -lt "$until" ] || return 1
        sleep 0.2
    done
}

cable() { ip link add "$1" netns "$2" type veth peer name "$3" netns "$4"; } # NAME NAMESPACE NAME NAMESPACE
address() { # NAMESPACE NAME ADDRESS
    ip -n "$1" address add "$3" dev "$2"
    ip -n "$1" link set "$2" up
}
cables() {
    local name
    for name in mail far world; do
        ip netns add $name
        ip -n $name link set lo up
    done
    ip netns attach here 1
    cable inside here eth0 mail
    cable outside here outside far
    cable inside far eth0 world
}
addresses() {
    address here inside 10.1.0.1/24
    address mail eth0 10.1.0.10/24
    address here outside 10.0.0.1/24
    address far outside 10.0.0.2/24
    address far inside 10.2.0.1/24
    address world eth0 10.2.0.10/24
    ip -n mail route add default via 10.1.0.1
    ip -n world route add default via 10.2.0.1
    ip route add 10.2.0.0/24 via 10.0.0.2
    ip -n far route add 10.1.0.0/24 via 10.0.0.1
    sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1
    ip netns exec far sysctl -qw net.ipv4.ip_forward=1
}

sink() { ip netns exec world smtp-sink -u postfix 10.2.0.10:25 500 & }
far() { # The far gateway is no service: two of them on one system are two files of configuration.
    mkdir -p /var/tmp/far
    cat >/var/tmp/far/nightmail.toml <<'TOML'
[interfaces]
inside = ["inside"]
outside = ["outside"]
[daemon]
state_dir = "/var/tmp/far/state"
run_dir = "/var/tmp/far/run"
TOML
    ip netns exec far nightmail --config /var/tmp/far/nightmail.toml run >/var/tmp/far/log 2>&1 &
    far=$!
    within 30 ip netns exec far nightmail --config /var/tmp/far/nightmail.toml status
}

mails() { # COUNT: from the mail server to the world, one a session
    timeout 120 ip netns exec mail /usr/bin/python3 -c '
import smtplib, sys
for number in range(int(sys.argv[1])):
    with smtplib.SMTP("10.2.0.10", 25, "a.test", 30) as server:
        server.sendmail("alice@a.test", ["bob@b.test"], f"Subject: {number}\n\nbody\n")' "$1"
}
mails_until() { # FILE: one after the other until that file is there; a session begun before them ends after it
    timeout 300 ip netns exec mail /usr/bin/python3 -c '
import os, smtplib, sys
def connected(): return smtplib.SMTP("10.2.0.10", 25, "a.test", 30)
def send(server): server.sendmail("alice@a.test", ["bob@b.test"], "Subject: one\n\nbody\n")
sent = 0
with connected() as long:
    send(long)
    while not os.path.exists(sys.argv[1]):
        with connected() as server:
            send(server)
        sent += 1
    send(long)
print(sent + 1)' "$1"
}
how_many_sealed() { # sessions that have left this system
    nightmail status --json | python3 -c '
import json, sys
print(sum(json.load(sys.stdin)["counters"]["decided"].get("out", {}).get("upgraded", {}).values()))'
}
sealed() { [ "$(how_many_sealed)" -ge "$1" ]; } # COUNT: so many, at least

if [ "${BASH_SOURCE[0]}" = "$0" ]; then
    for word in "$@"; do $word; done
fi
