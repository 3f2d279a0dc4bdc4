#!/bin/sh
# Installs the npm packages of the programs in dev/receiving/snippets into var/npm.
set -eu
wanted=dev/receiving/snippets/package.json

cmp -s "$wanted" var/npm/installed.json && exit 0

# Without them everything else works; a test says that it is skipped.
if ! command -v node >/dev/null || ! command -v npm >/dev/null; then
    echo "No Node.js: the programs for receivers in JavaScript are not tested." >&2
    exit 0
fi

echo "installing $wanted"
rm -rf var/npm
mkdir -p var/log var/npm
cp "$wanted" var/npm/package.json
if ! npm install --prefix var/npm --ignore-scripts --no-audit --no-fund --no-package-lock \
    >var/log/npm-install.log 2>&1; then
    cat var/log/npm-install.log >&2
    echo "The packages cannot be downloaded: the library for Node.js is not tested." >&2
    exit 0
fi
# Written last, so that an interrupted installation is repeated.
cp "$wanted" var/npm/installed.json
