#!/bin/sh
# send.sh SECRET URL BODY_FILE: sends an event to your receiver as Waybill does; prints the status.
set -eu
secret=$1 url=$2 body=$3

id=$(sed -n 's/.*"id": *"\([^"]*\)".*/\1/p' "$body" | head -n 1)
timestamp=$(date +%s)
key=$(printf %s "${secret#whsec_}" | openssl base64 -d -A | od -An -v -tx1 | tr -d ' \n')
signature=v1,$({ printf %s "$id.$timestamp." && cat "$body"; } |
    openssl dgst -sha256 -mac HMAC -macopt "hexkey:$key" -binary | openssl base64 -A)

curl --silent --show-error --output /dev/null --write-out '%{http_code}\n' "$url" \
    --header 'content-type: application/cloudevents+json' \
    --header "webhook-id: $id" \
    --header "webhook-timestamp: $timestamp" \
    --header "webhook-signature: $signature" \
    --data-binary "@$body"
