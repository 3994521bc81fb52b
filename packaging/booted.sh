#!/bin/bash
# What packaging/try.sh does inside a root file system that its own systemd has booted: the packaged service as Debian
# runs it, between a mail server and a second gateway, from its first start over an upgrade. rebooted.sh goes on.
set -euo pipefail
release=$1
. /topology.sh

cables
addresses
sink
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

far || fails "the far gateway"
mails 5 || fails "mail does not arrive"
within 5 sealed 5 || fails "mail is not sealed: $(nightmail status)"
# All of it is read: a pipe that is closed early makes journalctl fail, and with it the line.
journalctl -u nightmail -o cat | grep ' session .*reason=upgraded' >/dev/null || fails "the journal does not tell of sessions"
holds "the service: mail travels sealed, and the journal tells of it"

[ "$(systemctl show -P OOMPolicy nightmail)" = continue ] || fails "one worker without memory ends all"
[ "$(systemctl show -P CPUWeight nightmail)" = 400 ] || fails "beside a busy service its workers wait for a CPU"
nsenter --mount --target "$(systemctl show -P MainPID nightmail)" sh -c ': >>/run/xtables.lock' ||
    fails "the service cannot have the lock of old iptables"

nightmail doctor >/tmp/doctor 2>&1 || { cat /tmp/doctor; fails "doctor"; }
holds "the service: doctor: $(head -n 1 /tmp/doctor)"

main=$(systemctl show -P MainPID nightmail)
systemctl reload nightmail || fails "reload"
within 30 sh -c 'nightmail status --json | grep -q "\"generation\": 1"' || fails "reload: no new generation"
mails 2 || fails "mail after a reload"
within 5 sealed 7 || fails "mail is not sealed after a reload: $(nightmail status)"
[ "$main" = "$(systemctl show -P MainPID nightmail)" ] || fails "reload: another daemon"
holds "the service: reloads"

was=$(how_many_sealed)
rm -f /tmp/upgraded
mails_until /tmp/upgraded >/tmp/sent &
sending=$!
within 30 sealed $((was + 3)) || fails "no mail before the upgrade"
cd /
{
    apt-get install -y --reinstall ./dist/nightmail_*.deb
} >/tmp/log 2>&1 || { cat /tmp/log; fails "upgrade"; }
within 30 sh -c 'nightmail status --json | grep -q "\"generation\": 2"' || { cat /tmp/log; fails "upgrade: no new generation"; }
within 30 nightmail status || fails "upgrade: it does not protect"
upon=$(how_many_sealed)
within 30 sealed $((upon + 3)) || fails "no mail after the upgrade"
touch /tmp/upgraded
wait "$sending" || fails "mail over an upgrade"
sent=$(cat /tmp/sent)
within 5 sealed $((was + sent)) || fails "mail over an upgrade is not sealed: $(how_many_sealed) - $was of $sent"
[ "$main" = "$(systemctl show -P MainPID nightmail)" ] || fails "upgrade: another daemon"
rm -f /tmp/upgraded /tmp/sent /tmp/log
holds "the service: upgraded under $sent sessions, one of them open all the time, all sealed"

# Which form runs is told by what the kernel has mapped.
workers() { # their PIDs, once all of the newest generation serve
    nightmail status --json | python3 -c '
import json, sys
workers = json.load(sys.stdin)["workers"]
newest = [one for one in workers if one["generation"] == max(each["generation"] for each in workers)]
assert newest and all(one["state"] == "serving" for one in newest)
print(*(one["pid"] for one in newest))'
}
runs() { # compiled, or sources: each of them
    local pid pids maps form
    pids=$(workers) && [ -n "$pids" ] || return 1
    for pid in $pids; do
        maps=$(cat "/proc/$pid/maps") && [ -n "$maps" ] || return 1
        form=sources
        if grep -q '/nightmail__mypyc[.].*[.]so$' <<<"$maps"; then form=compiled; fi
        [ "$form" = "$1" ] || return 1
    done
}
journal_says() { journalctl -u nightmail -o cat | grep -- "$1" >/dev/null; }
goes_sealed() { # COUNT
    local was
    was=$(how_many_sealed)
    mails "$1" && within 10 sealed $((was + $1))
}

