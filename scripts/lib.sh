# Functions of the other scripts: find a Python and create environments. Source it with bash.

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
PYTHON_MIN="3.11"
PEER_CLIENT=fluvio==0.21.0
NODE_PEER=(@fluvio/client@0.14.9 typescript@5.9.3 @types/node@20.19.43)
AZURITE=azurite@3.35.0
SCRIPT="scripts/$(basename "$0")"

say() { printf '%s: %s\n' "$SCRIPT" "$*" >&2; }

die() {
    say "$*"
    exit 1
}

# Is this Python at least 3.11, and of the given version, if any? A command on PATH may be a shim
# that only prints the installed versions, so every candidate is run.
is_usable_python() {
    "$1" -c '
import sys
required = sys.argv[1] if len(sys.argv) > 1 else ""
found = "%d.%d" % sys.version_info[:2]
sys.exit(not (sys.version_info >= (3, 11) and required in ("", found)))
' "${@:2}" >/dev/null 2>&1
}

can_create_environments() { "$1" -c 'import venv, ensurepip' >/dev/null 2>&1; }

# Print every candidate for a version ("3.12") or for any version, best first, one per line.
python_candidates() {
    local version names name folder
    version=${1:-}
    if [ -n "$version" ]; then
        names="python$version"
    else
        [ -z "${STREAMKIT_PYTHON:-}" ] || printf '%s\n' "$STREAMKIT_PYTHON"
        # The lowest version first: code that works there also works with later ones.
        names="python3.11 python3.12 python3.13 python3.14 python3 python"
    fi
    for name in $names; do
        type -aP "$name" || true
    done
    for folder in "${PYENV_ROOT:-$HOME/.pyenv}"/versions/"${version:-3}"*/bin; do
        [ ! -x "$folder/python" ] || printf '%s\n' "$folder/python"
    done
}

# Print a Python of this version, or of any version from 3.11. Returns 1 if none was found, 2 if
# one was found that cannot create environments.
find_python() {
    local candidate status=1
    while IFS= read -r candidate; do
        is_usable_python "$candidate" "$@" || continue
        if can_create_environments "$candidate"; then
            printf '%s\n' "$candidate"
            return 0
        fi
        status=2
    done < <(python_candidates "$@")
    return "$status"
}

# Like `find_python`, but ends the script with a message if none is found.
need_python() {
    local status=0
    find_python "$@" || status=$?
    case $status in
        0) ;;
        2) die "Python ${1:-$PYTHON_MIN or newer} lacks its modules venv and ensurepip;" \
            "install them (Debian: apt-get install python3-venv)" ;;
        *) die "no Python ${1:-$PYTHON_MIN or newer} was found on PATH or among pyenv's versions;" \
            "install one, or set STREAMKIT_PYTHON to its path" ;;
    esac
}

# Run pip without output. If it fails, print its last lines and an explanation.
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
        say "pip cannot reach its package registry, or the package does not exist;" \
            "check the network and pip's settings (pip config list)"
    else
        say "pip failed: its last lines are above"
    fi
    rm -f "$log"
    return 1
}

# Print a checksum of these files, which need not exist.
fingerprint() { (cd "$ROOT" && { cat "$@" 2>/dev/null || true; } | cksum); }

# Only one script at a time may change an environment. Without `flock` (macOS) there is no lock.
lock_environment() {
    mkdir -p "$ROOT/.venvs"
    if command -v flock >/dev/null; then
        exec 9>"$ROOT/.venvs/$(basename "$1").lock"
        flock 9
    fi
}

unlock_environment() { exec 9>&-; }

