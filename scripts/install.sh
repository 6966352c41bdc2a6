# Sourced by demo, test and check: makes .venv and keeps it in step with pyproject.toml and requirements/.
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

# packages ARGUMENT...: pip install of what is named alone. requirements/ names every package with the
# checksums of its files, so pip has nothing to choose; what builds one comes from there too.
packages() {
    "$bin/pip" install --quiet --disable-pip-version-check --no-deps --no-build-isolation "$@" >&2
}

# locked NAME: the path of requirements/NAME.lock; without CUDA's packages where torch of that version is
# there for processors alone, of which pip knows no difference.
locked() {
    local lock=$root/requirements/$1.lock torch
    torch=$(sed -n 's/^torch==\([^ ]*\).*/\1/p' "$lock")
    if [ -n "$torch" ] && compgen -G "$root/.venv/lib/*/site-packages/torch-$torch+cpu.dist-info" >/dev/null; then
        awk '/^[a-z]/ { keep = !/^(cuda-|nvidia-|triton)/ } keep' "$lock" >"$root/.venv/$1.lock"
        lock=$root/.venv/$1.lock
    fi
    echo "$lock"
}

# install NAME LOCK...: NAME is the stamp's, LOCK a file of requirements/; output goes to stderr, because
# the standard output belongs to the program.
install() {
    local stamp=$root/.venv/installed-$1 wanted files=() lock
    shift
    make_venv
    for lock in "$@"; do files+=(-r "$(locked "$lock")"); done
    wanted=$(cat "$root/pyproject.toml" "$root"/requirements/*.lock | cksum)
    if [ -x "$bin/tamulag-stream" ] && [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ]; then
        return
    fi
    echo "Installing into $root/.venv; the first time this takes minutes and several GB." >&2
    packages --require-hashes -r "$root/requirements/build.lock"
    packages --require-hashes "${files[@]}"
    packages -e "$root"
    echo "$wanted" >"$stamp"
}
