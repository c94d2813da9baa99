#!/usr/bin/env bash
# One short session on a machine with a GPU, which need not reach a network:  bash benchmarks/gpu_session.sh [WHEELS]
# WHEELS is a folder with wheels of what the machine lacks; without it .whl, if it is there. At most 280 seconds.
# Further words go to `python -m benchmarks gpu`; OUT is the folder of the results, PYTHON the interpreter.
set -euo pipefail
here=$(pwd)
wheels=${1:-}
[ $# -eq 0 ] || shift
out=${OUT:-$here/gpu_session}
cd "$(dirname "${BASH_SOURCE[0]}")/.."
[ -z "$wheels" ] || { case $wheels in /*) ;; *) wheels=$here/$wheels ;; esac; set -- --wheels "$wheels" "$@"; }
exec "${PYTHON:-python3}" -m benchmarks gpu "$out" "$@"
