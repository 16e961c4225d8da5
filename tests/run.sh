#!/bin/bash
# Runs all tests, as root, on a Debian 12 or 13 that needs nothing but a Rust toolchain (1.90 or later). Postfix, Sendmail, Redis and
# whatever else the machine lacks are unpacked below /var/cache/relaykeeper-tests, not installed (tests/bed/install.sh): an MTA of the
# machine's own is neither replaced nor stopped.
#
#   tests/run.sh [--long] [--no-install] [FILTER]
#
#   --long         also the slow tests (those marked #[ignore]), and more cases of the random ones
#   --no-install   do not fetch what is missing; tests that need it fail
#   FILTER         only tests whose name contains it (cargo test FILTER); skips the checks of format and lints
#
# Lints are errors with CI=true. Elsewhere they are only warnings, as a newer clippy has lints that nobody could know of here.
set -eu
cd "$(dirname "$(readlink -f "$0")")/.."
. tests/bed/lib.sh

install=1 long='' filter=''
for argument in "$@"; do
  case $argument in
    --long) long=1 ;;
    --no-install) install='' ;;
    -h | --help) sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0"; exit ;;
    -*) echo "$0: unknown option $argument (see --help)" >&2; exit 2 ;;
    *) [ -z "$filter" ] || { echo "$0: at most one filter" >&2; exit 2; }; filter=$argument ;;
  esac
done

if [ "$(id -u)" != 0 ]; then
  cat >&2 <<M
$0 must be run by root: only root can start Postfix and Sendmail, and mount file systems.
    sudo env "PATH=\$PATH" "HOME=\$HOME" $0 $*
Without root: cargo test --features test-clock --lib --bins
M
  exit 2
fi

[ -f "${CARGO_HOME:-$HOME/.cargo}/env" ] && . "${CARGO_HOME:-$HOME/.cargo}/env"
if [ -n "$install" ]; then
  step "what the tests need" tests/bed/install.sh || exit 1
fi
inside=tests/bed/inside.sh   # where that is seen

# Time can be shifted only with this feature: the tests let days pass.
features='--features test-clock'
if [ -z "$filter" ]; then
  step 'format' $inside cargo fmt --check || true
  deny=''; [ "${CI:-}" != true ] || deny='-D warnings'
  step 'lint' $inside cargo clippy --locked --all-targets $features -- $deny || true
fi
[ -z "$long" ] || export RANDOM_CASES="${RANDOM_CASES:-5000}"
step 'build' $inside cargo test --locked --no-run $features || { printf '\nFAILED: %s\n' "$failed"; exit 1; }
step 'tests' $inside cargo test --locked --no-fail-fast $features -- ${long:+--include-ignored} ${filter:+"$filter"} || true

if [ -n "$failed" ]; then printf '\nFAILED: %s (after %d s)\n' "$failed" $SECONDS; exit 1; fi
printf '\nall passed, after %d s\n' $SECONDS
