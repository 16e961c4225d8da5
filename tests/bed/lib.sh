# What the scripts of the bed, tests/run.sh and .ci/run share. Sourced by them, not run.
# Everything lies below one folder; no parent of it may be writable for all (Sendmail distrusts keys there, so not /tmp).
bed=${RELAYKEEPER_TESTS:-/var/cache/relaykeeper-tests}
export PATH=$PATH:/usr/sbin:/sbin

die() { printf '%s: %s\n' "${0##*/}" "$*" >&2; exit 1; }

# step TITLE COMMAND…: runs it, and notes a failure in $failed, so that the caller may go on and show all of them
failed=''
step() {
  local title=$1 started=$SECONDS; shift
  printf '\n== %s\n   %s\n' "$title" "$*"
  if "$@"; then printf -- '-- %s: ok (%d s)\n' "$title" $((SECONDS - started))
  else failed="$failed${failed:+, }$title"; printf -- '-- %s: FAILED\n' "$title"; return 1; fi
}

need_root() { [ "$(id -u)" = 0 ] || die "must be run by root (an MTA changes users and groups): sudo $0 $*"; }

# await SECONDS COMMAND…: polls until the command succeeds
await() {
  local deadline=$((SECONDS + $1)); shift
  until "$@"; do [ $SECONDS -lt $deadline ] || return 1; sleep 0.02; done
}

listens() { (exec 3<>"/dev/tcp/$1/$2") 2>/dev/null; }   # HOST PORT

# take_port VARIABLE: a port that nobody else of the bed has, ours until this shell and what it starts have ended.
# The range lies below the kernel's ephemeral ports. The Rust harness takes the same locks.
take_port() {
  local n fd
  mkdir -p "$bed/ports"
  for n in $(shuf -i 20000-29999 -n 500); do
    exec {fd}>>"$bed/ports/$n"
    if flock -n "$fd" && ! listens 127.0.0.1 "$n"; then printf -v "$1" %s "$n"; return; fi
    exec {fd}>&-
  done
  die "no free port between 20000 and 29999"
}

