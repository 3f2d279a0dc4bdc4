#!/bin/sh
# verify.sh SECRET ID TIMESTAMP SIGNATURES BODY_FILE: exits with 0 if a `v1` signature is right.
set -eu
secret=$1 id=$2 timestamp=$3 signatures=$4 body=$5

key=$(printf %s "${secret#whsec_}" | openssl base64 -d -A | od -An -v -tx1 | tr -d ' \n')
expected=v1,$({ printf %s "$id.$timestamp." && cat "$body"; } |
    openssl dgst -sha256 -mac HMAC -macopt "hexkey:$key" -binary | openssl base64 -A)

for signature in $signatures; do
    [ "$signature" = "$expected" ] && exit 0
done
exit 1
