#!/bin/sh
# Unpacks nginx into var/nginx for the tests, unless it is installed. Nothing on the machine changes.
set -eu

[ -x /usr/sbin/nginx ] && exit 0
[ -x var/nginx/usr/sbin/nginx ] && exit 0

if ! command -v apt-get >/dev/null || ! command -v dpkg >/dev/null; then
    echo "The tests need nginx as /usr/sbin/nginx; it does not have to run." >&2
    exit 1
fi

echo "unpacking nginx"
root=$PWD
mkdir -p var/log
rm -rf var/nginx-packages
mkdir var/nginx-packages

download() { (cd var/nginx-packages && apt-get download nginx); }
# A new machine has no lists of packages, an old one may have outdated lists; only root updates them.
if ! { download || { [ "$(id -u)" -eq 0 ] && apt-get update && download; }; } \
    >var/log/nginx-install.log 2>&1; then
    cat var/log/nginx-install.log >&2
    echo "nginx cannot be downloaded. As root: apt-get update" >&2
    exit 1
fi
# The new name appears only with the complete package.
dpkg --extract var/nginx-packages/nginx_*.deb var/nginx-packages/unpacked
if ! "$root/var/nginx-packages/unpacked/usr/sbin/nginx" -v 2>/dev/null; then
    echo "The nginx of this distribution does not run unpacked. As root:" >&2
    echo "    apt-get install --no-install-recommends nginx" >&2
    exit 1
fi
rm -rf var/nginx
mv var/nginx-packages/unpacked var/nginx
rm -rf var/nginx-packages
