# Sourced by demo, test and check: makes .venv and keeps it in step with pyproject.toml.
# shellcheck shell=bash

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
bin=$root/.venv/bin

make_venv() {
    [ -x "$bin/pip" ] && return
    local python=${PYTHON:-python3}
    if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
        echo "$python is missing or older than 3.11: install a newer one, or name it: PYTHON=python3.12 $0" >&2
        exit 1
    fi
    if ! "$python" -m venv "$root/.venv" >&2; then
        echo "$python cannot make $root/.venv: on Debian, apt-get install python3-venv" >&2
        exit 1
    fi
}

# install NAME EXTRAS: NAME is the stamp's, EXTRAS e.g. [test]; output goes to stderr, because the
# standard output belongs to the program.
install() {
    local stamp=$root/.venv/installed-$1 wanted
    make_venv
    wanted=$(cksum <"$root/pyproject.toml")
    if [ -x "$bin/tamulag-stream" ] && [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ]; then
        return
    fi
    echo "Installing into $root/.venv; the first time this takes minutes and several GB." >&2
    "$bin/pip" install --quiet --disable-pip-version-check -e "$root$2" >&2
    echo "$wanted" >"$stamp"
}
