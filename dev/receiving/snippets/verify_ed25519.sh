#!/bin/sh
# verify_ed25519.sh PUBLIC_KEY ID TIMESTAMP SIGNATURES BODY_FILE: the same for `v1a`.
set -eu
public_key=$1 id=$2 timestamp=$3 signatures=$4 body=$5
files=$(mktemp -d)
trap 'rm -rf "$files"' EXIT

# In front of a raw key, X.509 has these twelve bytes: "an ed25519 key follows".
{ printf '\060\052\060\005\006\003\053\145\160\003\041\000' &&
    printf %s "${public_key#whpk_}" | openssl base64 -d -A; } >"$files/key.der"
{ printf %s "$id.$timestamp." && cat "$body"; } >"$files/content"

for signature in $signatures; do
    [ "${signature#v1a,}" = "$signature" ] && continue
    printf %s "${signature#v1a,}" | openssl base64 -d -A >"$files/signature"
    openssl pkeyutl -verify -pubin -keyform DER -inkey "$files/key.der" -rawin \
        -in "$files/content" -sigfile "$files/signature" >/dev/null 2>&1 && exit 0
done
exit 1
