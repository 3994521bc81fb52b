#!/bin/bash
# What packaging/try.sh does inside: the installed package in each placement, with real mail servers.
set -euo pipefail
release=$1
holds() { printf '%-9s %s\n' "$release" "$1"; }
fails() { printf '%-9s FAILED: %s\n' "$release" "$1"; exit 1; }
folder=/var/lib/nightmail-lab

kernel_of() { # what `down` must give back: rules without counters and empty chains, routing rules, our switches
    nightmail lab exec "$1" -- sh -c '
        iptables-save; ip6tables-save; nft list ruleset; ip rule; ip -6 rule; ip route show table all
        sysctl net.ipv4.tcp_early_demux' 2>/dev/null | sed 's/\[[0-9:]*\]//; /^#/d; /^:.*ACCEPT/d; /^\*/d; /^COMMIT/d' |
        grep -v 'table ip6\? \(filter\|nat\|mangle\|raw\) {\|^table\|^}\|^\s*$\|^\s*}\|chain \|type .* hook' || true
}

for placement in router host bridge; do
    nightmail lab up --placement "$placement" >/dev/null || fails "$placement: lab up"
    # On which node of site a the gateway stands, and its configuration.
    node=gw-a
    if [ "$placement" = host ]; then node=mta-a; fi
    here=(nightmail lab exec "$node" -- nightmail --config "$folder/gw-a/nightmail.toml")

    "${here[@]}" down >/dev/null || fails "$placement: down"
    before=$(kernel_of "$node")
    planned=$("${here[@]}" plan --json) || true
    grep -q add <<<"$planned" || fails "$placement: plan has nothing to add: $planned"
    "${here[@]}" up >/dev/null || fails "$placement: up"
    holds "$placement: plan and up"

    nightmail lab mail a b >/dev/null || fails "$placement: mail a to b"
    nightmail lab mail a b --six >/dev/null || fails "$placement: mail a to b by IPv6"
    nightmail lab mail a c >/dev/null || fails "$placement: mail a to c"
    nightmail lab mail c b >/dev/null || fails "$placement: mail c to b"
    status=$("${here[@]}" status --json) || fails "$placement: status"
    upgraded=$(grep -o '"upgraded[a-z-]*": [0-9]*' <<<"$status" | head -n 1)
    [ -n "$upgraded" ] || fails "$placement: no session was protected: $status"
    holds "$placement: mail arrives, to b protected"

    "${here[@]}" doctor >/tmp/doctor 2>&1 || { cat /tmp/doctor; fails "$placement: doctor"; }
    holds "$placement: doctor: $(head -n 1 /tmp/doctor)"

    "${here[@]}" down >/dev/null || fails "$placement: down"
    after=$(kernel_of "$node")
    [ "$before" = "$after" ] || { diff <(echo "$before") <(echo "$after"); fails "$placement: down leaves something"; }
    nightmail lab mail a b >/dev/null || fails "$placement: mail after down"
    holds "$placement: down, and the kernel is as before"
    nightmail lab down >/dev/null || fails "$placement: lab down"
done
rm -f /tmp/doctor
