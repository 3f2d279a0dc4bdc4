#!/bin/sh
# Creates a virtual environment: venv.sh PYTHON DIRECTORY
set -eu
python=$1
directory=$2

if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
    echo "Python 3.11 or newer is needed, $python is $("$python" --version 2>&1)." >&2
    echo "Name another one:  make PYTHON=python3.12 ..." >&2
    exit 1
fi

if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
    version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    echo "This Python cannot make virtual environments. On Debian and Ubuntu, as root:" >&2
    echo "    apt-get install python$version-venv" >&2
    exit 1
fi

[ -x "$directory/bin/python" ] || "$python" -m venv "$directory"
