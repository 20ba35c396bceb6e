#!/usr/bin/env bash
# Make the virtual environment .venv, with just python3 present. Quick when nothing changed.
#   scripts/setup.sh          what the programs need
#   scripts/setup.sh --dev    what the tests need too
set -euo pipefail
cd "$(dirname "$0")/.."
if [ -L .venv ]; then exit 0; fi  # a linked one belongs to another tree: installing here would make that tree run this one's code
lock=requirements.lock
[ "${1:-}" = "--dev" ] && lock=requirements-dev.lock
python=${PYTHON:-python3}
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "setup: python3 3.11 or newer is needed, found $("$python" --version)" >&2; exit 1; }
stamp=$(cat pyproject.toml requirements.lock requirements-dev.lock src/greentic/__init__.py | sha256sum | cut -d' ' -f1)
for done in .venv/.ready-requirements-dev.lock ".venv/.ready-$lock"; do
  if [ -x .venv/bin/python ] && [ "$(cat "$done" 2>/dev/null)" = "$stamp" ]; then exit 0; fi
done
echo "setup: making .venv from $lock (once; the next time is quick)" >&2
if [ ! -x .venv/bin/python ]; then
  "$python" -m venv .venv || { echo "setup: python3 -m venv failed; on Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }
fi
pip=(.venv/bin/python -m pip --disable-pip-version-check -q)
"${pip[@]}" install --require-hashes --no-deps -r "$lock"  # the lock is complete; resolving again would look at newer releases
"${pip[@]}" install --no-deps --no-build-isolation -e . 2>/dev/null || "${pip[@]}" install --no-deps -e .
.venv/bin/python -m compileall -q src
echo "$stamp" > ".venv/.ready-$lock"
