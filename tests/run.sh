#!/bin/bash
# Passes all tests on a machine where nothing was installed by hand (Debian 12 or 13, as root).
#
#   tests/run.sh [--long] [--no-install] [FILTER]
#
#   --long         the slow tests too (those marked #[ignore]), and more cases of those that draw lots
#   --no-install   whatever is missing stays missing; its tests fail
#   FILTER         only tests whose name contains it (cargo test FILTER); format and lint checks are left out
set -eu
cd "$(dirname "$(readlink -f "$0")")/.."

install=1 long='' filter=''
for argument in "$@"; do
  case $argument in
    --long) long=1 ;;
    --no-install) install='' ;;
    -h | --help) sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0"; exit ;;
    -*) echo "$0: unknown option $argument (--help tells)" >&2; exit 2 ;;
    *) [ -z "$filter" ] || { echo "$0: one filter at most" >&2; exit 2; }; filter=$argument ;;
  esac
done

if [ "$(id -u)" != 0 ]; then
  cat >&2 <<M
$0 must be run by root: it installs packages, and Postfix and Sendmail are started by root only.
    sudo env "PATH=\$PATH" "HOME=\$HOME" $0 $*
Without root: cargo test --features test-clock --lib --bins
M
  exit 2
fi

failed=''
step() {   # TITLE COMMAND…: notes a failure, so that the caller may go on and show all of them
  local title=$1 started=$SECONDS; shift
  printf '\n== %s\n   %s\n' "$title" "$*"
  if "$@"; then printf -- '-- %s: ok (%d s)\n' "$title" $((SECONDS - started))
  else failed="$failed${failed:+, }$title"; printf -- '-- %s: FAILED\n' "$title"; return 1; fi
}

[ -f "${CARGO_HOME:-$HOME/.cargo}/env" ] && . "${CARGO_HOME:-$HOME/.cargo}/env"
if [ -n "$install" ]; then
  step "what the tests need" tests/bed/install.sh || exit 1
fi

# Time can be shifted only with this feature: the tests let days pass.
features='--features test-clock'
if [ -z "$filter" ]; then
  step 'format' cargo fmt --check || true
  step 'lint' cargo clippy --locked --all-targets $features -- -D warnings || true
fi
[ -z "$long" ] || export RANDOM_CASES="${RANDOM_CASES:-5000}"
step 'build' cargo test --locked --no-run $features || { printf '\nFAILED: %s\n' "$failed"; exit 1; }
step 'tests' cargo test --locked --no-fail-fast $features -- ${long:+--include-ignored} ${filter:+"$filter"} || true

if [ -n "$failed" ]; then printf '\nFAILED: %s (after %d s)\n' "$failed" $SECONDS; exit 1; fi
printf '\nall passed, after %d s\n' $SECONDS
