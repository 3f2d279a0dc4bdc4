#!/bin/sh
# Installs RabbitMQ unless it is installed or supplied by the caller.
set -eu

[ -n "${RABBITMQ_URL:-}${CELERY_BROKER_URL:-}" ] && exit 0
[ -x /usr/lib/rabbitmq/bin/rabbitmq-server ] && exit 0

if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
    echo "RabbitMQ is not installed. On Debian and Ubuntu, as root:" >&2
    echo "    apt-get install --no-install-recommends rabbitmq-server" >&2
    echo "Or set RABBITMQ_URL to a broker of yours." >&2
    exit 1
fi

echo "installing rabbitmq-server"
export DEBIAN_FRONTEND=noninteractive
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    # Without it, the package starts a broker that listens on every address.
    trap 'rm -f "$policy"' EXIT
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod +x "$policy"
fi
mkdir -p var/log
if ! { apt-get update && apt-get install -y --no-install-recommends rabbitmq-server; } \
    >var/log/apt.log 2>&1; then
    cat var/log/apt.log >&2
    exit 1
fi
