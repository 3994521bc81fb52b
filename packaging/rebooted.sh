#!/bin/bash
# What packaging/try.sh does after booted.sh, when the power has failed and the system has booted again: is mail protected
# from the first one on? Then until the purge while it runs.
set -euo pipefail
release=$1
. /topology.sh

within 60 systemctl is-active first-mail || fails "no mail after a boot: $(systemctl status first-mail --no-pager 2>&1)"
within 30 nightmail status || fails "the service does not protect mail after a boot: $(nightmail status 2>&1)"
within 5 sealed 3 || fails "the first mails after a boot were not sealed: $(nightmail status)"
holds "the service: after a power cut and a boot the first mails travel sealed"

systemctl stop first-mail addresses cables
far=$(pgrep -of '/var/tmp/far/nightmail.toml run')
kill "$far"
within 60 sh -c "! kill -0 $far" || fails "the far gateway does not end"
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
rm -rf /var/tmp/far /tmp/doctor /tmp/purged /etc/systemd/system/{cables,addresses,first-mail}.service
holds "the service: purged while it ran; nothing of it is in the kernel, and mail passes"
