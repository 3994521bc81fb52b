#!/bin/bash
# The gateway on a mail server itself, on a stock kernel: prove-host.sh [--json] [BOX FILE]
#   vagrant/lab.sh run vagrant/prove-host.sh nightmail-lab.box
# Nightmail is put on mta-c with one line of configuration; mta-b is behind gw-b, a router. Mail both ways, and again beside a
# rule of NAT that names no interface and a firewall that drops what it does not know; then the daemon is killed, started anew,
# and taken down. As prove.sh else.
. "$(dirname "$0")/proof.sh"

# --- Up ---------------------------------------------------------------------------------------------------------
boot gw-b mta-b mta-c
on mta-c 'cat >/tmp/nightmail.deb' <"$(ls -t ../dist/nightmail_*.deb | head -n 1)"
on mta-c "sudo DEBIAN_FRONTEND=noninteractive apt-get -qqy --no-install-recommends -o Dpkg::Options::=--force-unsafe-io install /tmp/nightmail.deb >/dev/null
    printf 'placement = \"host\"\n[daemon]\nworkers = 1\n' | sudo tee /etc/nightmail/nightmail.toml >/dev/null
    sudo nightmail up" 2>&1 | told
protecting=0
for gateway in gw-b mta-c; do
    if protects $gateway; then protecting=$((protecting + 1)); fi
done
verdict "gateways protect (b: router; c: the mail server itself)" $protecting "of 2" $protecting = 2

# --- What is looked at ------------------------------------------------------------------------------------------
sealed() { # DIRECTION: sessions by mta-c's gateway
    on mta-c sudo nightmail status --json | python3 -c '
import json, sys
print(sum(json.load(sys.stdin)["counters"]["decided"].get(sys.argv[1], {}).get("upgraded", {}).values()))' "$1"
}
addresses_of_b="$(on mta-b "hostname -I")"
client_was_b() { # WORD: whether mta-c's Postfix had that mail from an address of mta-b's
    local by
    by=$(on mta-c "sudo sed -n '/^Received: from/,/^\tby/p;/^\$/q' \$(sudo grep -lrs body-$1 /home/carol/Maildir/new)")
    local address
    for address in $addresses_of_b; do
        case $by in *"[$address]"* | *"[IPv6:$address]"*) return 0 ;; esac
    done
    say "the client of $1 was: $by"
    return 1
}
to_b() { client=mta-c sender=carol@c.test; deliver mta-b bob "$1"; }
to_c() { client=mta-b sender=bob@b.test; deliver mta-c carol "$1"; }
both_ways() { # WHAT HAS BEEN DONE BEFORE: four mails, sealed, from whom they are
    local out=$(sealed out) in=$(sealed in) known=0 domain seen
    arrived=0
    dark=()
    for domain in b.test six.b.test; do to_b $domain; dark+=("$word"); done
    for domain in c.test six.c.test; do
        to_c $domain
        dark+=("$word")
        if client_was_b "$word"; then known=$((known + 1)); fi
    done
    out=$(($(sealed out) - out)) in=$(($(sealed in) - in))
    verdict "$1: mails arrive (out, in; IPv4, IPv6)" $arrived "of 4" $arrived = 4
    verdict "$1: sessions sealed" $((out + in)) "of 4" $out$in = 22
    seen=$(read_on_wire "${dark[@]}")
    verdict "$1: words on the wire" "$seen" "of 12" "$seen" = 0
    verdict "$1: mails in that came from their client's address" $known "of 2" $known = 2
}

# --- Mail -------------------------------------------------------------------------------------------------------
listen wire "$work/wire.pcap" tcp port 25
both_ways "as installed"
heard=$(octets_with $addresses_of_b)
verdict "octets to and from b that the listener heard" "$heard" octets "$heard" -gt 4000

on mta-c 'sudo bash -eu' <<'R'
for tables in iptables ip6tables; do
    $tables -t nat -A POSTROUTING -j MASQUERADE
    $tables -A INPUT -i lo -j ACCEPT
    $tables -A INPUT -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT
    $tables -A INPUT -p tcp -m multiport --dports 22,25 -j ACCEPT
done
iptables -A INPUT -p icmp -j ACCEPT
ip6tables -A INPUT -p ipv6-icmp -j ACCEPT
iptables -P INPUT DROP
ip6tables -P INPUT DROP
R
both_ways "beside NAT and a firewall"

# --- The gateway dies -------------------------------------------------------------------------------------------
client=mta-b
stand_in_session c.test
kill_all mta-c
for way in "in mta-b c.test" "out mta-c b.test"; do
    read -r direction client name <<<"$way"
    gap=$(connects_after "$name")
    verdict "gateway killed: next connection $direction after" "$gap" ms "$gap" -ge 0 -a "$gap" -le $CONNECT_LIMIT_MS
done
client=mta-b
ended=$(session_ended)
verdict "gateway killed: session in mid-work ends at once" "$ended" "of 1" "$ended" = 1
arrived=0
to_b b.test
to_c c.test
verdict "gateway killed: next mails come, out and in" $arrived "of 2" $arrived = 2
start_again mta-c
protects mta-c || say "mail is not protected again"
both_ways "started again"

# --- Down and away ----------------------------------------------------------------------------------------------
ours=$(ours_left mta-c)
verdict "rules and routes of ours left after down" "$ours" lines "$ours" = 0
arrived=0
to_b b.test
open=("$word")
to_c c.test
open+=("$word")
seen=$(read_on_wire "${open[@]}")
verdict "words on the wire, both ways, after down" "$seen" "of 6" $arrived$seen = 26
deaf

for guest in gw-b mta-b mta-c; do hang_up $guest; done
vagrant destroy -f 2>&1 | told
left=$(virsh list --all --name | grep -c nightmail || :)
verdict "guests left" "$left" guests "$left" = 0
tell
