#!/bin/bash
# Boots the lab and proves it, from no guest to no guest: prove.sh [--json] [BOX FILE]
#   vagrant/lab.sh run vagrant/prove.sh nightmail-lab.box
# Mail from a to b and to c, a listener on the wire, a gateway killed, one started anew, rules taken down, everything
# halted; then one verdict for each claim. Exit status 0 only if all hold. Progress is on standard error. Needs
# libvirt: the listener listens on the wire's bridge. Of another lab's guests of the same names none may be up.
. "$(dirname "$0")/proof.sh"

# --- Up ---------------------------------------------------------------------------------------------------------
boot gw-a gw-b mta-a mta-b mta-c
protecting=0
for gateway in gw-a gw-b; do
    if protects $gateway; then protecting=$((protecting + 1)); fi
done
verdict "gateways protect, from the Debian package" $protecting "of 2" $protecting = 2
exposure=$(on gw-a "sudo systemd-analyze security --no-pager nightmail" | sed -n 's/.*exposure level.*: \([0-9.]*\).*/\1/p')
verdict "exposure of the service (systemd-analyze security)" "${exposure:--1}" "of 10" -n "$exposure"

# --- Mail, and the listener -------------------------------------------------------------------------------------
listen wire "$work/wire.pcap" tcp port 25
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
stand_in_session b.test
kill_all gw-a
gap=$(connects_after b.test)
verdict "gateway killed: next connection after" "$gap" ms "$gap" -ge 0 -a "$gap" -le $CONNECT_LIMIT_MS
ended=$(session_ended)
verdict "gateway killed: session in mid-work ends at once" "$ended" "of 1" "$ended" = 1
arrived=0
deliver mta-b bob b.test
verdict "gateway killed: next mail comes" $arrived "of 1" $arrived = 1
start_again gw-a
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
ours=$(ours_left gw-a)
verdict "rules and routes of ours left after down" "$ours" lines "$ours" = 0
arrived=0
deliver mta-b bob b.test
seen=$(read_on_wire "$word")
verdict "words on the wire, a to b, after down" "$seen" "of 3" "$arrived$seen" = 13
deaf
for guest in gw-a gw-b mta-a mta-b mta-c; do hang_up $guest; done
vagrant halt 2>&1 | told
halted=$(vagrant status | grep -c ' shutoff ' || :)
verdict "guests halted in order" "$halted" "of 5" "$halted" = 5
vagrant destroy -f 2>&1 | told
left=$(virsh list --all --name | grep -c nightmail || :)
verdict "guests left" "$left" guests "$left" = 0

tell
