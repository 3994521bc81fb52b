#!/bin/bash
# VLAN tags and a gateway in the cable, on a stock kernel: prove-vlan.sh [--json] [BOX FILE]
#   vagrant/lab.sh run vagrant/prove-vlan.sh nightmail-lab.box
# gw-a stands as a bridge between mta-a and the wire; mta-a and gw-b speak to each other without a tag, and with that of a
# VLAN. First the bridge is of the two cards: frames with a tag pass it as they are. Then it is of the VLAN's interfaces on
# them: mail of that VLAN is sealed, and its frames keep their tag. At last it is of the cards again, and tells VLANs apart: in
# whichever frames without a tag are, mail in them is sealed, unless they have a tag on one side. As prove.sh else.
. "$(dirname "$0")/proof.sh"

VLAN=7

# --- Up ---------------------------------------------------------------------------------------------------------
boot gw-a gw-b mta-a mta-b

# mta-a moves to the wire's network, and reaches mta-b at one address without a tag, at another one with it.
device_of() { on "$1" ip -o -4 addr show to "$2" | awk '{print $2; exit}'; } # GUEST ADDRESS
tag() { # GUEST DEVICE ADDRESS: an interface of the VLAN on a device
    on "$1" "sudo ip link add link $2 name $2.$VLAN type vlan id $VLAN
        sudo ip addr add $3 dev $2.$VLAN; sudo ip link set $2.$VLAN up"
}
site=$(device_of mta-a 10.11.0.10)
inside=$(device_of gw-a 10.11.0.254)
outside=$(device_of gw-a 198.51.100.11)
wire=$(device_of gw-b 198.51.100.12)
on mta-a "sudo ip route flush via 10.11.0.254
    sudo ip addr add 198.51.100.10/24 dev $site
    sudo ip route add 10.12.0.0/24 via 198.51.100.12 src 198.51.100.10"
tag mta-a "$site" 192.0.2.10/24
on mta-a "sudo ip route add 10.12.0.17 via 192.0.2.12 src 192.0.2.10
    echo '10.12.0.17 vlan.b.test' | sudo tee -a /etc/hosts >/dev/null; sudo systemctl restart postfix"
tag gw-b "$wire" 192.0.2.12/24
on gw-b "sudo sed -i 's/^outside = .*/outside = [\"$wire\", \"$wire.$VLAN\"]/' /etc/nightmail/nightmail.toml
    sudo systemctl restart --no-block nightmail"
on mta-b "sudo ip addr add 10.12.0.17/24 dev \$(ip -o -4 addr show to 10.12.0.10 | awk '{print \$2; exit}')
    sudo ip route add 192.0.2.0/24 via 10.12.0.254
    sudo postconf -e \"\$(sudo postconf mydestination), vlan.b.test\"; sudo systemctl reload postfix"

bridge() { # NAME INSIDE OUTSIDE [COMMANDS]: a bridge of the two on gw-a, after these commands Nightmail on it
    on gw-a "cat >/tmp/bridge.sh; sudo bash -eu /tmp/bridge.sh" <<B
nightmail down
systemctl stop nightmail
ip link add $1 type bridge stp_state 0 forward_delay 0
ip link set $2 master $1 up
ip link set $3 master $1 up
ip link set $1 up
${4:-}
cat >/etc/nightmail/nightmail.toml <<'TOML'
placement = "bridge"
[interfaces]
inside = ["$2"]
outside = ["$3"]
[bridge]
name = "$1"
[daemon]
workers = 1
TOML
nightmail up
B
}
on gw-a "sudo ip addr flush dev $inside; sudo ip addr flush dev $outside
    sudo sysctl -qw net.ipv4.ip_forward=0 net.ipv6.conf.all.forwarding=0"
bridge br0 "$inside" "$outside" 2>&1 | told
protecting=0
for gateway in gw-a gw-b; do
    if protects $gateway; then protecting=$((protecting + 1)); fi
done
verdict "gateways protect (a: bridge of two cards; b: router)" $protecting "of 2" $protecting = 2

