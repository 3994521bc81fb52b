# shellcheck shell=bash
# To be sourced: Debian's packages, also while another program installs some. On a fresh machine that is the rule: its daily
# updates start with it, and hold apt's locks for minutes.
LOCK_SECONDS=${LOCK_SECONDS:-600}

as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }

# apt itself waits for dpkg's lock where it is told to, but not for that of the lists.
apt_update() {
    local said deadline=$((SECONDS + LOCK_SECONDS)) told=no
    until said=$(as_root env LC_ALL=C apt-get update -qq 2>&1); do
        if [[ $said != *"Could not get lock"* || $SECONDS -ge $deadline ]]; then
            printf '%s\n' "$said" >&2
            return 1
        fi
        [ $told = yes ] || echo "waiting until another program has updated apt's lists" >&2
        told=yes
        sleep 2
    done
}

apt_install() {
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
        -o DPkg::Lock::Timeout="$LOCK_SECONDS" "$@" >/dev/null
}
