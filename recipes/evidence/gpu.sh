#!/bin/sh
# Nine minutes of an experiment, at most; run it again until it says that nothing is missing.
#   sh recipes/evidence/gpu.sh recipes/evidence/r52_gpu.yaml comparisons/r52_gpu
# A stopped cell goes on where its run stood. The pool must be there (python recipes/load_r52.py pools/r52).
timeout --signal=INT --kill-after=30 540 balkit compare "$1" --out "$2" || [ $? -eq 124 ] || exit 1
balkit compare "$1" --out "$2" --table
