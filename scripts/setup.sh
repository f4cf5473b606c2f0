#!/usr/bin/env bash
# Everything a fresh clone needs: packages, the WASM module, the built package, a GPU driver. Source it or run it.
# Skips what is there already, so that every command can start with it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

if ! node -e 'process.exit(Number(process.versions.node.split(".")[0]) >= 20 ? 0 : 1)' 2> /dev/null; then
  echo "Node 20 or newer is needed; found $(node --version 2> /dev/null || echo none)." >&2
  exit 1
fi

# npm leaves a copy of the lock file of what it installed.
if [ ! -e node_modules/.package-lock.json ] || [ package-lock.json -nt node_modules/.package-lock.json ]; then
  echo "Installing npm packages"
  npm ci --no-audit --no-fund --loglevel=error
fi

source scripts/ensure-driver.sh
ensure_driver

newest_source=$(find sdk runtime kernels-codegen scripts tsup.config.ts package.json -newer dist/cli.js -type f -print -quit 2> /dev/null || echo none)
if [ ! -e dist/cli.js ] || [ -n "$newest_source" ]; then
  echo "Building"
  # The command line only: type declarations and the build for pages take longer and are for publishing.
  npm run --silent build:wasm > /dev/null
  npx tsup --no-dts > /dev/null
fi
