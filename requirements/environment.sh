# What ./run and ./test share: make a Python environment from a lock file, once.

# Print a Python that can make the environment: 3.10 or newer, with venv and pip.
find_python() {
    local candidate
    for candidate in python3 python3.13 python3.12 python3.11 python3.10 python; do
        if "$candidate" -c 'import sys; assert sys.version_info >= (3, 10); import ensurepip, venv' \
            >/dev/null 2>&1; then
            command -v "$candidate"
            return
        fi
    done
    echo "error: no Python 3.10 or newer with venv found; install it, for example: sudo apt install python3 python3-venv" >&2
    return 2
}

# Bring the environment ROOT/FOLDER to what ROOT/requirements/LOCK says, unless it is already there.
make_environment() {
    local root="$1" folder="$1/$2" lock="$1/requirements/$3" python wanted
    if [ ! -x "$folder/bin/python" ]; then
        python="$(find_python)" || return
        echo "making $folder (once; a few minutes with a slow network)" >&2
        "$python" -m venv "$folder"
    fi
    # The stamp names the folder as well: an environment that was moved is put right.
    wanted="$(cat "$lock" "$root/pyproject.toml" | "$folder/bin/python" -c \
        'import hashlib, sys; print(hashlib.sha256(sys.stdin.buffer.read()).hexdigest(), sys.prefix)')"
    if [ "$(cat "$folder/installed" 2>/dev/null)" = "$wanted" ]; then
        return
    fi
    echo "installing from ${lock#"$root"/}" >&2
    # An environment whose making was interrupted may lack pip.
    "$folder/bin/python" -m pip --version >/dev/null 2>&1 || "$folder/bin/python" -m ensurepip >&2
    "$folder/bin/python" -m pip install --quiet --disable-pip-version-check --requirement "$lock"
    "$folder/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --editable "$root"
    echo "$wanted" >"$folder/installed"
}