# Install this project in editable mode, with these extras, into the environment in a folder. If
# pyproject.toml has changed, everything is installed again; if only the codec's source has
# changed, only the codec is built again.
make_environment() {
    local folder=$1 extras=$2 version=${3:-} python packages codec
    lock_environment "$folder"
    python="$folder/bin/python"
    if ! is_usable_python "$python" ${version:+"$version"}; then
        local base
        base=$(need_python ${version:+"$version"}) || exit 1
        say "creating $folder with $("$base" --version 2>&1)"
        rm -rf "$folder"
        "$base" -m venv "$folder" || die "cannot create the environment in $folder"
    fi
    packages=$(fingerprint pyproject.toml)
    codec=$(fingerprint streamkit/protocol/codec.py streamkit/protocol/codec.pxd)
    if [ "$(cat "$folder/streamkit-$extras" 2>/dev/null)" != "$packages" ]; then
        say "installing the project with [$extras] into $folder"
        run_pip "$python" install -e "$ROOT[$extras]" || exit 1
        printf '%s\n' "$packages" >"$folder/streamkit-$extras"
        printf '%s\n' "$codec" >"$folder/streamkit-codec"
    elif [ "$(cat "$folder/streamkit-codec" 2>/dev/null)" != "$codec" ]; then
        say "building the codec again"
        run_pip "$python" install --no-deps -e "$ROOT" || exit 1
        printf '%s\n' "$codec" >"$folder/streamkit-codec"
    fi
    # With PYTHONDONTWRITEBYTECODE, each process would compile the sources again.
    "$python" -m compileall -q "$ROOT/streamkit" || die "the sources cannot be compiled"
    unlock_environment
}

# Create `.venv` for the command `streamkit`, or keep one that has more extras.
make_user_environment() {
    local extras=cli
    [ ! -e "$ROOT/.venv/streamkit-dev,docs,cli" ] || extras=dev,docs,cli
    make_environment "$ROOT/.venv" "$extras"
}

# Keep the programs of a script away from the user's own cluster and settings.
ignore_user_settings() {
    unset STREAMKIT_CLUSTER
    export FLV_PROFILE_PATH="$1/no-fluvio-profile"
}

# The official client pins old packages, so it gets a separate environment. If it cannot be
# installed, print a message and continue: tests that need it are skipped, and benchmarks have no
# baseline.
make_peers() {
    local folder="$ROOT/.venv-peers" base
    [ -z "${STREAMKIT_PEER_PYTHON:-}" ] || return 0
    lock_environment "$folder"
    if ! "$folder/bin/python" -c 'import fluvio' 2>/dev/null; then
        rm -rf "$folder"
        base=$(find_python 3.11 || find_python) &&
            say "creating .venv-peers with the official client, $PEER_CLIENT" &&
            "$base" -m venv "$folder" &&
            run_pip "$folder/bin/python" install --only-binary fluvio "$PEER_CLIENT" &&
            "$folder/bin/python" -c 'import fluvio' ||
            {
                rm -rf "$folder"
                unlock_environment
                say "WARNING: the official Fluvio client could not be installed;" \
                    "its tests and baselines are skipped"
                return 0
            }
    fi
    unlock_environment
    export STREAMKIT_PEER_PYTHON="$folder/bin/python"
}

# The official Node client. Its install script needs a TypeScript compiler, which is not among its
# dependencies, so it is installed without scripts and compiled here.
make_node_peer() {
    local folder="$ROOT/.node-peers"
    [ -z "${STREAMKIT_PEER_NODE:-}" ] || return 0
    lock_environment "$folder"
    if [ "$(cat "$folder/packages" 2>/dev/null)" != "${NODE_PEER[*]}" ] || ! node_client_loads "$folder"; then
        rm -rf "$folder"
        say "creating .node-peers with the official client for Node, ${NODE_PEER[0]}"
        mkdir -p "$folder" &&
            npm install --prefix "$folder" --ignore-scripts --no-save --no-package-lock \
                --no-audit --no-fund --loglevel=error "${NODE_PEER[@]}" >&2 &&
            node "$folder/node_modules/typescript/bin/tsc" -p "$folder/node_modules/@fluvio/client" >&2 &&
            node_client_loads "$folder" &&
            printf '%s\n' "${NODE_PEER[*]}" >"$folder/packages" ||
            {
                rm -rf "$folder"
                unlock_environment
                say "WARNING: the official Fluvio client for Node could not be installed, so its tests are skipped;" \
                    "it needs node and npm, and access to the npm registry"
                return 0
            }
    fi
    unlock_environment
    export STREAMKIT_PEER_NODE="$folder"
}

node_client_loads() { NODE_PATH="$1/node_modules" node -e 'require("@fluvio/client")' >/dev/null 2>&1; }

