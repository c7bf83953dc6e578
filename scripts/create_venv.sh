#!/bin/sh
# Create a virtual environment at $1 with $PYTHON, and say what is missing where that does not work.
set -eu
venv=$1
python=${PYTHON:-python3}
"$python" - <<'CHECK' || exit 1
import sys
if not (3, 11) <= sys.version_info[:2] <= (3, 13):
    sys.exit("nr_tracking needs Python 3.11 to 3.13, this is %d.%d: name one with PYTHON=..." % sys.version_info[:2])
CHECK
[ -x "$venv/bin/python" ] && "$venv/bin/python" -m pip --version >/dev/null 2>&1 && exit 0
if "$python" -m venv "$venv" 2>/dev/null; then exit 0; fi
# Debian and Ubuntu keep ensurepip in a package of its own.
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    apt-get update -qq && apt-get install -y -qq python3-venv && exec "$python" -m venv --clear "$venv"
fi
echo "cannot create a virtual environment: install the package python3-venv (apt-get install python3-venv)" >&2
exit 1
