#!/bin/bash
# What the proofs of the lab have in common: sourced by prove.sh, prove-vlan.sh and prove-host.sh, which are called
# [--json] [BOX FILE].
# Progress is on standard error, one verdict for each claim at the end, and no guest is left.
set -euo pipefail
json=no
[ "${1:-}" != --json ] || { json=yes; shift; }
box=${1:+$(realpath "$1")}
cd "$(dirname "$0")"
[ -z "$box" ] || export NIGHTMAIL_BOX=${NIGHTMAIL_BOX:-nightmail-lab}

CONNECT_LIMIT_MS=1000 # a lost SYN is sent again after a second: nothing may wait for a timer
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
listeners=()
listen() { # NETWORK FILE TCPDUMP'S FILTER...
    local bridge
    bridge=$(virsh net-info "nightmail-$1" | awk '/^Bridge:/ {print $2}')
    tcpdump -i "$bridge" --immediate-mode -s 0 -U -Z root -w "$2" "${@:3}" 2>/dev/null &
    listeners+=($!)
    for _ in $(seq 100); do [ ! -s "$2" ] || break; sleep 0.1; done
}
deaf() {
    local pid
    for pid in "${listeners[@]}"; do
        kill "$pid" 2>/dev/null || :
        wait "$pid" 2>/dev/null || :
    done
    listeners=()
}
finish() {
    deaf
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
    [ $holds = yes ] || say "what the gateways say: $(gateways_say)"
}
gateways_say() { # the guests are gone when somebody asks why a claim did not hold
    local guest
    for guest in $(sed -n 's/^Host //p' "$work/ssh" 2>/dev/null); do
        on "$guest" -o ConnectTimeout=10 "command -v nightmail >/dev/null || exit 0; echo; hostname
            sudo journalctl -u nightmail -b -o short-monotonic | tail -n 40" || :
    done
}

# --- The guests -------------------------------------------------------------------------------------------------
boot() { # GUEST...: these, from none, whatever a run before has left
    ls ../dist/nightmail_*.deb >/dev/null 2>&1 || { echo "no package in dist/: packaging/build-for.sh makes it" >&2; exit 2; }
    vagrant validate 2>&1 | told
    [ -z "$box" ] || vagrant box add --force --name "$NIGHTMAIL_BOX" "$box" 2>&1 | told
    # What a killed run has left would be taken as it is, an older package and all.
    vagrant destroy -f 2>&1 | told
    vagrant up "$@" 2>&1 | told
    vagrant ssh-config "$@" >"$work/ssh"
    local running
    running=$(vagrant status | grep -c ' running ' || :)
    verdict "guests are up" "$running" "of $#" "$running" = $#
    say "the guests: $(on gw-b '. /etc/os-release; echo "$PRETTY_NAME, kernel $(uname -r), $(systemctl --version | sed -n 1p)"')"
}

protects() { # GATEWAY: waits until `status` says that mail is protected now
    on "$1" "until sudo systemctl -q is-active nightmail && sudo nightmail status >/dev/null; do [ \$SECONDS -lt $PROTECT_SECONDS ] || exit 1; sleep 2; done"
}
number() { tr -dc 0-9 | grep . || echo -1; }
new_word() { word=w$RANDOM$RANDOM$RANDOM; }
client=mta-a sender=alice@a.test # who sends, and opens connections, until a proof says otherwise
send() { # DOMAIN USER WORD: the client's own Postfix sends it; the word is in envelope, subject and body
    on $client "printf 'From: $sender\nTo: $2@$1\nSubject: subject-$3\n\nbody-$3\n' |
        /usr/sbin/sendmail -f sender-$3@${sender#*@} $2@$1"
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

# All its processes at once, and systemd forbidden to start it anew: what comes next must pass by itself.
kill_all() { # GATEWAY
    on "$1" 'sudo mkdir -p /run/systemd/system/nightmail.service.d
        printf "[Service]\nRestart=no\n" | sudo tee /run/systemd/system/nightmail.service.d/no.conf >/dev/null
        sudo systemctl daemon-reload
        sudo systemctl kill -s KILL --kill-whom=all nightmail'
}
start_again() { # GATEWAY
    on "$1" 'sudo rm -r /run/systemd/system/nightmail.service.d; sudo systemctl daemon-reload; sudo systemctl start nightmail'
}
connects_after() { # NAME OF A MAIL SERVER: milliseconds until the client is connected to it; -1 if greeted never, or by a second SYN
    on $client python3 - "$1" <<'P' | number
import socket, sys, time
TOTAL_RETRANS = slice(100, 104)  # of struct tcp_info, <linux/tcp.h>
began = time.monotonic()
with socket.create_connection((sys.argv[1], 25), 60) as s:
    connected = time.monotonic()
    again = any(s.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)[TOTAL_RETRANS])
    if s.recv(3) == b"220" and not again:
        print(round((connected - began) * 1000))
P
}

# A client in mid-session must hear at once of its gateway's end.
stand_in_session() { # NAME OF A MAIL SERVER: the client greets it, and waits
    on $client "cat >/tmp/client.py; rm -f /tmp/ready /tmp/ended; nohup python3 /tmp/client.py $1 >/dev/null 2>&1 &"'
        for i in $(seq 300); do [ -e /tmp/ready ] && exit; sleep 0.1; done; exit 1' <<'P' || say "no session in mid-work"
import pathlib, socket, sys, time
s = socket.create_connection((sys.argv[1], 25), 60)
s.recv(999)
s.sendall(b"EHLO client.test\r\n")
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
}
session_ended() { # 1 if it has ended within seconds
    on $client 'for i in $(seq 50); do [ -s /tmp/ended ] && break; sleep 0.1; done; grep -c "^[0-9]" /tmp/ended' | number
}
ours_left() { # GUEST: takes Nightmail down there; how many lines of rules and routes are ours still
    on "$1" 'sudo nightmail down >/dev/null && (sudo iptables-save; sudo ip6tables-save; sudo nft list ruleset 2>/dev/null
        ip rule; ip -6 rule; ip route show table all; ip -6 route show table all) |
        grep -ciE "nightmail|2525" || :' | number
}

# --- The end ----------------------------------------------------------------------------------------------------
tell() { # what there is to say at the end; its exit status is that of the proof
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
    return $failed
}