within 30 runs compiled || fails "its workers do not run the compiled modules"
holds "the service: its workers run the compiled modules"
touch /etc/nightmail/source-form || fails "the switch"
{
    nightmail reload || fails "reload to the sources"
} >/tmp/log
within 30 runs sources || fails "its workers do not run the sources"
goes_sealed 2 || fails "mail is not sealed by the sources: $(nightmail status)"
rm /etc/nightmail/source-form || fails "the switch back"
nightmail reload >/tmp/log || fails "reload to the compiled modules"
within 30 runs compiled || fails "its workers do not run the compiled modules again"
goes_sealed 2 || fails "mail is not sealed after the way back: $(nightmail status)"
[ "$main" = "$(systemctl show -P MainPID nightmail)" ] || fails "the switch: another daemon"
holds "the service: runs the sources where it is told to, and the compiled modules again"

# A damaged disk: another file in its place, for what the workers have mapped stays as it was.
library=$(echo /usr/lib/nightmail/lib/python3*/site-packages/nightmail__mypyc.*.so)
pids=$(workers) || fails "not all workers serve"
cp -a "$library" /tmp/whole
head -c 1000000 /tmp/whole >/tmp/cut
mv /tmp/cut "$library"
said=$(nightmail status 2>&1 >/tmp/log) || fails "with a library that is cut off status says: $said $(cat /tmp/log)"
[[ $said == "nightmail: $library cannot be loaded"* && $said != *$'\n'* ]] || fails "a damaged library is not told of: $said"
dpkg --verify nightmail >/tmp/verified || true # dpkg of Debian 12 and 13 say differently how it went
grep -qF "$library" /tmp/verified || fails "dpkg does not tell of it: $(cat /tmp/verified)"
# shellcheck disable=SC2086  # several
kill -KILL $pids
mails 1 || fails "mail while workers start by the sources"
within 30 runs sources || fails "workers that start with a damaged library do not run the sources"
within 10 journal_says "$library cannot be loaded.*reason=library-unusable" || fails "workers on the sources do not ring"
within 10 journal_says "^nightmail: $library cannot be loaded" || fails "workers do not say why they run the sources"
goes_sealed 2 || fails "mail is not sealed by workers on the sources: $(nightmail status)"
nightmail reload >/tmp/log 2>&1 || fails "a reload with a damaged library is refused: $(cat /tmp/log)"
within 30 runs sources || fails "a reload with a damaged library does not run the sources"
goes_sealed 2 || fails "mail is not sealed after a reload with a damaged library: $(nightmail status)"
[ "$main" = "$(systemctl show -P MainPID nightmail)" ] || fails "a damaged library: another daemon"
# One that no loader would refuse.
cp -a /tmp/whole /tmp/changed
printf 'other octets' | dd of=/tmp/changed bs=1 seek=2000000 conv=notrunc status=none
mv /tmp/changed "$library"
systemctl restart nightmail || fails "start with a changed library"
within 30 nightmail status || fails "the service does not start with a changed library"
main=$(systemctl show -P MainPID nightmail)
within 5 runs sources || fails "a changed library is loaded"
nightmail status --json 2>/dev/null | grep -q '"library-unusable"' || fails "a daemon that starts with a changed library does not ring"
goes_sealed 2 || fails "mail is not sealed with a changed library: $(nightmail status)"
mv /tmp/whole "$library"
nightmail reload >/tmp/log || fails "reload with a whole library"
within 30 runs compiled || fails "its workers do not run the mended library"
rm /tmp/verified /tmp/log
holds "the service: with a damaged library its sources protect mail, over a start and a reload, and an alarm rings"

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
mails 1 || fails "mail after its second start"

# At the next boot: cables are there, addresses come while the gateway starts, and mail leaves as soon as there is a network.
unit() { printf '%s\n' "${@:2}" >"/etc/systemd/system/$1.service"; }
stays=('[Service]' 'Type=oneshot' 'RemainAfterExit=yes' 'KillMode=process')
unit cables '[Unit]' 'Before=network-pre.target' 'Wants=network-pre.target' "${stays[@]}" \
    'ExecStart=/topology.sh cables' '[Install]' 'WantedBy=multi-user.target'
unit addresses '[Unit]' 'After=network-pre.target cables.service' 'Before=network.target' 'Wants=network.target' "${stays[@]}" \
    'ExecStart=/topology.sh addresses sink far' '[Install]' 'WantedBy=multi-user.target'
unit first-mail '[Unit]' 'After=network.target' "${stays[@]}" \
    'ExecStart=/topology.sh "mails 3"' '[Install]' 'WantedBy=multi-user.target'
systemctl enable cables addresses first-mail 2>/dev/null || fails "units for the next boot"
