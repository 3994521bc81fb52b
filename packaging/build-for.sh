#!/usr/bin/env bash
# The Debian package for a release that this machine is not: packaging/build-for.sh RELEASE [FOLDER]   (default: dist/)
# As root. Makes a bare root file system of that release and runs packaging/build.sh in it; of the machine nothing is
# changed but for mmdebstrap, where it is missing. What git knows of is built, as it lies in the working tree.
# DEBIAN_MIRROR: where the packages come from (default: what mmdebstrap uses by itself).
set -euo pipefail
release=${1:?which release, bookworm or trixie?}
out=$(realpath -m "${2:-$(dirname "$0")/../dist}")
cd "$(dirname "$0")/.."
[ "$(id -u)" = 0 ] || { echo "build-for: makes a root file system, and needs root" >&2; exit 2; }
. packaging/roots.sh

work=$(mktemp -d "${TMPDIR:-/tmp}/nightmail-build.XXXXXX")
trap 'rm -rf --one-file-system "$work"' EXIT
trap 'exit 130' INT TERM
fails() { echo "build-for: $release: FAILED: $1" >&2; exit 1; }

need_mmdebstrap
echo "build-for: a bare $release" >&2
bare_root "$release" "$work/root"
echo "build-for: the package, in it" >&2
build_in "$work/root"
mkdir -p "$out"
cp "$work/root"/source/dist/nightmail_*.deb "$out"
ls "$out"
