#!/bin/bash
# Makes a guest what its role says; run once, by Vagrant:
#   provision.sh NAME gateway|mail DOMAIN USER HOSTS ADDRESS...
# ADDRESS: a gateway's on the site's network, then on the wire. On our own box every package is there already; on a
# public Debian box they are fetched.
set -euo pipefail
name=$1 role=$2 domain=$3 user=$4 hosts=$5 inside=${6:-} outside=${7:-}
export DEBIAN_FRONTEND=noninteractive

full=$name${domain:+.$domain}
hostnamectl --static hostname "$name" 2>/dev/null || echo "$name" >/etc/hostname
hostname "$name"
sed -i '/nightmail lab/,$d' /etc/hosts
printf '# nightmail lab\n127.0.1.1 %s\n%s\n' "$name" "$hosts" >>/etc/hosts

# A guest that has just started may be about its daily updates.
install=(apt-get -qy --no-install-recommends -o DPkg::Lock::Timeout=600 install)
need() {
    local package missing=()
    for package; do dpkg -s "$package" >/dev/null 2>&1 || missing+=("$package"); done
    [ ${#missing[@]} = 0 ] || { apt-get -q update; "${install[@]}" "${missing[@]}"; }
}

device() { ip -o -4 addr show to "$1" | awk '{print $2; exit}'; }

gateway() {
    need conntrack tcpdump iptables nftables libnetfilter-queue1 python3
    local deb
    deb=$(ls -t /srv/nightmail/dist/nightmail_*.deb 2>/dev/null | head -n 1)
    if [ -z "$deb" ]; then
        /srv/nightmail/packaging/build.sh /root/dist
        deb=$(ls -t /root/dist/nightmail_*.deb | head -n 1)
    fi
    # No guest of the lab is worth the waiting for its disk. What apt says is of use where the package is another Debian's.
    local said
    said=$(apt-get -qqy --no-install-recommends -o Dpkg::Options::=--force-unsafe-io install "$deb" 2>&1) ||
        { printf '%s\n' "$said"; return 1; }
    # There is a third interface, Vagrant's own, so the two have to be named. One CPU: one worker.
    printf '[interfaces]\ninside = ["%s"]\noutside = ["%s"]\n[daemon]\nworkers = 1\n' \
        "$(device "$inside")" "$(device "$outside")" >/etc/nightmail/nightmail.toml
    systemctl enable --quiet nightmail
    systemctl start --no-block nightmail
    # The journal is asked and not the daemon: an emulated CPU needs seconds for each `nightmail status`, and systemd's
    # own waiting would not see a second attempt.
    local until=$((SECONDS + 600))
    until journalctl -u nightmail -o cat | grep -q 'rules gate queues=[0-9]'; do
        if [ "$SECONDS" -gt "$until" ]; then
            nightmail check
            journalctl -u nightmail -o cat -n 20
            return 1
        fi
        sleep 2
    done
    nightmail status | sed -n 1p
}

mail() {
    echo 'postfix postfix/main_mailer_type select No configuration' | debconf-set-selections
    need postfix swaks
    [ -e /etc/postfix/main.cf ] || cp /usr/share/postfix/main.cf.debian /etc/postfix/main.cf
    id "$user" >/dev/null 2>&1 || useradd -m -s /bin/bash "$user"
    # Without DNS: every name is in /etc/hosts, the mail domains too.
    postconf -e "myhostname = $full" "mydomain = $domain" "mydestination = $domain, six.$domain, $full, localhost" \
        'mynetworks = 127.0.0.0/8 [::1]/128' 'inet_interfaces = all' 'inet_protocols = all' \
        'alias_maps =' 'alias_database =' 'home_mailbox = Maildir/' 'mailbox_size_limit = 0' \
        'message_size_limit = 52428800' 'smtp_host_lookup = native' 'smtp_dns_support_level = disabled' \
        'smtp_tls_security_level = none' 'smtpd_tls_security_level = none' 'compatibility_level = 3.6'
    systemctl enable --now --quiet postfix
    systemctl reload postfix
}

"$role"
