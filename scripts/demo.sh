#!/usr/bin/env bash
# Edits a sample picture with the demo model and says where the result is.
# From a fresh clone to the first picture with one command.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/setup.sh

mkdir -p out
input=examples/demo-model/inputs/apple-on-red.png
prompt=${1:-make the background blue}
node dist/cli.js edit "$input" "$prompt" -o out/edited.png --seed 1 --force
echo "Input:  $input"
echo "Prompt: $prompt"
echo "Result: $PWD/out/edited.png"
