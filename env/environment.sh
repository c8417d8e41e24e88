# Which Python environment the project's scripts use. To be sourced; defines functions only.

# Prints its folder: ALPRO_VENV (relative to the repository $1) if set, else the active environment, else
# .venv of the repository.
environment_folder() {
    local folder=${ALPRO_VENV:-${VIRTUAL_ENV:-${CONDA_PREFIX:-$1/.venv}}}
    case "$folder" in
        /*) echo "$folder" ;;
        *) echo "$1/$folder" ;;
    esac
}

# Puts the programs of that environment first on the PATH, where the environment exists.
activate_environment() {
    local folder
    folder=$(environment_folder "$1")
    [ -x "$folder/bin/python" ] || return 0
    export PATH="$folder/bin:$PATH"
    # A conda environment has no pyvenv.cfg; calling it a virtual one would mislead other tools.
    [ ! -f "$folder/pyvenv.cfg" ] || export VIRTUAL_ENV="$folder"
}
