# Shared by the scripts beside it: finding a Python and making environments. Source it with bash.

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
PYTHON_MIN="3.11"
PEER_CLIENT=fluvio==0.21.0
NODE_PEER=(@fluvio/client@0.14.9 typescript@5.9.3 @types/node@20.19.43)
SCRIPT="scripts/$(basename "$0")"

say() { printf '%s: %s\n' "$SCRIPT" "$*" >&2; }

die() {
    say "$*"
    exit 1
}

# Is this Python at least 3.11, and of the version asked for, if one is? A command on PATH may be a
# shim that only says which versions there are, so every candidate is executed.
python_answers() {
    "$1" -c '
import sys
wanted = sys.argv[1] if len(sys.argv) > 1 else ""
have = "%d.%d" % sys.version_info[:2]
sys.exit(not (sys.version_info >= (3, 11) and wanted in ("", have)))
' "${@:2}" >/dev/null 2>&1
}

can_make_environments() { "$1" -c 'import venv, ensurepip' >/dev/null 2>&1; }

# Every Python that may be meant by a version ("3.12") or by none, best first, one a line.
python_candidates() {
    local version names name folder
    version=${1:-}
    if [ -n "$version" ]; then
        names="python$version"
    else
        [ -z "${STREAMKIT_PYTHON:-}" ] || printf '%s\n' "$STREAMKIT_PYTHON"
        # The lowest one first: what works there works above.
        names="python3.11 python3.12 python3.13 python3.14 python3 python"
    fi
    for name in $names; do
        type -aP "$name" || true
    done
    for folder in "${PYENV_ROOT:-$HOME/.pyenv}"/versions/"${version:-3}"*/bin; do
        [ ! -x "$folder/python" ] || printf '%s\n' "$folder/python"
    done
}

# Print a Python of this version, or of any from 3.11 on. 1: there is none. 2: one was found, but it
# cannot make environments.
find_python() {
    local candidate status=1
    while IFS= read -r candidate; do
        python_answers "$candidate" "$@" || continue
        if can_make_environments "$candidate"; then
            printf '%s\n' "$candidate"
            return 0
        fi
        status=2
    done < <(python_candidates "$@")
    return "$status"
}

# As `find_python`, but ends the script with a sentence about what is missing.
need_python() {
    local status=0
    find_python "$@" || status=$?
    case $status in
        0) ;;
        2) die "Python ${1:-$PYTHON_MIN or newer} is here without its modules venv and ensurepip;" \
            "install them (Debian: apt-get install python3-venv)" ;;
        *) die "no Python ${1:-$PYTHON_MIN or newer} was found, on PATH or among pyenv's versions;" \
            "install one, or name it in STREAMKIT_PYTHON" ;;
    esac
}

# pip, quiet while it works; when it fails, its last lines and what they mean.
run_pip() {
    local python=$1 log
    shift
    log=$(mktemp)
    if "$python" -m pip --disable-pip-version-check "$@" >"$log" 2>&1; then
        rm -f "$log"
        return 0
    fi
    tail -n 15 "$log" >&2
    if grep -Eqi 'connection|timed out|name resolution|no matching distribution|proxyerror|sslerror' "$log"; then
        say "pip cannot reach its package registry, or the package is not there;" \
            "check the network and pip's settings (pip config list)"
    else
        say "pip failed: its last lines are above"
    fi
    rm -f "$log"
    return 1
}

# A number that changes with the files named, whether they exist or not.
fingerprint() { (cd "$ROOT" && { cat "$@" 2>/dev/null || true; } | cksum); }

# One script at a time works on an environment. Without `flock` (macOS) nobody is kept out.
lock_environment() {
    mkdir -p "$ROOT/.venvs"
    if command -v flock >/dev/null; then
        exec 9>"$ROOT/.venvs/$(basename "$1").lock"
        flock 9
    fi
}

unlock_environment() { exec 9>&-; }

