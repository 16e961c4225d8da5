#!/bin/bash
# client.sh DIR COMMAND…   runs COMMAND, as root, where the mail programs that conflict with Postfix seem to be installed: exim, OpenSMTPD,
# msmtp, dma, nullmailer, which install.sh only unpacks. It sees them over /usr, an /etc of its own, and /var/spool, /var/lib and /run below
# DIR. Nothing of the machine is changed, and whatever it starts ends with it (namespaces of mounts and processes).
set -eu
. "$(dirname "$(readlink -f "$0")")/lib.sh"
[ $# -ge 2 ] || { sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0"; exit 2; }
if [ -z "${CLIENT_INSIDE:-}" ]; then
  need_root "$@"; [ -x "$bed/clients/root/usr/sbin/exim4" ] || die "the clients are missing: tests/bed/install.sh gets them"
  CLIENT_INSIDE=1 exec unshare --mount --pid --fork --kill-child --mount-proc "$0" "$@"
fi
mkdir -p "$1"; dir=$(readlink -f "$1"); shift
mkdir -p "$dir"/{etc,spool,lib,run}; chmod 755 "$dir" "$dir"/*
mount --make-rprivate /
lay_over "$bed/clients/root" ${BED_INSIDE:+"$BED_INSIDE"}
mount --bind "$dir/spool" /var/spool; mount --bind "$dir/lib" /var/lib; mount --bind "$dir/run" /run
user Debian-exim; user opensmtpd; user opensmtpq
exec "$@"
