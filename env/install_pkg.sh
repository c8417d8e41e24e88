#!/usr/bin/env bash
# Installs everything the project needs into one Python environment and proves that it works.
#
#   bash env/install_pkg.sh [--force]
#
# Where: into the active environment (virtual or conda), else into .venv of the repository, which it
# creates. What: the exact versions of env/requirements*.txt, and Horovod built from source. A PyTorch
# that is there already, with or without CUDA, is kept if setup.py's range admits it. A second run finds
# nothing to do and takes a moment; --force installs and proves again.
#
# Environment variables:
#   ALPRO_VENV             environment folder to use, whatever is active; relative to the repository
#   ALPRO_PYTHON           the Python that creates it (default: python3)
#   ALPRO_HOROVOD          0: do not build Horovod; torchrun needs nothing more
#   ALPRO_REQUIRE_HOROVOD  1: fail where Horovod cannot be built (default: go on without it)
#   MAX_JOBS               compile jobs (default: all cores)
# Exit code: 0 if all that is required works, else 1.
set -euo pipefail
shopt -s inherit_errexit

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=env/environment.sh
source "$root/env/environment.sh"
environment=$(environment_folder "$root")
python=$environment/bin/python
notes=$environment/alpro-install # the installer's own files: log, table, stamp
log=$notes/install.log

# The proof imports everything once; the byte code it leaves makes each later start quicker.
unset PYTHONDONTWRITEBYTECODE

# The oldest Python that the exact versions admit.
readonly OLDEST_PYTHON=3.11
readonly SHOWN_LOG_LINES=40

main() {
    local force=no
    case "${1:-}" in
        "") ;;
        --force) force=yes ;;
        *) sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}"; exit 2 ;;
    esac
    if [ "$force" = no ] && is_up_to_date; then
        echo "Environment $environment is up to date (what is in it: $notes/table.txt)."
        grep -v " OK " "$notes/table.txt" || true
        return 0
    fi

    echo "Installing into $environment"
    rm -rf "$notes"
    mkdir -p "$notes"
    : >"$log"
    step "preparing the environment" create_environment
    step "getting the installer uv" get_uv
    step "installing packages (several GB the first time)" install_packages
    step "checking that torchvision fits PyTorch" mend_torchvision
    local horovod_reason=""
    if [ "${ALPRO_HOROVOD:-1}" = 0 ]; then
        horovod_reason="left out, since ALPRO_HOROVOD is 0"
    elif "$python" "$root/env/installed.py" horovod-fits >>"$log" 2>&1; then
        echo "  Horovod is built for this PyTorch"
    elif ! have_build_tools; then
        horovod_reason="cannot be built without $(missing_build_tools | paste -sd ' '); remedy: as root, "
        horovod_reason+="apt-get install $(packages_for_build_tools), then bash env/install_pkg.sh"
    elif ! try "building Horovod" bash "$root/env/horovod_build/build.sh" "$python"; then
        horovod_reason="could not be built, see $log; remedy: mend the cause, then "
        horovod_reason+="bash env/install_pkg.sh --force"
    fi
    prove "$horovod_reason"
}

create_environment() {
    local creator=${ALPRO_PYTHON:-python3}
    if [ ! -x "$python" ]; then
        command -v "$creator" >/dev/null ||
            fail "$creator not found: install Python $OLDEST_PYTHON or later, or set ALPRO_PYTHON"
        require_python "$creator"
        if ! "$creator" -c 'import ensurepip, venv' 2>/dev/null; then
            # Debian and Ubuntu keep these in a package of their own.
            may_apt_install && apt_install python3-venv ||
                fail "$creator cannot make environments; remedy: apt-get install python3-venv"
        fi
        "$creator" -m venv "$environment" || return 1
    fi
    require_python "$python"
}

require_python() {
    "$1" -c "import sys; sys.exit(sys.version_info < (${OLDEST_PYTHON/./, }))" ||
        fail "$1 is $("$1" --version 2>&1), but the pinned packages need $OLDEST_PYTHON or later;" \
            "remedy: set ALPRO_PYTHON to such a Python (and use an environment made with it)"
}

get_uv() {
    local pin
    pin=$(grep '^uv==' "$root/env/requirements-build.txt")
    if [ "$("$python" -m uv --version 2>/dev/null | cut -d ' ' -f 2)" = "${pin#uv==}" ]; then
        return 0
    fi
    "$python" -m pip --version || "$python" -m ensurepip
    "$python" -m pip install --disable-pip-version-check "$pin"
}

install_packages() {
    local requirements=$notes/requirements.txt kept constraints=(-c "$root/env/constraints.txt")
    cat "$root"/env/requirements{,-dev,-build}.txt >"$requirements"
    kept=$("$python" "$root/env/installed.py" torch-to-keep) || return 1
    if [ -n "$kept" ]; then
        echo "keeping the PyTorch that is installed: $kept"
        # Its torchvision is the one that asks for exactly this PyTorch; the resolver knows which.
        sed -i -e "s/^torch==.*/torch==$kept/" -e "s/^torchvision==.*/torchvision/" "$requirements"
        constraints=()
    fi
    uv_install "${constraints[@]}" -r "$requirements"
    uv_install --no-deps --no-build-isolation -e "$root"
}