# lay_over ROOT…: in a namespace of mounts of one's own: shows the files of unpacked packages over /usr, those of the first ROOT in front, and
# makes an /etc of one's own. There the machine's files are in front. What was laid over before is taken away: layers do not stack high.
lay_over() {
  local folder root lower
  ! laid_over /etc || umount -l /etc "$bed/etc"
  mkdir -p "$bed/etc"; mount -t tmpfs tmpfs "$bed/etc"   # not below DIR or /tmp: a layer cannot lie on another overlay, as in a container
  mkdir "$bed/etc/upper" "$bed/etc/work"; lower=/etc
  for root in "$@"; do [ ! -d "$root/etc" ] || lower=$lower:$root/etc; done
  mount -t overlay overlay -o "lowerdir=$lower,upperdir=$bed/etc/upper,workdir=$bed/etc/work" /etc
  # Not all of /usr: a source tree or a Cargo home may be in /usr/src or /usr/local, and must stay writable.
  for folder in /usr/bin /usr/sbin /usr/lib /usr/lib64 /usr/libexec /usr/share /usr/include; do
    [ -d "$folder" ] || continue
    ! laid_over "$folder" || umount -l "$folder"
    lower=''
    for root in "$@"; do [ ! -d "$root$folder" ] || lower=$lower$root$folder:; done
    [ -z "$lower" ] || mount -t overlay overlay -o "lowerdir=$lower$folder" "$folder"
  done
  # As the package would make it, were it installed
  [ -s /etc/ssl/certs/ca-certificates.crt ] || [ ! -d /usr/share/ca-certificates/mozilla ] ||
    { mkdir -p /etc/ssl/certs; cat /usr/share/ca-certificates/mozilla/*.crt >/etc/ssl/certs/ca-certificates.crt; }
}

laid_over() { grep -q "^overlay $1 overlay [^ ]*$bed/" /proc/self/mounts; }   # FOLDER

can_lay_over() { (bed=$bed unshare --mount bash -ec 'mount -t overlay overlay -o "lowerdir=$bed:/usr/lib" /usr/lib') 2>/dev/null; }

# user NAME [GROUP]: adds a user, and a group of that name and one more, where /etc is one's own
user() {
  local n=60001
  while getent passwd "$n" >/dev/null || getent group "$n" >/dev/null; do n=$((n + 1)); done
  getent group "$1" >/dev/null || echo "$1:x:$n:" >>/etc/group
  getent passwd "$1" >/dev/null || echo "$1:x:$n:$(getent group "$1" | cut -d: -f3)::/:/usr/sbin/nologin" >>/etc/passwd
  [ -z "${2:-}" ] || getent group "$2" >/dev/null || echo "$2:x:$((n + 1000)):" >>/etc/group
}

# One key and certificate for all instances: making them is slow.
tls_material() {
  mkdir -p "$bed/tls"; chmod 755 "$bed" "$bed/tls"
  ( flock 9
    [ -s "$bed/tls/cert.pem" ] && exit
    openssl req -x509 -newkey rsa:2048 -nodes -days 3650 -subj /CN=mx.test.example -addext 'subjectAltName=DNS:mx.test.example' \
      -keyout "$bed/tls/key.pem.new" -out "$bed/tls/cert.pem.new" 2>/dev/null
    chmod 600 "$bed/tls/key.pem.new"
    mv "$bed/tls/key.pem.new" "$bed/tls/key.pem"; mv "$bed/tls/cert.pem.new" "$bed/tls/cert.pem"
  ) 9>"$bed/tls/lock"
}

# sasl_database FILE OWNER MODE: the logins in SASL_USERS ("name@realm:password …", of any realm), made once and then copied
sasl_database() {
  local users=${SASL_USERS:-alice@test.example:secret-alice bob@test.example:secret-bob} made entry login
  mkdir -p "$bed/sasl"; chmod 700 "$bed/sasl"
  made=$bed/sasl/$(printf %s "$users" | sha256sum | cut -c1-20)
  ( flock 9
    [ -s "$made" ] && exit
    rm -f "$made.new"
    for entry in $users; do
      login=${entry%%:*}
      printf %s "${entry#*:}" | saslpasswd2 -p -c -f "$made.new" -u "${login#*@}" "${login%@*}" || die "cannot make the login $login"
    done
    mv "$made.new" "$made"
  ) 9>"$bed/sasl/lock"
  cp "$made" "$1.new"; chown "$2" "$1.new"; chmod "$3" "$1.new"; mv "$1.new" "$1"
}

sasl_configuration() {   # FILE SASLDB
  printf '%s\n' 'pwcheck_method: auxprop' 'auxprop_plugin: sasldb' 'mech_list: PLAIN LOGIN' "sasldb_path: $2" >"$1"
}

ended() { ! kill -0 "$1" 2>/dev/null; }   # PID

# end_daemon PID FOLDER: asks a daemon to end, and makes sure of it and of all its children
end_daemon() {
  kill -TERM "$1" 2>/dev/null || true
  await 5 ended "$1" || true
  kill_in "$2"
}

# kill_in FOLDER: ends every process that works there; both MTAs' processes sit in their queue, whatever process group they are in.
# Again until there is none: a daemon that is being killed may just have made a child.
kill_in() {
  local pids
  while pids=$(find /proc -maxdepth 2 -name cwd -lname "$1" 2>/dev/null | cut -d/ -f3) && [ -n "$pids" ]; do
    kill -KILL $pids 2>/dev/null || true
  done
}

# while_input_lasts START STOP: runs START, says "ready", waits for the end of standard input, runs STOP.
# However the caller ends, even by SIGKILL, its end of the pipe closes: nothing is ever left behind.
while_input_lasts() {
  trap : TERM INT HUP PIPE   # caught, not ignored: what is ignored here would be ignored by the daemons, too
  "$1" </dev/null || { "$2"; exit 1; }
  echo ready 2>/dev/null || true   # perhaps the caller is gone already
  while read -r _; do :; done
  "$2"
}