# Make the environment in a folder hold this project, editable, with these extras. It is built
# anew when pyproject.toml has changed, and the codec alone when only its source has.
make_environment() {
    local folder=$1 extras=$2 version=${3:-} python packages codec
    lock_environment "$folder"
    python="$folder/bin/python"
    if ! python_answers "$python" ${version:+"$version"}; then
        local base
        base=$(need_python ${version:+"$version"}) || exit 1
        say "making $folder with $("$base" --version 2>&1)"
        rm -rf "$folder"
        "$base" -m venv "$folder" || die "the environment could not be made in $folder"
    fi
    packages=$(fingerprint pyproject.toml)
    codec=$(fingerprint streamkit/protocol/codec.py streamkit/protocol/codec.pxd)
    if [ "$(cat "$folder/streamkit-$extras" 2>/dev/null)" != "$packages" ]; then
        say "installing the project with [$extras] into $folder"
        run_pip "$python" install -e "$ROOT[$extras]" || exit 1
        printf '%s\n' "$packages" >"$folder/streamkit-$extras"
        printf '%s\n' "$codec" >"$folder/streamkit-codec"
    elif [ "$(cat "$folder/streamkit-codec" 2>/dev/null)" != "$codec" ]; then
        say "building the codec anew"
        run_pip "$python" install --no-deps -e "$ROOT" || exit 1
        printf '%s\n' "$codec" >"$folder/streamkit-codec"
    fi
    unlock_environment
}

# Make `.venv` able to run the command `streamkit`: any environment that was made for more will do.
make_user_environment() {
    local extras=cli
    [ ! -e "$ROOT/.venv/streamkit-dev,docs,cli" ] || extras=dev,docs,cli
    make_environment "$ROOT/.venv" "$extras"
}

# Keep everything that is run away from the user's own cluster and settings.
leave_user_alone() {
    unset STREAMKIT_CLUSTER
    export FLV_PROFILE_PATH="$1/no-fluvio-profile"
}

# The official client pins old packages, so it lives in an environment of its own. Where it
# cannot be had, say so and go on: tests that need it are skipped, benchmarks lack a baseline.
make_peers() {
    local folder="$ROOT/.venv-peers" base
    [ -z "${STREAMKIT_PEER_PYTHON:-}" ] || return 0
    lock_environment "$folder"
    if ! "$folder/bin/python" -c 'import fluvio' 2>/dev/null; then
        rm -rf "$folder"
        base=$(find_python 3.11 || find_python) &&
            say "making .venv-peers with the official client, $PEER_CLIENT" &&
            "$base" -m venv "$folder" &&
            run_pip "$folder/bin/python" install --only-binary fluvio "$PEER_CLIENT" &&
            "$folder/bin/python" -c 'import fluvio' ||
            {
                rm -rf "$folder"
                unlock_environment
                say "ATTENTION: the official Fluvio client could not be installed:" \
                    "what compares with it is left out"
                return 0
            }
    fi
    unlock_environment
    export STREAMKIT_PEER_PYTHON="$folder/bin/python"
}

# The official Node client. Its install script wants a TypeScript compiler that it does not bring
# along, so it is installed without scripts and compiled here.
make_node_peer() {
    local folder="$ROOT/.node-peers"
    [ -z "${STREAMKIT_PEER_NODE:-}" ] || return 0
    lock_environment "$folder"
    if [ "$(cat "$folder/packages" 2>/dev/null)" != "${NODE_PEER[*]}" ] || ! node_client_loads "$folder"; then
        rm -rf "$folder"
        say "making .node-peers with the official client for Node, ${NODE_PEER[0]}"
        mkdir -p "$folder" &&
            npm install --prefix "$folder" --ignore-scripts --no-save --no-package-lock \
                --no-audit --no-fund --loglevel=error "${NODE_PEER[@]}" >&2 &&
            node "$folder/node_modules/typescript/bin/tsc" -p "$folder/node_modules/@fluvio/client" >&2 &&
            node_client_loads "$folder" &&
            printf '%s\n' "${NODE_PEER[*]}" >"$folder/packages" ||
            {
                rm -rf "$folder"
                unlock_environment
                say "ATTENTION: the official Fluvio client for Node could not be made:" \
                    "node and npm must be here, and reach their registry; its tests are left out"
                return 0
            }
    fi
    unlock_environment
    export STREAMKIT_PEER_NODE="$folder"
}

node_client_loads() { NODE_PATH="$1/node_modules" node -e 'require("@fluvio/client")' >/dev/null 2>&1; }
