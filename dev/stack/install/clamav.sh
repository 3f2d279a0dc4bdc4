#!/bin/sh
# Unpacks clamd of ClamAV into var/clamav for the tests. Nothing on the machine changes, and no signatures
# are downloaded. An installed clamd is only used where this fails: AppArmor keeps it from other files.
set -eu

[ -x var/clamav/usr/sbin/clamd ] && exit 0

give_up() {
    [ -x /usr/sbin/clamd ] && exit 0
    echo "$1" >&2
    exit 1
}

if ! command -v apt-get >/dev/null || ! command -v dpkg >/dev/null; then
    give_up "The tests need clamd of ClamAV as /usr/sbin/clamd; it does not have to run."
fi

echo "unpacking clamd"
root=$PWD
mkdir -p var/log
rm -rf var/clamav-packages
mkdir var/clamav-packages

# The daemon, and the libraries of it that the machine does not have.
download() {
    libraries=$(apt-get install --simulate --no-install-recommends clamav-daemon \
        | sed -n 's/^Inst \(lib[^ ]*\) .*/\1/p')
    # shellcheck disable=SC2086  # a list of packages
    (cd var/clamav-packages && apt-get download clamav-daemon $libraries)
}
# A new machine has no lists of packages, an old one may have outdated lists; only root updates them.
if ! { download || { [ "$(id -u)" -eq 0 ] && apt-get update && download; }; } \
    >var/log/clamav-install.log 2>&1; then
    cat var/log/clamav-install.log >&2
    give_up "clamav-daemon cannot be downloaded. As root: apt-get update"
fi
for package in var/clamav-packages/*.deb; do
    dpkg --extract "$package" var/clamav-packages/unpacked
done
libraries=$(dirname "$(find var/clamav-packages/unpacked -name 'libclamav.so.*' | head -n 1)")
echo "Foreground yes" >var/clamav-packages/clamd.conf
if ! LD_LIBRARY_PATH="$root/$libraries" var/clamav-packages/unpacked/usr/sbin/clamd \
    --config-file=var/clamav-packages/clamd.conf --version; then
    give_up "The clamd of this distribution does not run unpacked. As root:
    apt-get install --no-install-recommends clamav-daemon"
fi
# The new name appears only with the complete packages.
rm -rf var/clamav
mv var/clamav-packages/unpacked var/clamav
rm -rf var/clamav-packages