# Debian's kernel has br_netfilter as a module, which asks for the frames of every bridge, and the service may load none.
shown=$(on gw-a cat '/proc/sys/net/bridge/bridge-nf-call-*' | tr -d '\n')
shown_on=${shown//0/}
verdict "switches that show other bridges' frames to iptables" ${#shown_on} "of 3" "$shown" = 000

# --- What is looked at ------------------------------------------------------------------------------------------
at_the_gate() { # connections whose first packet gw-a's gate has seen
    on gw-a sudo iptables-save -c -t raw | sed -n 's/^\[\([0-9]*\):.* -j NIGHTMAIL-GATE$/\1/p' |
        awk '{sum += $1} END {print sum + 0}'
}
sealed() { # sessions out, by gw-a
    on gw-a sudo nightmail status --json | python3 -c '
import json, sys
print(sum(json.load(sys.stdin)["counters"]["decided"].get("out", {}).get("upgraded", {}).values()))'
}
whole() { # DOMAIN -> $word, and one more in $arrived if it came, in $equal if no octet of its body differs
    new_word
    local sent got
    sent=$(on mta-a python3 - "$word" "$1" <<'P'
import hashlib, random, subprocess, sys
word, domain = sys.argv[1:]
draw = random.Random(word)
octets = bytes({*range(1, 256)} - {10, 13})
lines = [bytes(draw.choices(octets, k=draw.randrange(900))) for _ in range(60)]
body = b"\n".join([f"body-{word}".encode(), b".", b"..", b"From here", *lines]) + b"\n"
head = f"From: alice@a.test\nTo: bob@{domain}\nSubject: subject-{word}\n\n".encode()
command = ["/usr/sbin/sendmail", "-i", "-B8BITMIME", "-f", f"sender-{word}@a.test", f"bob@{domain}"]
subprocess.run(command, input=head + body, check=True)
print(hashlib.sha256(body).hexdigest())
P
    )
    came mta-b bob "$word" || return 0
    arrived=$((arrived + 1))
    got=$(on mta-b "sudo cat \$(sudo grep -lrs body-$word /home/bob/Maildir/new) | sed '1,/^\$/d' | sha256sum | cut -d' ' -f1")
    [ "$sent" != "$got" ] || equal=$((equal + 1))
}
as_they_came() { # octets in frames of the VLAN that are the same, at the same place of the same stream, on both sides of gw-a
    python3 - "$work/site.pcap" "$work/wire.pcap" $VLAN <<'P'
import struct, sys
def streams(path, vlan):
    """Of each octet of mail in the VLAN: in which frames' stream, with which MACs, addresses, ports, and at which place."""
    with open(path, "rb") as file:
        file.read(24)
        found = {}
        while head := file.read(16):
            frame = file.read(struct.unpack("<8xI4x", head)[0])
            if frame[12:14] != b"\x81\x00" or int.from_bytes(frame[14:16]) & 0xFFF != vlan or frame[16:18] != b"\x08\x00":
                continue
            packet = frame[18 : 18 + int.from_bytes(frame[20:22])]
            tcp = packet[4 * (packet[0] & 15) :]
            if packet[9] != 6 or 25 not in struct.unpack("!HH", tcp[:4]):
                continue
            stream = (frame[:12], packet[12:20], tcp[:4])
            place = int.from_bytes(tcp[4:8])
            found.update(((stream, place + at), octet) for at, octet in enumerate(tcp[4 * (tcp[12] >> 4) :]))
    return found
site, wire = (streams(path, int(sys.argv[3])) for path in sys.argv[1:3])
print(len(wire) if site == wire else -1)
P
}

# --- A bridge of the two cards ----------------------------------------------------------------------------------
listen site-a "$work/site.pcap"
listen wire "$work/wire.pcap"
arrived=0 equal=0
whole b.test
seen=$(read_on_wire "$word")
verdict "without a tag: mail arrives, octet for octet" $equal "of 1" $arrived$equal = 11
count=$(sealed)
verdict "without a tag: sessions sealed" "$count" "of 1" "$count" = 1
verdict "without a tag: words on the wire" "$seen" "of 3" "$seen" = 0

gated=$(at_the_gate)
arrived=0 equal=0
open=()
# Debian leaves it at 0; a machine may show frames with a tag to iptables, too.
for filtered in 0 1; do
    on gw-a sudo sysctl -qw net.bridge.bridge-nf-filter-vlan-tagged=$filtered
    whole vlan.b.test
    open+=("$word")
done
verdict "VLAN $VLAN: mails arrive, octet for octet" $equal "of 2" $arrived$equal = 22
seen=$(read_on_wire "${open[@]}")
verdict "VLAN $VLAN: words on the wire" "$seen" "of 6" "$seen" = 6
more=$(($(at_the_gate) - gated))
verdict "VLAN $VLAN: connections that came to the gate" $more "of 2" $more = 0 -a "$gated" -gt 0

# --- The gateway dies -------------------------------------------------------------------------------------------
on mta-a 'cat >/tmp/client.py; nohup python3 /tmp/client.py >/dev/null 2>&1 &
    for i in $(seq 300); do [ -e /tmp/ready ] && exit; sleep 0.1; done; exit 1' <<'P' || say "no session in mid-work"
import os, pathlib, smtplib, time
session = smtplib.SMTP("vlan.b.test", 25, "a.test", 60)
session.ehlo()
pathlib.Path("/tmp/ready").touch()
while not os.path.exists("/tmp/killed"):
    time.sleep(0.1)
pathlib.Path("/tmp/answered").write_text(str(session.quit()[0]))
P
kill_all gw-a
gap=$(connects_after b.test)
verdict "killed: next connection without a tag after" "$gap" ms "$gap" -ge 0 -a "$gap" -le $CONNECT_LIMIT_MS
gap=$(connects_after vlan.b.test)
verdict "killed: next connection in VLAN $VLAN after" "$gap" ms "$gap" -ge 0 -a "$gap" -le $CONNECT_LIMIT_MS
goes_on=$(on mta-a 'touch /tmp/killed
    for i in $(seq 50); do [ -s /tmp/answered ] && break; sleep 0.1; done; grep -c 221 /tmp/answered || :' | number)
verdict "killed: session of VLAN $VLAN in mid-work goes on" "$goes_on" "of 1" "$goes_on" = 1
arrived=0 equal=0
whole b.test
whole vlan.b.test
verdict "killed: next mails arrive, octet for octet" $equal "of 2" $arrived$equal = 22
deaf
tagged=$(as_they_came)
verdict "VLAN $VLAN: octets that left gw-a as they came" "$tagged" octets "$tagged" -gt 60000

# --- A bridge of the VLAN's interfaces --------------------------------------------------------------------------
# They take the VLAN's frames out of the first bridge, which goes on with all others, now without anybody who looks at them.
on gw-a "sudo rm -r /run/systemd/system/nightmail.service.d; sudo systemctl daemon-reload
    for device in $inside $outside; do sudo ip link add link \$device name \$device.$VLAN type vlan id $VLAN; done"
bridge br$VLAN "$inside.$VLAN" "$outside.$VLAN" 2>&1 | told
protecting=0
if protects gw-a; then protecting=1; fi
verdict "gateway protects (bridge of the VLAN's interfaces)" $protecting "of 1" $protecting = 1
listen wire "$work/wire.pcap"
was=$(sealed)
arrived=0 equal=0
whole vlan.b.test
dark=$word
verdict "bridge of VLAN $VLAN: mail arrives, octet for octet" $equal "of 1" $arrived$equal = 11
count=$(($(sealed) - was))
verdict "bridge of VLAN $VLAN: sessions sealed" $count "of 1" $count = 1
whole b.test
deaf
seen=$(read_on_wire "$dark")
heard=$(tcpdump -r "$work/wire.pcap" -n "vlan $VLAN and tcp port 25" 2>/dev/null | sed -n 's/.* length \([0-9]*\).*/\1/p' |
    awk '{sum += $1} END {print sum + 0}')
verdict "bridge of VLAN $VLAN: words on the wire" "$seen" "of 3" "$seen" = 0
verdict "bridge of VLAN $VLAN: octets with its tag there" "$heard" octets "$heard" -gt 20000
seen=$(read_on_wire "$word")
verdict "bridge of VLAN $VLAN: words without a tag there" "$seen" "of 3" "$arrived$seen" = 23

# --- A bridge that tells VLANs apart ----------------------------------------------------------------------------
moved() { # VLAN: both ports of br0 are in it, without a tag; what has one passes as before
    for device in $inside $outside; do
        echo "bridge vlan del vid 1-4000 dev $device; bridge vlan add vid $1 dev $device pvid untagged"
        echo "bridge vlan add vid $VLAN dev $device"
    done
}
say_it_is_no_more() { # GATEWAY: waits until `status` says that mail is not protected
    on "$1" "while sudo nightmail status >/dev/null; do [ \$SECONDS -lt $PROTECT_SECONDS ] || exit 1; sleep 1; done"
}
says_why() { # COMMAND of nightmail, which fails then
    local told
    told=$(on gw-a "sudo nightmail $1" 2>&1) || :
    grep -c 'tells VLANs apart' <<<"$told" || :
}
on gw-a "sudo nightmail down; sudo systemctl stop nightmail
    for name in br$VLAN $inside.$VLAN $outside.$VLAN br0; do sudo ip link del \$name; done" 2>&1 | told
bridge br0 "$inside" "$outside" "ip link set br0 type bridge vlan_filtering 1; $(moved 100)" 2>&1 | told
protecting=0
if protects gw-a; then protecting=1; fi
verdict "gateway protects (bridge that tells VLANs apart)" $protecting "of 1" $protecting = 1
listen wire "$work/wire.pcap"
was=$(sealed)
arrived=0 equal=0
whole b.test
count=$(($(sealed) - was))
seen=$(read_on_wire "$word")
verdict "ports in VLAN 100: mail arrives, octet for octet" $equal "of 1" $arrived$equal = 11
verdict "ports in VLAN 100: sessions sealed" "$count" "of 1" "$count" = 1
verdict "ports in VLAN 100: words on the wire" "$seen" "of 3" "$seen" = 0
arrived=0 equal=0
whole vlan.b.test
verdict "ports in VLAN 100: mail with the tag of VLAN $VLAN arrives" $equal "of 1" $arrived$equal = 11

on gw-a "sudo bash -c '$(moved 200)'"
gap=$(connects_after b.test)
verdict "ports moved to VLAN 200: next connection after" "$gap" ms "$gap" -ge 0 -a "$gap" -le $CONNECT_LIMIT_MS
on gw-a "until sudo nft list table bridge nightmail | grep -q 'ibrpvid != 200'; do
    [ \$SECONDS -lt $PROTECT_SECONDS ] || exit 1; sleep 1; done" || say "no rules for VLAN 200"
protects gw-a || say "mail is not protected again"
was=$(sealed)
arrived=0 equal=0
whole b.test
count=$(($(sealed) - was))
verdict "ports moved to VLAN 200: mail arrives, sealed" "$count" "of 1" $arrived$equal$count = 111

# As for a virtual machine: its own frames have no tag, and outside is a trunk on which they have one.
on mta-a "sudo ip link del $site.$VLAN; sudo ip addr add 192.0.2.10/24 dev $site
    sudo ip route replace 10.12.0.17 via 192.0.2.12 src 192.0.2.10"
on gw-a "sudo bash -c '$(moved 1); bridge vlan add vid $VLAN dev $inside pvid untagged'"
gap=$(connects_after vlan.b.test)
verdict "outside a trunk: next connection after" "$gap" ms "$gap" -ge 0 -a "$gap" -le $CONNECT_LIMIT_MS
said=0
if say_it_is_no_more gw-a; then said=1; fi
verdict "outside a trunk: status says that mail is in clear" $said "of 1" $said = 1
said=$(says_why doctor)
verdict "outside a trunk: doctor says why" "$said" "of 1" "$said" = 1
arrived=0 equal=0
whole vlan.b.test
seen=$(read_on_wire "$word")
verdict "outside a trunk: mail arrives, octet for octet" $equal "of 1" $arrived$equal = 11
verdict "outside a trunk: words on the wire" "$seen" "of 3" "$seen" = 3
on gw-a "sudo nightmail down; sudo systemctl stop nightmail" 2>&1 | told
refused=$(($(says_why plan) + $(says_why up)))
verdict "outside a trunk: plan and up refuse the bridge" $refused "of 2" $refused = 2
deaf

for guest in gw-a gw-b mta-a mta-b; do hang_up $guest; done
vagrant destroy -f 2>&1 | told
left=$(virsh list --all --name | grep -c nightmail || :)
verdict "guests left" "$left" guests "$left" = 0
tell
