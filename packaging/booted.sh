#!/bin/bash
# What packaging/try.sh does inside a root file system that its own systemd has booted: the packaged service as Debian
# runs it, between a mail server and a second gateway, from its first start to the purge while it runs.
set -euo pipefail
release=$1
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

# mail 10.1.0.10 -- 10.1.0.1 this system 10.0.0.1 -- 10.0.0.2 far 10.2.0.1 -- 10.2.0.10 world
link() { # NAME NAMESPACE ADDRESS NAME NAMESPACE ADDRESS
    ip link add "$1" netns "$2" type veth peer name "$4" netns "$5"
    ip -n "$2" address add "$3" dev "$1"
    ip -n "$5" address add "$6" dev "$4"
    ip -n "$2" link set "$1" up
    ip -n "$5" link set "$4" up
}
for name in mail far world; do
    ip netns add $name
    ip -n $name link set lo up
done
ip netns attach here 1
link inside here 10.1.0.1/24 eth0 mail 10.1.0.10/24
link outside here 10.0.0.1/24 outside far 10.0.0.2/24
link inside far 10.2.0.1/24 eth0 world 10.2.0.10/24
ip -n mail route add default via 10.1.0.1
ip -n world route add default via 10.2.0.1
ip route add 10.2.0.0/24 via 10.0.0.2
ip -n far route add 10.1.0.0/24 via 10.0.0.1
sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1
ip netns exec far sysctl -qw net.ipv4.ip_forward=1
ip netns exec world smtp-sink -u postfix 10.2.0.10:25 500 &
mails() { # COUNT: from the mail server to the world, one a session
    timeout 120 ip netns exec mail /usr/bin/python3 -c '
import smtplib, sys
for number in range(int(sys.argv[1])):
    with smtplib.SMTP("10.2.0.10", 25, "a.test", 30) as server:
        server.sendmail("alice@a.test", ["bob@b.test"], f"Subject: {number}\n\nbody\n")' "$1"
}
sealed() { # COUNT: so many sessions have left this system sealed, at least
    nightmail status --json | python3 -c '
import json, sys
sealed = json.load(sys.stdin)["counters"]["decided"].get("out", {}).get("upgraded", {})
sys.exit(sum(sealed.values()) < int(sys.argv[1]))' "$1"
}
# The far gateway is no service: two of them on one system are two files of configuration.
mkdir -p /var/tmp/far
cat >/var/tmp/far/nightmail.toml <<'TOML'
[interfaces]
inside = ["inside"]
outside = ["outside"]
[daemon]
state_dir = "/var/tmp/far/state"
run_dir = "/var/tmp/far/run"
TOML
printf '[interfaces]\ninside = ["inside"]\noutside = ["outside"]\n' >/etc/nightmail/nightmail.toml

said=$(systemd-analyze verify --man=no /lib/systemd/system/nightmail.service 2>&1 | grep nightmail) || true
[ -z "$said" ] || fails "systemd does not understand the unit: $said"
systemctl enable --now nightmail || fails "the service does not start"
# Started is said when it protects.
nightmail status >/dev/null || fails "the service does not protect mail: $(nightmail status 2>&1)"
status=$(nightmail status)
grep -q 'confined by user, capabilities, no-new-privileges, file-system, system-calls$' <<<"$status" ||
    fails "its workers are not confined: $status"
grep -q 'alarms: none' <<<"$status" || fails "it rings at its start: $status"
holds "the service: starts, protects, and its workers are confined, under $(systemctl --version | head -n 1)"

ip netns exec far nightmail --config /var/tmp/far/nightmail.toml run >/var/tmp/far/log 2>&1 &
far=$!
within 30 ip netns exec far nightmail --config /var/tmp/far/nightmail.toml status || fails "the far gateway"
mails 5 || fails "mail does not arrive"
within 5 sealed 5 || fails "mail is not sealed: $(nightmail status)"
journalctl -u nightmail -o cat | grep -q ' session .*reason=upgraded' || fails "the journal does not tell of sessions"
holds "the service: mail travels sealed, and the journal tells of it"

nightmail doctor >/tmp/doctor 2>&1 || { cat /tmp/doctor; fails "doctor"; }
holds "the service: doctor: $(head -n 1 /tmp/doctor)"

main=$(systemctl show -P MainPID nightmail)
systemctl reload nightmail || fails "reload"
within 30 sh -c 'nightmail status --json | grep -q "\"generation\": 1"' || fails "reload: no new generation"
mails 2 || fails "mail after a reload"
within 5 sealed 7 || fails "mail is not sealed after a reload: $(nightmail status)"
[ "$main" = "$(systemctl show -P MainPID nightmail)" ] || fails "reload: another daemon"
holds "the service: reloads"

# Its children have to be named one by one: not every kernel lets a nested systemd list a control group.
mapfile -t all < <(pgrep -P "$main")
kill -KILL "$main" "${all[@]}"
mails 1 || fails "mail while all is dead"
within 30 nightmail status || fails "the service does not come back"
mails 2 || fails "mail after all was dead"
holds "the service: comes back by itself when all of it is killed, and mail passes meanwhile"

systemctl stop nightmail || fails "stop"
nft list tables | grep -q nightmail || fails "stop takes the rules down"
mails 1 || fails "mail while it is stopped"
systemctl start nightmail || fails "start"
within 30 nightmail status || fails "it does not protect after its second start"
kill "$far"
wait "$far" || true
nightmail down >/dev/null || fails "down"
systemctl disable --now nightmail || fails "disable"
left=$(nft list tables; ip rule; iptables-save; ip6tables-save; pgrep -af nightmail || true)
! grep -i -e nightmail -e 2525 <<<"$left" || fails "down, and its end, leave something in the kernel"
mails 1 || fails "mail without it"
holds "the service: taken away; nothing of it is in the kernel, and mail passes"

nightmail up >/dev/null || fails "up"
systemctl enable --now nightmail || fails "the service does not start once more"
rm -f /usr/sbin/policy-rc.d # it forbids to stop services, too
{
    apt-get remove -y nightmail &&
    apt-get purge -y nightmail
} >/tmp/purged 2>&1 || { cat /tmp/purged; fails "apt-get remove, apt-get purge"; }
left=$(nft list tables; ip rule; iptables-save; ip6tables-save; pgrep -af nightmail || true)
! grep -i -e nightmail -e 2525 <<<"$left" || fails "the purge of a running service leaves something in the kernel"
mails 1 || fails "mail after the purge"
rm -rf /var/tmp/far /tmp/doctor /tmp/purged
holds "the service: purged while it ran; nothing of it is in the kernel, and mail passes"
