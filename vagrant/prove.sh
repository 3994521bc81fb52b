#!/bin/bash
# Boots the lab and proves it, from no guest to no guest: prove.sh [--json] [BOX FILE]
#   vagrant/lab.sh run vagrant/prove.sh nightmail-lab.box
# Mail from a to b and to c, a listener on the wire, a gateway killed, one started anew, rules taken down, everything
# halted; then one verdict for each claim. Exit status 0 only if all hold. Progress is on standard error. Needs
# libvirt: the listener listens on the wire's bridge. Of another lab's guests of the same names none may be up.
set -euo pipefail
json=no
[ "${1:-}" != --json ] || { json=yes; shift; }
box=${1:+$(realpath "$1")}
cd "$(dirname "$0")"
[ -z "$box" ] || export NIGHTMAIL_BOX=${NIGHTMAIL_BOX:-nightmail-lab}

CONNECT_LIMIT_MS=500 # half of the first retransmission of a lost SYN: nothing may wait for a timer
PROTECT_SECONDS=180  # an emulated CPU starts a Python program in seconds, two at once in more
MAIL_SECONDS=90

work=$(mktemp -d)
say() { printf '[%4ds] %s\n' "$SECONDS" "$*" >&2; }
virsh() { command virsh -q -c qemu:///system "$@"; }
# One connection for each guest: an emulated CPU needs seconds for a login.
on() { ssh -q -F "$work/ssh" -o ControlMaster=auto -o "ControlPath=$work/%n" -o ControlPersist=yes "$@"; }
hang_up() { ssh -q -F "$work/ssh" -o "ControlPath=$work/$1" -O exit "$1" 2>/dev/null || :; }
# Vagrant draws a bar, thousands of times, where there is no terminal too.
told() {
    stdbuf -oL tr '\r' '\n' | grep --line-buffered -v -E 'Progress:.*%|==>.* -- |^\s*$' |
        while IFS= read -r line; do say "$line"; done
}
finish() {
    [ -z "${listener:-}" ] || kill "$listener" 2>/dev/null || :
    vagrant destroy -f >/dev/null 2>&1 || :
    rm -rf "$work"
}
trap finish EXIT

claims=()
failed=0
verdict() { # CLAIM FIGURE UNIT TEST...: holds if the test of `[` does
    local claim=$1 figure=$2 unit=$3 holds=yes
    shift 3
    [ "$@" ] || { holds=NO; failed=1; }
    claims+=("$claim|$figure|$unit|$holds")
    say "$claim: $figure $unit: $holds"
}

protects() { # GATEWAY: waits until `status` says that mail is protected now
    on "$1" "until sudo systemctl -q is-active nightmail && sudo nightmail status >/dev/null; do [ \$SECONDS -lt $PROTECT_SECONDS ] || exit 1; sleep 2; done"
}
number() { tr -dc 0-9 | grep . || echo -1; }
new_word() { word=w$RANDOM$RANDOM$RANDOM; }
send() { # DOMAIN USER WORD: mta-a's own Postfix sends it; the word is in envelope, subject and body
    on mta-a "printf 'From: alice@a.test\nTo: $2@$1\nSubject: subject-$3\n\nbody-$3\n' |
        /usr/sbin/sendmail -f sender-$3@a.test $2@$1"
}
came() { # SERVER USER WORD
    on "$1" "for i in \$(seq $((2 * MAIL_SECONDS))); do
        sudo grep -rqs body-$3 /home/$2/Maildir/new && exit; sleep 0.5; done; exit 1"
}
deliver() { # SERVER USER DOMAIN -> $word, and one more in $arrived if it came
    new_word
    if send "$3" "$2" "$word" && came "$1" "$2" "$word"; then arrived=$((arrived + 1)); fi
}
read_on_wire() { # WORD...: how many of the three places of each the listener could read
    local word place found=0
    for word; do
        for place in sender subject body; do
            ! LC_ALL=C grep -aqF "$place-$word" "$work/wire.pcap" || found=$((found + 1))
        done
    done
    echo $found
}
octets_with() { # ADDRESS...: what the listener has heard of them
    local filter
    filter=$(printf ' or host %s' "$@")
    tcpdump -r "$work/wire.pcap" -n "${filter# or }" 2>/dev/null | sed -n 's/.* length \([0-9]*\).*/\1/p' |
        awk '{sum += $1} END {print sum + 0}'
}

# --- Up ---------------------------------------------------------------------------------------------------------
ls ../dist/nightmail_*.deb >/dev/null 2>&1 || { echo "no package in dist/: packaging/build.sh makes it" >&2; exit 2; }
vagrant validate 2>&1 | told
[ -z "$box" ] || vagrant box add --force --name "$NIGHTMAIL_BOX" "$box" 2>&1 | told
# What a killed run has left would be taken as it is, an older package and all.
vagrant destroy -f 2>&1 | told
vagrant up 2>&1 | told
vagrant ssh-config >"$work/ssh"
verdict "guests are up" "$(vagrant status | grep -c ' running ' || :)" "of 5" "$(vagrant status | grep -c ' running ')" = 5
say "kernel of the gateways: $(on gw-a uname -rv)"
protecting=0
for gateway in gw-a gw-b; do
    if protects $gateway; then protecting=$((protecting + 1)); fi
done
verdict "gateways protect, from the Debian package" $protecting "of 2" $protecting = 2
exposure=$(on gw-a "sudo systemd-analyze security --no-pager nightmail" | sed -n 's/.*exposure level.*: \([0-9.]*\).*/\1/p')
verdict "exposure of the service (systemd-analyze security)" "${exposure:--1}" "of 10" -n "$exposure"

# --- Mail, and the listener -------------------------------------------------------------------------------------
bridge=$(virsh net-info nightmail-wire | awk '/^Bridge:/ {print $2}')
tcpdump -i "$bridge" -s 0 -U -Z root -w "$work/wire.pcap" tcp port 25 2>/dev/null &
listener=$!
for i in $(seq 100); do [ ! -s "$work/wire.pcap" ] || break; sleep 0.1; done

arrived=0
dark=() open=()
for domain in b.test six.b.test; do deliver mta-b bob $domain; dark+=("$word"); done
for domain in c.test six.c.test; do deliver mta-c carol $domain; open+=("$word"); done
verdict "mails arrived (to b, to c; IPv4, IPv6)" $arrived "of 4" $arrived = 4
sealed=$(on gw-b "sudo nightmail status --json" | python3 -c '
import json, sys
print(sum(json.load(sys.stdin)["counters"]["decided"]["in"]["upgraded"].values()))' || echo 0)
verdict "sessions that gw-b carried sealed" "$sealed" "of 2" "$sealed" = 2
heard=$(octets_with $(on mta-b "hostname -I"))
verdict "octets to and from b that the listener heard" "$heard" octets "$heard" -gt 2000
seen=$(read_on_wire "${dark[@]}")
verdict "words on the wire, a to b" "$seen" "of 6" "$seen" = 0
seen=$(read_on_wire "${open[@]}")
verdict "words on the wire, a to c (one gateway)" "$seen" "of 6" "$seen" = 6

# --- A gateway dies ---------------------------------------------------------------------------------------------
# All its processes at once, and systemd forbidden to start it anew: what comes next must pass by itself. A client
# stands in mid-session and must hear of it at once.
on gw-a 'sudo mkdir -p /run/systemd/system/nightmail.service.d
    printf "[Service]\nRestart=no\n" | sudo tee /run/systemd/system/nightmail.service.d/no.conf >/dev/null
    sudo systemctl daemon-reload'
on mta-a 'cat >/tmp/client.py; rm -f /tmp/ready /tmp/ended; nohup python3 /tmp/client.py >/dev/null 2>&1 &
    for i in $(seq 300); do [ -e /tmp/ready ] && exit; sleep 0.1; done; exit 1' <<'P' || say "no session in mid-work"
import pathlib, socket, time
s = socket.create_connection(("b.test", 25), 60)
s.recv(999)
s.sendall(b"EHLO a.test\r\n")
s.recv(999)
pathlib.Path("/tmp/ready").touch()
try:
    ended = not s.recv(999)
except ConnectionError:
    ended = True
except TimeoutError:
    ended = False
pathlib.Path("/tmp/ended").write_text(str(ended and time.time()))
P
on gw-a 'sudo systemctl kill -s KILL --kill-whom=all nightmail'
gap=$(on mta-a python3 - <<'P' | number
import socket, time
began = time.monotonic()
with socket.create_connection(("b.test", 25), 60) as s:
    connected = time.monotonic()
    if s.recv(3) == b"220":
        print(round((connected - began) * 1000))
P
)
verdict "gateway killed: next connection after" "$gap" ms "$gap" -ge 0 -a "$gap" -le $CONNECT_LIMIT_MS
ended=$(on mta-a 'for i in $(seq 50); do [ -s /tmp/ended ] && break; sleep 0.1; done; grep -c "^[0-9]" /tmp/ended' | number)
verdict "gateway killed: session in mid-work ends at once" "$ended" "of 1" "$ended" = 1
arrived=0
deliver mta-b bob b.test
verdict "gateway killed: next mail comes" $arrived "of 1" $arrived = 1
on gw-a 'sudo rm -r /run/systemd/system/nightmail.service.d; sudo systemctl daemon-reload; sudo systemctl start nightmail'
protecting=0
if protects gw-a; then protecting=1; fi
arrived=0
deliver mta-b bob b.test
seen=$(read_on_wire "$word")
verdict "sealed again after its restart" "$((arrived * protecting))" "of 1 mail" "$arrived$protecting$seen" = 110

# --- The other one boots ----------------------------------------------------------------------------------------
hang_up gw-b
vagrant reload gw-b 2>&1 | told
protecting=0
if protects gw-b; then protecting=1; fi
arrived=0
deliver mta-b bob b.test
v4=$word
deliver mta-b bob six.b.test
seen=$(read_on_wire "$v4" "$word")
verdict "sealed again after a reboot (IPv4, IPv6)" "$((arrived * protecting))" "of 2 mails" "$arrived$protecting$seen" = 210

# --- Down and away ----------------------------------------------------------------------------------------------
ours=$(on gw-a 'sudo nightmail down >/dev/null && (sudo iptables-save; sudo ip6tables-save; sudo nft list ruleset
    ip rule; ip -6 rule; ip route show table all; ip -6 route show table all) |
    grep -ciE "nightmail|2525" || :' | number)
verdict "rules and routes of ours left after down" "$ours" lines "$ours" = 0
arrived=0
deliver mta-b bob b.test
seen=$(read_on_wire "$word")
verdict "words on the wire, a to b, after down" "$seen" "of 3" "$arrived$seen" = 13
kill "$listener"
wait "$listener" 2>/dev/null || :
listener=
for guest in gw-a gw-b mta-a mta-b mta-c; do hang_up $guest; done
vagrant halt 2>&1 | told
halted=$(vagrant status | grep -c ' shutoff ' || :)
verdict "guests halted in order" "$halted" "of 5" "$halted" = 5
vagrant destroy -f 2>&1 | told
left=$(virsh list --all --name | grep -c nightmail || :)
verdict "guests left" "$left" guests "$left" = 0

if [ $json = yes ]; then
    printf '%s\n' "${claims[@]}" | python3 -c '
import json, sys
rows = [line.rstrip("\n").split("|") for line in sys.stdin]
verdicts = [{"claim": c, "holds": h == "yes", "figure": float(f), "unit": u} for c, f, u, h in rows]
holds = all(v["holds"] for v in verdicts)
print(json.dumps({"verdicts": verdicts, "holds": holds, "seconds": int(sys.argv[1])}, indent=2))' $SECONDS
else
    printf '%s\n' "${claims[@]}" | while IFS='|' read -r claim figure unit holds; do
        printf '%-52s %8s %-12s %s\n' "$claim" "$figure" "$unit" "$holds"
    done
    [ $failed = 1 ] || echo "every claim holds, after $SECONDS s"
    [ $failed = 0 ] || echo "NOT every claim holds, after $SECONDS s"
fi
exit $failed
