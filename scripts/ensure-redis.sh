# A Redis for the tests of the server's queue, which start their own on a free port. Source it; it installs Debian's as root.

ensure_redis() {
  command -v redis-server > /dev/null && return
  if [ "$(id -u)" = 0 ] && command -v apt-get > /dev/null; then
    echo "Installing Redis"
    apt-get install -y -qq --no-install-recommends redis-server > /dev/null 2>&1 || { apt-get update -qq && apt-get install -y -qq --no-install-recommends redis-server > /dev/null; }
  else
    echo "No redis-server: the tests of the queue on Redis are skipped. To run them: apt-get install redis-server" >&2
  fi
}
