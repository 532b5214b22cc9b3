#!/usr/bin/env bash
# Every check that needs a GPU, in one command:
#
#     benchmarks/gpu.sh DATA_FOLDER [RESULTS_FOLDER]
#
# DATA_FOLDER holds cola/tokenized, vocab/bert-base-uncased, and tokens: what `bertwright prepare` made of some Wikipedia
# with that vocabulary. Results go to benchmarks/results, and are copied to
# RESULTS_FOLDER where one is given.
#
# SPEEDRUN=1 adds the 20-minute BERT as the last command: half an hour, with pretrain, blimp and cola/raw in DATA_FOLDER, or
# with speedrun_tokens, a corpus prepared already (vocabulary of 16,384), in place of pretrain. Where a command may last
# 10 minutes only, run it by itself, the same command again and again until it prints its table. SIGTERM ends pretraining and
# fine-tuning after a step, and the next call goes on there; any other stage begins anew.
#
#     PYTHONPATH=src:. timeout --signal TERM 9m python3 -m benchmarks.speedrun --data DATA_FOLDER --keep runs/speedrun
#
# For a shorter trial: --max-time 8m, and BLiMP and CoLA in a second call.
#
# No result yet (no GPU was at hand when this was written):
#   - tests marked gpu: variable-length attention against the CPU backend, dropout's path, same seed, same result
#   - finetune_gpu base bfloat16: the chapter's job; aim: 10 seconds on an H100
#   - finetune_gpu base bfloat16 without dropout: what the variable-length kernel alone gives
#   - pretrain base bfloat16 at 128 and 512 tokens; aim: half of the peak measured in the same run
#   - speedrun, 20 minutes; aims: BLiMP above 81.2 (GPT-BERT), CoLA above all-MiniLM-L6-v2's under the same fine-tuning
#   - pretrain with --compile, with --shard on several GPUs, and float16 with scaling: never run on a GPU
set -euo pipefail
data=${1:?usage: benchmarks/gpu.sh DATA_FOLDER [RESULTS_FOLDER]}
cd "$(dirname "$0")/.."
export PYTHONPATH=src:.
# The suite's strict options name plugins that a bare machine may lack.
python3 -m pytest -q -m gpu -o addopts= -o filterwarnings=default -p no:cacheprovider tests
job=(python3 -m benchmarks.finetune_gpu --data "$data/cola/tokenized" --vocabulary "$data/vocab/bert-base-uncased/vocab.txt")
"${job[@]}"
"${job[@]}" --dropout 0
for length in 128 512; do
  python3 -m benchmarks.pretrain --corpus "$data/tokens" --config base --device cuda --precision bfloat16 \
    --max-length "$length" --sequences $((32768 / length)) --steps 40
done
[ -z "${2:-}" ] || cp benchmarks/results/*gpu*.json benchmarks/results/pretrain_cuda_*.json "$2"
if [ -n "${SPEEDRUN:-}" ]; then
  tokens=()
  [ ! -d "$data/speedrun_tokens" ] || tokens=(--tokens "$data/speedrun_tokens")
  python3 -m benchmarks.speedrun --data "$data" --max-time 20m --keep runs/speedrun "${tokens[@]}"
  [ -z "${2:-}" ] || cp benchmarks/results/speedrun_cuda_*.json "$2"
  # Half of the model's bytes, in files below 16 MiB.
  python3 -m benchmarks.package_weights runs/speedrun/model --out "${2:-runs}/bertwright-speedrun" --overwrite \
    --results benchmarks/results/speedrun_cuda_20m.json
fi
