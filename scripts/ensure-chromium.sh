# Finds a Chromium for the tests in pages, or installs Debian's. Meant to be sourced from the project's root.
# Elsewhere, and without root, it says what to run: tests that are skipped in silence are no tests.

find_chromium() {
  local path
  for path in "${CHROMIUM:-}" /usr/bin/chromium /usr/bin/chromium-browser /usr/bin/google-chrome; do
    if [ -n "$path" ] && [ -x "$path" ]; then
      echo "Chromium: $("$path" --version 2> /dev/null || echo "$path")"
      return 0
    fi
  done
  return 1
}

ensure_chromium() {
  find_chromium && return 0
  local id=""
  # shellcheck disable=SC1091
  [ -r /etc/os-release ] && . /etc/os-release && id=${ID:-}
  # Ubuntu's package of that name is a snap, which does not start in containers.
  if [ "$id" != debian ]; then
    {
      echo "No Chromium was found. Install Chromium or Chrome 128 or newer and say where it is, then run this again:"
      echo "  CHROMIUM=/path/to/chrome npm run test:all"
      echo "npm test runs everything that needs none."
    } >&2
    return 1
  fi
  if [ "$(id -u)" != 0 ]; then
    {
      echo "No Chromium was found. It can be installed as root with:"
      echo "  apt-get update"
      echo "  apt-get install -y --no-install-recommends chromium"
      echo "Then run this again; npm test runs everything that needs none."
    } >&2
    return 1
  fi
  echo "No Chromium was found; installing Debian's:"
  local command
  for command in "apt-get update" "apt-get install -y --no-install-recommends chromium"; do
    echo "+ $command"
    DEBIAN_FRONTEND=noninteractive bash -c "$command" > /dev/null || return 1
  done
  find_chromium
}
