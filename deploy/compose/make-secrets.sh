#!/bin/sh
# Writes the secrets that compose.yaml mounts. Safe to run again: existing secrets stay, because
# the databases in the volumes were created with them.
set -eu
umask 077

directory=${1:-$(dirname "$0")/../../var/secrets}
mkdir -p "$directory"
cd "$directory"

# Before the check below: older versions of this script wrote no key. 32 bytes in base64.
if [ ! -e secret_keys ]; then
  head -c 32 /dev/urandom | base64 > secret_keys.draft
  chmod 644 secret_keys.draft
  mv secret_keys.draft secret_keys
fi

if [ -e complete ]; then
  echo "secrets exist in $(pwd)"
  exit 0
fi

random() {
  od -An -N"$1" -tx1 /dev/urandom | tr -d ' \n'
}

postgres_password=$(random 24)
rabbitmq_password=$(random 24)
s3_access_key_id=$(random 10)
s3_secret_access_key=$(random 20)

printf '%s' "$postgres_password" > postgres_password
printf 'postgresql+psycopg://waybill:%s@postgres:5432/waybill' "$postgres_password" > database_url
printf 'default_user = waybill\ndefault_pass = %s\n' "$rabbitmq_password" > rabbitmq_user.conf
printf 'amqp://waybill:%s@rabbitmq:5672/%%2F' "$rabbitmq_password" > rabbitmq_url
printf '%s' "$s3_access_key_id" > s3_access_key_id
printf '%s' "$s3_secret_access_key" > s3_secret_access_key
cat > s3_identities.json <<JSON
{
  "identities": [
    {
      "name": "waybill",
      "credentials": [
        {"accessKey": "$s3_access_key_id", "secretKey": "$s3_secret_access_key"}
      ],
      "actions": ["Admin", "Read", "List", "Tagging", "Write"]
    }
  ]
}
JSON

# The processes in the containers run as different users, so every user can read the files. On this
# machine only the owner can enter their directory.
chmod 644 ./*
: > complete
echo "wrote secrets to $(pwd)"
