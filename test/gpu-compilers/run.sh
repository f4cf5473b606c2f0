#!/usr/bin/env bash
# What Mesa's GPU compilers make of the real model's kernels, without a GPU, against the committed table. See docs/design/gpu-compilers.md.
#
# usage (root, Linux on x86-64, debootstrap): npm run gpu-report -- [--write] [TARGET…] [OPTION=VALUE…]
#   TARGET  nvidia-ada nvidia-ampere amd-rdna3 amd-rdna4 apple-m1 adreno-740 all   (default: all)
#   OPTION  programs=denoise,vae-decode,t5  quantization=none|q8|q4  only=TEXT  checked=1  tier=subgroups   (as in kernels.ts)
#   --write puts the result into docs/benchmarks/gpu-compilers.md instead of failing on what got worse
#   KONTEXT_MATRIX_ROOT, DEBIAN_MIRROR   as for scripts/test-matrix.sh, whose system is shared
set -euo pipefail

checkout=$(cd "$(dirname "$0")/../.." && pwd)
system=${KONTEXT_MATRIX_ROOT:-${XDG_CACHE_HOME:-$HOME/.cache}/kontext-webgpu/sid}
mirror=${DEBIAN_MIRROR:-$(apt-get indextargets --format '$(REPO_URI)' 'Origin: Debian' 2>/dev/null | head -n 1 || true)}
out=$checkout/out/gpu-compilers
targets=() options=() report=()
for argument in "$@"; do
  case $argument in
    all) ;;
    --write) report+=(--write) ;;
    tier=*) options+=("$argument") report+=(--apart) ;;
    *=*) options+=("$argument") ;;
    *) targets+=("$argument") ;;
  esac
done
[ ${#targets[@]} -gt 0 ] || targets=(nvidia-ada nvidia-ampere amd-rdna3 amd-rdna4 apple-m1 adreno-740)
[ "$(id -u)" = 0 ] || { echo 'needs root for chroot and mount: run with sudo' >&2; exit 1; }

if ! [ -e "$system/usr/lib/x86_64-linux-gnu/libnouveau_noop_drm_shim.so" ]; then
  command -v debootstrap >/dev/null || { echo 'needs debootstrap: apt-get install debootstrap' >&2; exit 1; }
  [ -n "$mirror" ] || { echo 'needs the URL of a Debian mirror in DEBIAN_MIRROR' >&2; exit 1; }
  mkdir -p "$system"
  # A sid signature expires after a week, and mirrors that freeze a day keep serving it.
  [ -e "$system/etc/debian_version" ] || debootstrap --variant=minbase sid "$system" "$mirror"
  chroot "$system" apt-get -o Acquire::Check-Valid-Until=false update
  chroot "$system" env DEBIAN_FRONTEND=noninteractive apt-get -o Acquire::Check-Valid-Until=false install -y \
    --no-install-recommends mesa-vulkan-drivers mesa-drm-shim libvulkan1 libatomic1
fi
mkdir -p "$system/src" "$system/usr/local/bin" "$out"
cp -u "$(readlink -f "$(command -v node)")" "$system/usr/local/bin/node"

# The stand-in for the kernel driver, the Vulkan driver, then the variables that choose the GPU and make the compiler talk.
settings() {
  case $1 in
    nvidia-ada) echo nouveau nouveau NOUVEAU_CHIPSET=194 NAK_DEBUG=print ;;
    nvidia-ampere) echo nouveau nouveau NOUVEAU_CHIPSET=172 NAK_DEBUG=print ;;
    amd-rdna3) echo amdgpu radeon AMDGPU_GPU_ID=navi31 RADV_DEBUG=shaderstats,asm,nocache ;;
    amd-rdna4) echo amdgpu radeon AMDGPU_GPU_ID=gfx1201 RADV_DEBUG=shaderstats,asm,nocache ;;
    apple-m1) echo asahi asahi AGX_MESA_DEBUG=shaders,shaderdb ;;
    adreno-740) echo freedreno freedreno FD_GPU_ID=740 IR3_SHADER_DEBUG=shaderdb,cs,disasm ;;
    *) echo "unknown target $1" >&2; exit 2 ;;
  esac
}

for target in "${targets[@]}"; do
  read -r -a set <<<"$(settings "$target")"
  log=$out/$target.log
  # Unbuffered by the second library, so that what drivers print to stdout lies between the right marks.
  # Mount namespaces of their own: nothing stays mounted, however the run ends.
  # shellcheck disable=SC2016
  unshare --mount bash -euo pipefail -c '
    system=$1 checkout=$2; shift 2
    mount --bind "$checkout" "$system/src"
    modules=$(readlink -f "$checkout/node_modules")
    if [ -L "$checkout/node_modules" ]; then mkdir -p "$system$modules" && mount --bind "$modules" "$system$modules"; fi
    mountpoint -q "$system/proc" || mount -t proc proc "$system/proc"
    mountpoint -q "$system/dev" || mount --rbind /dev "$system/dev"
    exec chroot "$system" /usr/bin/env -i HOME=/tmp PATH=/usr/local/bin:/usr/bin:/bin XDG_RUNTIME_DIR=/tmp \
      MESA_SHADER_CACHE_DISABLE=1 "$@"
  ' bash "$system" "$checkout" \
    "LD_PRELOAD=/usr/lib/x86_64-linux-gnu/lib${set[0]}_noop_drm_shim.so:/usr/libexec/coreutils/libstdbuf.so" _STDBUF_O=0 \
    VK_DRIVER_FILES="/$(cd "$system" && ls usr/share/vulkan/icd.d/"${set[1]}"_icd*.json)" "${set[@]:2}" \
    sh -c 'cd /src && exec node node_modules/tsx/dist/cli.mjs "$@"' sh test/gpu-compilers/kernels.ts "${options[@]}" >"$log" 2>&1 ||
    { tail -n 5 "$log" | cut -c1-300 >&2; echo "failed on $target: $log" >&2; exit 1; }
done
cd "$checkout"
exec node node_modules/tsx/dist/cli.mjs test/gpu-compilers/report.ts "${report[@]}" "$out" "${targets[@]}"
