#!/usr/bin/env bash
# Runs the subgroup-matrix kernel tests on a CPU: Debian sid's Mesa has a Vulkan driver with matrix instructions.
# Released Debian and Ubuntu ship older Mesas, so sid lives in a folder of its own and the checkout is mounted into it.
#
# usage: sudo scripts/test-matrix.sh [vitest arguments]     (Linux on x86-64 or arm64, debootstrap, root; 1.2 GB, a few minutes once)
#   KONTEXT_MATRIX_ROOT  folder of the sid system   (default ~/.cache/kontext-webgpu/sid)
#   DEBIAN_MIRROR        URL of a Debian mirror     (default: the one this system installs from, if it is a Debian)
set -euo pipefail

checkout=$(cd "$(dirname "$0")/.." && pwd)
system=${KONTEXT_MATRIX_ROOT:-${XDG_CACHE_HOME:-$HOME/.cache}/kontext-webgpu/sid}
mirror=${DEBIAN_MIRROR:-$(apt-get indextargets --format '$(REPO_URI)' 'Origin: Debian' 2>/dev/null | head -n 1 || true)}

[ "$(id -u)" = 0 ] || { echo 'needs root for chroot and mount: run with sudo' >&2; exit 1; }

if ! compgen -G "$system/usr/share/vulkan/icd.d/lvp_icd*.json" >/dev/null; then
  command -v debootstrap >/dev/null || { echo 'needs debootstrap: apt-get install debootstrap' >&2; exit 1; }
  [ -n "$mirror" ] || { echo 'needs the URL of a Debian mirror in DEBIAN_MIRROR' >&2; exit 1; }
  mkdir -p "$system"
  # A sid signature expires after a week, and mirrors that freeze a day keep serving it.
  [ -e "$system/etc/debian_version" ] || debootstrap --variant=minbase sid "$system" "$mirror"
  chroot "$system" apt-get -o Acquire::Check-Valid-Until=false update
  chroot "$system" env DEBIAN_FRONTEND=noninteractive \
    apt-get -o Acquire::Check-Valid-Until=false install -y --no-install-recommends mesa-vulkan-drivers libvulkan1 libatomic1
fi

mkdir -p "$system/src" "$system/usr/local/bin"
cp -u "$(readlink -f "$(command -v node)")" "$system/usr/local/bin/node"

# A mount namespace of its own: nothing stays mounted, however the tests end.
# shellcheck disable=SC2016
exec unshare --mount bash -euo pipefail -c '
  system=$1; checkout=$2; shift 2
  mount --bind "$checkout" "$system/src"
  # In a git worktree node_modules may be a link: what it points to appears under the same name inside.
  modules=$(readlink -f "$checkout/node_modules")
  if [ -L "$checkout/node_modules" ]; then mkdir -p "$system$modules" && mount --bind "$modules" "$system$modules"; fi
  mountpoint -q "$system/proc" || mount -t proc proc "$system/proc"
  mountpoint -q "$system/dev" || mount --rbind /dev "$system/dev"
  # With KONTEXT_REQUIRE_MATRIX the suites fail where they would skip for want of matrix instructions.
  exec chroot "$system" /usr/bin/env -i HOME=/tmp PATH=/usr/local/bin:/usr/bin:/bin XDG_RUNTIME_DIR=/tmp \
    VK_DRIVER_FILES="/$(cd "$system" && ls usr/share/vulkan/icd.d/lvp_icd*.json)" \
    KONTEXT_REQUIRE_MATRIX=1 CI="${CI:-}" \
    sh -c "cd /src && exec node node_modules/vitest/vitest.mjs run \"\$@\" test/kernels/*matrix*.test.ts test/parity/components.test.ts" sh "$@"
' bash "$system" "$checkout" "$@"
