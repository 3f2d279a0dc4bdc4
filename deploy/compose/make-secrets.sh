#!/bin/sh
# Writes the secrets compose.yaml mounts. Safe to run again: what exists stays, because the
# databases in the volumes were created with it.
set -eu
umask 077

directory=${1:-$(dirname "$0")/../../var/secrets}
mkdir -p "$directory"
cd "$directory"

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

# Compose mounts each file as it is, and the processes inside run as users of their own, so the
# files are readable by all. The directory is not: on this machine only its owner gets through.
chmod 644 ./*
: > complete
echo "wrote secrets to $(pwd)"
