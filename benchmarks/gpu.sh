#!/usr/bin/env bash
# All that needs a GPU, in one go: the tests, then the table of latencies. It says what it skips.
# PYTHON names another Python than that of .venv-dev: one that has TensorRT and cuda-python as well
# as what requirements/test.txt names. On a Jetson, whose TensorRT is the system's:
#   PYTHONPATH=/usr/lib/python3/dist-packages benchmarks/gpu.sh
# Arguments go to the table: --model NAME.
set -euo pipefail
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
if [ -z "${PYTHON:-}" ]; then
    # shellcheck source=../requirements/environment.sh
    source "$root/requirements/environment.sh"
    make_environment "$root" .venv-dev test.txt
    PYTHON="$root/.venv-dev/bin/python"
fi
cd "$root"
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"
nvidia-smi -L 2>/dev/null || echo "nvidia-smi finds no GPU, or is not here"
tested=0
"$PYTHON" -m pytest tests/gpu tests/learning/test_stepping.py --durations=5 || tested=$?
"$PYTHON" benchmarks/gpu_latency.py "$@"
exit "$tested"
