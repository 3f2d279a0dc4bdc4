#!/bin/sh
# Unpacks clamd of ClamAV into var/clamav for the tests, unless it is installed. Nothing on the machine
# changes, and no signatures are downloaded.
set -eu

[ -x /usr/sbin/clamd ] && exit 0
[ -x var/clamav/usr/sbin/clamd ] && exit 0

if ! command -v apt-get >/dev/null || ! command -v dpkg >/dev/null; then
    echo "The tests need clamd of ClamAV as /usr/sbin/clamd; it does not have to run." >&2
    exit 1
fi

echo "unpacking clamd"
root=$PWD
mkdir -p var/log
rm -rf var/clamav-packages
mkdir var/clamav-packages

# The daemon, and the libraries of it that the machine does not have.
packages() {
    apt-get install --simulate --no-install-recommends clamav-daemon \
        | sed -n 's/^Inst \(clamav-daemon\|lib[^ ]*\) .*/\1/p'
}
download() {
    packages=$(packages) && [ -n "$packages" ] || return 1
    # shellcheck disable=SC2086  # a list of packages
    (cd var/clamav-packages && apt-get download $packages)
}
# A new machine has no lists of packages, an old one may have outdated lists; only root updates them.
if ! { download || { [ "$(id -u)" -eq 0 ] && apt-get update && download; }; } \
    >var/log/clamav-install.log 2>&1; then
    cat var/log/clamav-install.log >&2
    echo "clamav-daemon cannot be downloaded. As root: apt-get update" >&2
    exit 1
fi
for package in var/clamav-packages/*.deb; do
    dpkg --extract "$package" var/clamav-packages/unpacked
done
libraries=$(dirname "$(find var/clamav-packages/unpacked -name 'libclamav.so.*' | head -n 1)")
echo "Foreground yes" >var/clamav-packages/clamd.conf
if ! LD_LIBRARY_PATH="$root/$libraries" var/clamav-packages/unpacked/usr/sbin/clamd \
    --config-file=var/clamav-packages/clamd.conf --version; then
    echo "The clamd of this distribution does not run unpacked. As root:" >&2
    echo "    apt-get install --no-install-recommends clamav-daemon" >&2
    exit 1
fi
# The new name appears only with the complete packages.
rm -rf var/clamav
mv var/clamav-packages/unpacked var/clamav
rm -rf var/clamav-packages
