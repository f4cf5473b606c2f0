#!/usr/bin/env bash
# All tests of the project, from a fresh clone, in one command.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/setup.sh
npm test
