#!/usr/bin/env bash
# All tests of the project, from a fresh clone, in one command: Node, Chromium, Deno and the packed package.
# It installs what is missing (scripts/setup.sh, scripts/ensure-chromium.sh, scripts/ensure-redis.sh) and says at the end how long each suite took.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/setup.sh
source scripts/ensure-chromium.sh
ensure_chromium
source scripts/ensure-redis.sh
ensure_redis

times=()
suite() {
  local name=$1 start=$SECONDS
  shift
  echo "== $name"
  "$@"
  times+=("$(printf '%3d min %02d s  %s' $(((SECONDS - start) / 60)) $(((SECONDS - start) % 60)) "$name")")
}

# The package's suite builds everything; the browser's then finds it built.
suite "sources: types, lint, Node (npm test)" npm test
suite "packed package (npm run test:package)" npm run test:package
suite "Chromium and Deno (npm run test:browser)" npx vitest run -c vitest.browser.config.ts

printf '%s\n' "${times[@]}"
