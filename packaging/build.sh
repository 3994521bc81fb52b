#!/usr/bin/env bash
# The Debian package, a wheel and an sdist: packaging/build.sh [FOLDER]   (default: dist/)
# The package has the session path compiled (scripts/compiled.py: two minutes of one core); wheel and sdist are pure Python.
# Runs on Debian 12 or 13 as root or with sudo; installs what building needs. The package fits the release it
# was built on. Safe to repeat; the source tree stays as it is.
set -euo pipefail
cd "$(dirname "$0")/.."
out=$(realpath -m "${1:-dist}")

. scripts/apt.sh
packages=(debhelper build-essential fakeroot python3-dev python3-venv libnetfilter-queue-dev)
missing=()
for package in "${packages[@]}"; do
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || missing+=("$package")
done
if [ ${#missing[@]} -gt 0 ]; then
    echo "build: installing ${missing[*]}" >&2
    apt_update
    apt_install "${missing[@]}"
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/nightmail" "$out"
tar --exclude=./.git --exclude='./.venv*' --exclude='./dist' --exclude='./build' --exclude='*.pyc' --exclude='./vagrant/.*' \
    --exclude='./.[a-z]*' -cf - . | tar -C "$work/nightmail" -xf -
cd "$work/nightmail"
cp -r packaging/debian debian

echo "build: wheel and sdist" >&2
/usr/bin/python3 -m venv "$work/tools"
"$work/tools/bin/pip" install --quiet --disable-pip-version-check -c packaging/constraints.txt build hatchling
"$work/tools/bin/python" -m build --no-isolation --outdir "$out" . >"$work/build.log" 2>&1 ||
    { cat "$work/build.log" >&2; exit 1; }

echo "build: Debian package" >&2
dpkg-buildpackage -us -uc -b >"$work/deb.log" 2>&1 || { tail -n 50 "$work/deb.log" >&2; exit 1; }
cp "$work"/nightmail_*.deb "$out"
ls "$out"
