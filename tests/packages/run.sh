#!/bin/bash
# Builds the packages and tests them: contents, installation, upgrade and removal on Debian 12 and 13 with a real systemd. As root.
#
#   tests/packages/run.sh [--long]
#
#   --long   also the static tarball and the container image, and a second build, which must be equal byte by byte
set -eu
cd "$(dirname "$(readlink -f "$0")")/../.."
long=''
[ "${1:-}" != --long ] || long=1
. tests/bed/lib.sh
need_root "$@"
[ -f "${CARGO_HOME:-$HOME/.cargo}/env" ] && . "${CARGO_HOME:-$HOME/.cargo}/env"
packages='debootstrap systemd-container debhelper dh-apparmor lintian rpm rpmlint fail2ban apparmor python3-yaml m4'
missing=''
for package in $packages; do
  [ "$(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || missing="$missing $package"
done
if [ -n "$missing" ]; then
  echo "installing:$missing"
  apt-get update -qq
  # No service of theirs is started here.
  made=''
  [ -e /usr/sbin/policy-rc.d ] || { printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d; chmod 755 /usr/sbin/policy-rc.d; made=1; }
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null </dev/null || { [ -z "$made" ] || rm /usr/sbin/policy-rc.d; die "cannot install$missing"; }
  [ -z "$made" ] || rm /usr/sbin/policy-rc.d
fi
out=target/packages
rm -f $out/*.deb $out/*.rpm $out/*.tar.gz
packaging/build deb rpm
program=$out/cargo/release/relaykeeper
deb=$(ls $out/relaykeeper_*.deb) rpm=$(ls $out/*.rpm)

echo 'lintian'; lintian --fail-on error --allow-root "$deb"
echo 'rpmlint'; rpmlint -c packaging/rpm/rpmlint.toml "$rpm" packaging/rpm/relaykeeper.spec | tail -n 1
tests/packages/static.py "$program"

echo 'rpm: unpacked and run'
unpacked=$(mktemp -d); trap 'rm -rf "$unpacked"' EXIT
(cd "$unpacked" && rpm2cpio "$OLDPWD/$rpm" | cpio -idm --quiet)
"$unpacked/usr/bin/relaykeeper" --version
"$unpacked/usr/bin/relaykeeper" check --files-only --config "$unpacked/etc/relaykeeper/relaykeeper.toml" 2>&1 | grep -E 'relaykeeper.toml:[0-9]' && die 'the sample configuration in the RPM is not good' || true
systemd-analyze security --offline=yes "$unpacked/usr/lib/systemd/system/relaykeeper.service" | tail -n 1

python3 tests/packages/suite.py "$deb"

[ -n "$long" ] || exit 0
first=$(mktemp -d)
mv "$deb" "$rpm" "$first/"
CARGO_TARGET_DIR=$PWD/$out/cargo.again packaging/build deb rpm
for package in "$first"/*; do
  if cmp "$package" "$out/${package##*/}"; then echo "equal: ${package##*/}"; else die "two builds differ: ${package##*/}"; fi
done
packaging/build tarball image
tar -xzf "$(ls $out/*.tar.gz)" -C "$unpacked"
"$unpacked"/relaykeeper-*/usr/bin/relaykeeper --version