# The emulator of Azure's storage, for the tests of objects.
make_azurite() {
    local folder="$ROOT/.azurite"
    [ -z "${STREAMKIT_TEST_AZURITE:-}" ] || return 0
    lock_environment "$folder"
    if [ "$(cat "$folder/packages" 2>/dev/null)" != "$AZURITE" ]; then
        rm -rf "$folder"
        say "creating .azurite with the npm package $AZURITE"
        mkdir -p "$folder" &&
            npm install --prefix "$folder" --ignore-scripts --omit=optional --no-save --no-package-lock \
                --no-audit --no-fund --loglevel=error "$AZURITE" >&2 &&
            node "$folder/node_modules/azurite/dist/src/blob/main.js" --version >/dev/null &&
            printf '%s\n' "$AZURITE" >"$folder/packages" ||
            {
                rm -rf "$folder"
                unlock_environment
                say "WARNING: Azurite could not be installed, so the tests of Azure's objects are skipped;" \
                    "it needs node and npm, and access to the npm registry"
                return 0
            }
    fi
    unlock_environment
    export STREAMKIT_TEST_AZURITE="$folder"
}

# Database servers for the tests of SQL. They are installed only where that needs no password; where
# one is missing, its tests are skipped.
make_databases() {
    make_database PostgreSQL has_postgres postgresql
    make_database PgBouncer has_pgbouncer pgbouncer
    make_database MariaDB has_mariadb mariadb-server-core mariadb-client-core
}

# Install packages of Debian unless a function says that their programs are here.
make_database() {
    local name=$1 is_here=$2 log
    shift 2
    ! "$is_here" || return 0
    if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
        say "WARNING: $name is not installed, so its tests are skipped (Debian: apt-get install $*)"
        return 0
    fi
    say "installing $name with apt-get"
    log=$(mktemp)
    if ! install_packages "$@" >"$log" 2>&1 || ! "$is_here"; then
        tail -n 5 "$log" >&2
        say "WARNING: $name could not be installed, so its tests are skipped"
    fi
    rm -f "$log"
}

has_postgres() { compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null || command -v initdb >/dev/null; }

has_pgbouncer() { PATH="$PATH:/usr/sbin" command -v pgbouncer >/dev/null; }

has_mariadb() {
    PATH="$PATH:/usr/sbin:/usr/local/sbin" command -v mariadbd >/dev/null && command -v mariadb-install-db >/dev/null
}

# RUNLEVEL=1 keeps Debian from starting a server of its own.
install_packages() (
    export DEBIAN_FRONTEND=noninteractive RUNLEVEL=1
    apt-get install -qq --no-install-recommends "$@" ||
        { apt-get update -qq && apt-get install -qq --no-install-recommends "$@"; }
)

# The jars of a Kafka broker for the tests of Kafka, in `.kafka`. Where there is no Java or Maven, these
# tests are skipped.
make_kafka() {
    local folder="$ROOT/.kafka" log
    [ -z "${STREAMKIT_TEST_KAFKA_JARS:-}" ] || return 0
    if ! command -v java >/dev/null || ! command -v mvn >/dev/null; then
        say "WARNING: java or mvn is missing, so the tests with a real Kafka broker are skipped" \
            "(Debian: apt-get install default-jre-headless maven)"
        return 0
    fi
    lock_environment "$folder"
    if [ "$(cat "$folder/pom" 2>/dev/null)" != "$(fingerprint tests/kafka/pom.xml)" ]; then
        say "fetching the jars of a Kafka broker with mvn"
        rm -rf "$folder"
        mkdir -p "$folder"
        log=$(mktemp)
        if mvn --batch-mode --quiet --file "$ROOT/tests/kafka/pom.xml" \
            -Dmaven.wagon.http.connectionTimeout=30000 -Dmaven.wagon.http.readTimeout=60000 \
            dependency:copy-dependencies "-DoutputDirectory=$folder/jars" >"$log" 2>&1; then
            fingerprint tests/kafka/pom.xml >"$folder/pom"
        else
            rm -rf "$folder"
            tail -n 5 "$log" >&2
            say "WARNING: mvn could not fetch Kafka, so the tests with a real broker are skipped"
        fi
        rm -f "$log"
    fi
    unlock_environment
    # A copy of the checkout, in which a build is tested, has no such folder.
    [ ! -d "$folder/jars" ] || export STREAMKIT_TEST_KAFKA_JARS="$folder/jars"
}
