#!/usr/bin/env bash
# Every check that needs a GPU, in one command:
#
#     benchmarks/gpu.sh DATA_FOLDER [RESULTS_FOLDER]
#
# DATA_FOLDER holds cola/tokenized and vocab/bert-base-uncased. Results go to benchmarks/results, and are copied to
# RESULTS_FOLDER where one is given.
#
# No result yet (no GPU was at hand when this was written):
#   - tests marked gpu: variable-length attention against the CPU backend, dropout's path, same seed, same result
#   - finetune_gpu base bfloat16: the chapter's job; aim: 10 seconds on an H100
#   - finetune_gpu base bfloat16 without dropout: what the variable-length kernel alone gives
set -euo pipefail
data=${1:?usage: benchmarks/gpu.sh DATA_FOLDER [RESULTS_FOLDER]}
cd "$(dirname "$0")/.."
export PYTHONPATH=src:.
# The suite's strict options name plugins that a bare machine may lack.
python3 -m pytest -q -m gpu -o addopts= -o filterwarnings=default -p no:cacheprovider tests
job=(python3 -m benchmarks.finetune_gpu --data "$data/cola/tokenized" --vocabulary "$data/vocab/bert-base-uncased/vocab.txt")
"${job[@]}"
"${job[@]}" --dropout 0
[ -z "${2:-}" ] || cp benchmarks/results/*gpu*.json "$2"
