#!/usr/bin/env bash
# All set-up of a source checkout on Debian 12 or 13, safe to repeat: scripts/setup.sh lab|bench|dev|fuzz
# Packages from Debian (only those that are missing), and a virtual environment in .venv with this project in it.
# dev also puts other firewalls in a layer over the disk, for the tests beside them (scripts/neighbours).
set -euo pipefail
cd "$(dirname "$0")/.."
extra=${1:?usage: scripts/setup.sh lab|bench|dev|fuzz}

. scripts/apt.sh

packages=(postfix iptables nftables iproute2 tcpdump conntrack procps openssl swaks
    libnetfilter-queue-dev build-essential python3-venv python3-dev)
# The prover of scripts/prove, what renders the manual pages, sets of the kernel, which tests fill, and what copies a
# memory of peers.
if [ "$extra" = dev ]; then packages+=(spass man-db ipset sqlite3); fi
# The bench's rivals: started by it and its test in namespaces of their own, never as this machine's services.
if [ "$extra" = bench ] || [ "$extra" = dev ]; then packages+=(haproxy stunnel4); fi
missing=()
for package in "${packages[@]}"; do
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || missing+=("$package")
done
if [ ${#missing[@]} -gt 0 ]; then
    echo "setup: installing ${missing[*]}" >&2
    # The machine's own Postfix is not ours to start: where it was not there, it is not started either.
    policy=/usr/sbin/policy-rc.d
    made_policy=no
    if [ ! -e "$policy" ]; then
        printf '#!/bin/sh\nexit 101\n' | as_root tee "$policy" >/dev/null
        as_root chmod 755 "$policy"
        made_policy=yes
    fi
    undo_policy() { if [ "$made_policy" = yes ]; then as_root rm -f "$policy"; fi; }
    trap undo_policy EXIT
    apt_update
    # A machine has one mail server: where that is another one, installing Postfix would take it away.
    removed=$(apt-get install -s --no-install-recommends "${missing[@]}" | awk '/^Remv/ {print $2}')
    if [ -n "$removed" ]; then
        echo "setup: installing ${missing[*]} would remove" $removed"; not done" >&2
        exit 1
    fi
    if [[ " ${missing[*]} " == *" postfix "* ]]; then
        # Nor is it configured, so that it does not start at the next boot.
        echo "postfix postfix/main_mailer_type select No configuration" | as_root debconf-set-selections
    fi
    apt_install "${missing[@]}"
    # Nor at the next boot. (stunnel has nothing to start: no configuration of it is there.)
    if [[ " ${missing[*]} " == *" haproxy "* ]]; then as_root update-rc.d haproxy disable >/dev/null; fi
    undo_policy
    trap - EXIT
fi

stamp=.venv/.nightmail-$extra
wanted=$(cat pyproject.toml constraints.txt | sha256sum)
# The extra dev holds the extra bench, whose figures have tests, and that holds the extra lab.
case "$extra" in
lab) also=(.venv/.nightmail-bench .venv/.nightmail-dev) ;;
bench) also=(.venv/.nightmail-dev) ;;
*) also=() ;;
esac
made() { [ -x .venv/bin/nightmail ] && grep -qxF "$wanted" "$stamp" "${also[@]}" 2>/dev/null; }
if ! made; then
    echo "setup: making the virtual environment in .venv" >&2
    [ -x .venv/bin/python ] || /usr/bin/python3 -m venv .venv
    # Of the fuzzer there are wheels or nothing: its source needs a compiler of its own.
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --only-binary atheris -c constraints.txt -e ".[$extra]" >&2
    echo "$wanted" >"$stamp"
fi

# Not on the machine: the tests lay them over its disk.
if [ "$extra" = dev ]; then as_root scripts/neighbours; fi
