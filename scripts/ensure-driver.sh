# Finds a GPU driver that WebGPU works with, or installs a software one (Mesa's lavapipe) on Debian and Ubuntu.
# Meant to be sourced from the project's root: it sets VK_DRIVER_FILES when the system's own choice of driver does not work.

# Prints the adapter's name when WebGPU computes correctly; a crash or a hang counts as no.
probe_adapter() {
  timeout 120 node scripts/probe-adapter.mjs 2>/dev/null
}

# Tries the system's choice, then the software driver alone: a broken driver beside it can take the loader down.
find_adapter() {
  local name icd
  if name=$(probe_adapter); then
    echo "GPU: $name"
    return 0
  fi
  for icd in /usr/share/vulkan/icd.d/lvp_icd*.json /usr/local/share/vulkan/icd.d/lvp_icd*.json; do
    [ -e "$icd" ] || continue
    if name=$(VK_DRIVER_FILES=$icd probe_adapter); then
      export VK_DRIVER_FILES=$icd
      echo "GPU: $name (VK_DRIVER_FILES=$icd)"
      return 0
    fi
  done
  return 1
}

# The commands that install the driver, one a line.
driver_commands() {
  local id="" codename="" mirror
  # shellcheck disable=SC1091
  [ -r /etc/os-release ] && . /etc/os-release && id=${ID:-} && codename=${VERSION_CODENAME:-}
  case $id:$codename in
    debian:bookworm)
      # Debian 12's own Mesa 22.3 is too old for Dawn; its backports have Mesa 25.
      mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Codename: bookworm' 2>/dev/null | head -n 1)
      if ! apt-get indextargets --format '$(CODENAME)' 2>/dev/null | grep -q '^bookworm-backports$'; then
        echo "echo 'deb ${mirror:-MIRROR} bookworm-backports main' > /etc/apt/sources.list.d/bookworm-backports.list"
      fi
      echo "apt-get update"
      echo "apt-get install -y --no-install-recommends -t bookworm-backports mesa-vulkan-drivers libvulkan1"
      ;;
    *)
      echo "apt-get update"
      echo "apt-get install -y --no-install-recommends mesa-vulkan-drivers libvulkan1"
      ;;
  esac
}

ensure_driver() {
  find_adapter && return 0
  if ! command -v apt-get > /dev/null; then
    echo "No GPU adapter works here. Install a Vulkan driver (Mesa 24 or newer has a software one), then run this again." >&2
    return 1
  fi
  if [ "$(id -u)" != 0 ]; then
    {
      echo "No GPU adapter works here. A software driver (runs on the CPU) can be installed as root with:"
      driver_commands | sed 's/^/  /'
      echo "Then run this again."
    } >&2
    return 1
  fi
  echo "No GPU adapter works here; installing Mesa's software driver (runs on the CPU):"
  local command
  while IFS= read -r command; do
    echo "+ $command"
    DEBIAN_FRONTEND=noninteractive bash -c "$command" > /dev/null || return 1
  done < <(driver_commands)
  find_adapter && return 0
  echo "The driver is installed, but WebGPU still does not work. Is Mesa older than 24? See: npx kontext doctor" >&2
  return 1
}