mend_torchvision() {
    if "$python" -c 'import torchvision'; then
        return 0
    fi
    [ "$("$python" -c 'import torch; print(torch.version.cuda)')" = None ] ||
        fail "import torchvision fails although PyTorch has CUDA, see $log"
    echo "PyTorch is built without CUDA: adding env/torchvision_cpu"
    # From a copy, since setuptools builds in the folder itself.
    cp -r "$root/env/torchvision_cpu" "$notes" || return 1
    uv_install --no-deps --no-build-isolation "$notes/torchvision_cpu" || return 1
    "$python" -c 'import torchvision'
}

missing_build_tools() {
    local tool
    for tool in "${HOROVOD_BUILD_CXX:-g++}" make; do
        command -v "$tool" >/dev/null || echo "$tool"
    done
    local headers
    headers=$("$python" -c 'import sysconfig; print(sysconfig.get_path("include"))')
    [ -f "$headers/Python.h" ] || echo Python.h
}

packages_for_build_tools() {
    missing_build_tools | sed -e 's/Python.h/python3-dev/' | paste -sd ' '
}

have_build_tools() {
    if [ -n "$(missing_build_tools)" ] && may_apt_install; then
        # shellcheck disable=SC2046  # several packages, several words
        try "installing $(packages_for_build_tools)" apt_install $(packages_for_build_tools) || true
    fi
    [ -z "$(missing_build_tools)" ]
}

# Whether this is root on Debian, Ubuntu or their like.
may_apt_install() {
    [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null
}

apt_install() {
    apt-get update && DEBIAN_FRONTEND=noninteractive \
        apt-get install -y --no-install-recommends "$@"
}

prove() {
    local options=(--horovod-reason "$1") outcome=0 first_line
    first_line=$(lines_of_log)
    [ "${ALPRO_REQUIRE_HOROVOD:-0}" != 1 ] || options+=(--require-horovod)
    echo "  proving the installation"
    "$python" "$root/env/verify_install.py" "${options[@]}" >"$notes/table.txt" 2>>"$log" || outcome=1
    echo
    cat "$notes/table.txt"
    echo
    if [ "$outcome" != 0 ]; then
        show_log "$first_line"
        fail "something required is missing or fails, see the table"
    fi
    fingerprint "${ALPRO_HOROVOD:-1}" >"$notes/stamp"
    echo "Installed in $SECONDS s. To use it by hand: source $environment/bin/activate"
}

# fingerprint HOROVOD: changes with what is asked for, the installer, the installed PyTorch, and the tools
# that were missing.
fingerprint() {
    (
        cd "$root/env"
        cat ./*.txt ./*.sh ./*.py horovod_build/* torchvision_cpu/*.{py,toml} ../setup.py
        cat "$environment"/lib/python*/site-packages/torch/version.py 2>/dev/null || true
        echo "$environment $(missing_build_tools) $1"
    ) | sha256sum
}

is_up_to_date() {
    local stamp
    [ -f "$notes/stamp" ] || return 1
    stamp=$(cat "$notes/stamp")
    # Whoever can do without Horovod does not mind that it is there.
    [ "$stamp" = "$(fingerprint 1)" ] ||
        { [ "${ALPRO_HOROVOD:-1}" = 0 ] && [ "$stamp" = "$(fingerprint 0)" ]; } || return 1
    [ "${ALPRO_REQUIRE_HOROVOD:-0}" != 1 ] || grep -q '^ *horovod .* OK ' "$notes/table.txt"
}

uv_install() {
    UV_HTTP_TIMEOUT=${UV_HTTP_TIMEOUT:-300} "$python" -m uv pip install --python "$python" "$@"
}

# Runs a command with its output in the log; ends the installation if it fails.
step() {
    try "$@" || fail "$1 failed"
}

# Runs a command with its output in the log and shows how long it took; on failure shows the log's end.
try() {
    local what=$1 started=$SECONDS first_line
    first_line=$(lines_of_log)
    shift
    echo "  $what ..."
    if ! ("$@") >>"$log" 2>&1; then
        echo "  ... failed" >&2
        show_log "$first_line"
        return 1
    fi
    echo "  ... $((SECONDS - started)) s"
}

lines_of_log() {
    wc -l <"$log"
}

# Shows what has been logged after the line of that number.
show_log() {
    echo "The end of $log:" >&2
    tail -n +"$(($1 + 1))" "$log" | tail -n "$SHOWN_LOG_LINES" | sed 's/^/  | /' >&2
}

fail() {
    echo "env/install_pkg.sh: $*" >&2
    exit 1
}

main "$@"
