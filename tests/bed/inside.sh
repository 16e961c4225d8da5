#!/bin/bash
# inside.sh COMMAND…   runs COMMAND, as root, where the packages that install.sh unpacked seem to be installed: in a namespace of mounts of its
# own, over /usr, with an /etc of its own. Nothing of the machine is changed. Where nothing had to be unpacked, COMMAND simply runs.
#
# Environment: BED_PACKAGES=demo takes those of "install.sh --demo".
set -eu
. "$(dirname "$(readlink -f "$0")")/lib.sh"
[ $# -ge 1 ] || { sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0"; exit 2; }
root=$bed/system${BED_PACKAGES:+-$BED_PACKAGES}/root
if [ -z "${BED_INSIDE:-}" ] && [ -d "$root/usr" ]; then
  need_root "$@"
  BED_INSIDE=$root exec unshare --mount "$0" "$@"
fi
if [ -n "${BED_INSIDE:-}" ] && [ "${BED_LAID_BY:-}" != "$BED_INSIDE" ]; then
  export BED_LAID_BY=$BED_INSIDE
  lay_over "$BED_INSIDE"
  user postfix postdrop
fi
exec "$@"
