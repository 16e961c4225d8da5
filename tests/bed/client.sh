#!/bin/bash
# client.sh DIR COMMAND…   runs COMMAND, as root, where the mail programs that conflict with Postfix seem to be installed: exim, OpenSMTPD,
# msmtp, dma, nullmailer, which install.sh only unpacks. It sees them over /usr, an /etc of its own, and /var/spool, /var/lib and /run below
# DIR. Nothing of the machine is changed, and whatever it starts ends with it (namespaces of mounts and processes).
set -eu
. "$(dirname "$(readlink -f "$0")")/lib.sh"
[ $# -ge 2 ] || { sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0"; exit 2; }
if [ -z "${CLIENT_INSIDE:-}" ]; then
  need_root "$@"; [ -x "$bed/clients/root/usr/sbin/exim4" ] || die "the clients are missing: run tests/run.sh, which unpacks them"
  CLIENT_INSIDE=1 exec unshare --mount --pid --fork --kill-child --mount-proc "$0" "$@"
fi
mkdir -p "$1"; dir=$(readlink -f "$1"); shift
mkdir -p "$dir"/{etc,spool,lib,run}; chmod 755 "$dir" "$dir"/*
mount --make-rprivate /
mount -t overlay overlay -o "lowerdir=$bed/clients/root/usr:/usr" /usr
mount -t tmpfs tmpfs "$dir/etc"; mkdir "$dir/etc/upper" "$dir/etc/work"   # a layer cannot lie on another overlay, as in a container
mount -t overlay overlay -o "lowerdir=/etc,upperdir=$dir/etc/upper,workdir=$dir/etc/work" /etc
mount --bind "$dir/spool" /var/spool; mount --bind "$dir/lib" /var/lib; mount --bind "$dir/run" /run
n=60000
for user in Debian-exim opensmtpd opensmtpq; do
  n=$((n + 1)); grep -q "^$user:" /etc/passwd || { echo "$user:x:$n:$n::/:/bin/false" >>/etc/passwd; echo "$user:x:$n:" >>/etc/group; }
done
exec "$@"
