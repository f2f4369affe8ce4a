#!/bin/sh
# Install the Debian packages named as arguments where they are missing and apt may; else say what to run.
set -eu
missing=""
for package in "$@"; do
    dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q "ok installed" || missing="$missing $package"
done
[ -z "$missing" ] && exit 0
command="apt-get update && apt-get install -y --no-install-recommends$missing"
if ! command -v apt-get >/dev/null 2>&1; then
    echo "miyagi: not found as Debian packages:$missing" >&2
    echo "miyagi: install what they hold with your system's own tool, then run make again with PACKAGES= TEST_PACKAGES=" >&2
    exit 1
fi
if [ "$(id -u)" = 0 ]; then
    sudo=""
elif sudo -n true 2>/dev/null; then
    sudo="sudo"
else
    echo "miyagi: missing system packages; run: sudo sh -c '$command'" >&2
    exit 1
fi
echo "installing$missing"
$sudo apt-get update -qq
DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -qq --no-install-recommends $missing >/dev/null
