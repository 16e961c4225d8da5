#!/bin/bash
# A private Sendmail below one folder, as root; any number of them at once, beside Postfix.
#
#   sendmail.sh run DIR      starts it, prints "ready", stops it when standard input ends
#   sendmail.sh start DIR    starts it; sendmail.sh stop DIR stops it
#   sendmail.sh mailq DIR
#
# Environment:
#   SMTP_PORT    where it listens, on 127.0.0.1 and ::1: STARTTLS, AUTH (default: a free one, see DIR/port)
#   SINK_PORT    where all mail goes (smtp-sink on 127.0.0.1)
#   MILTER       one or more milters, separated by spaces, in Sendmail's words: local:/PATH or inet:PORT@HOST; a local socket must exist already
#   MILTER_FLAGS F=T (tempfail, default), F=R (reject), or empty: accept when the milter is away
#   MILTER_TIMEOUTS  default C:5m;S:10s;R:10s;E:5m
#   ACCESS       lines of the access map: who may relay (Sendmail cannot ask relaykeeper); default: nobody but who logs in
#   SASL_USERS   "name@realm:password …" (default alice and bob @test.example, secret-alice, secret-bob)
#   MC           further lines for sendmail.mc
# There is no XCLIENT: clients come from 127.0.0.x and ::1.
set -eu
. "$(dirname "$(readlink -f "$0")")/lib.sh"
[ $# = 2 ] || { sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0"; exit 2; }
act=$1; need_root "$@"; mkdir -p "$2"; dir=$(readlink -f "$2"); mail=$dir/mail
root=$bed/sendmail/root daemon=$root/usr/libexec/sendmail/sendmail
[ -x "$daemon" ] || die "Sendmail is missing: tests/bed/install.sh gets it"

milters() {
  local spec n=0 flags=${MILTER_FLAGS-F=T}; flags=${flags:+$flags, }T=${MILTER_TIMEOUTS:-C:5m;S:10s;R:10s;E:5m}
  for spec in ${MILTER:-}; do
    n=$((n + 1)); echo "INPUT_MAIL_FILTER(\`x$n', \`S=$spec, $flags')dnl"
  done
}

mc() {
  cat <<M
divert(-1)dnl
divert(0)dnl
OSTYPE(\`linux')dnl
define(\`confDOMAIN_NAME', \`mx.test.example')dnl
define(\`QUEUE_DIR', \`$dir/mqueue')dnl
define(\`ALIAS_FILE', \`$mail/aliases')dnl
define(\`STATUS_FILE', \`')dnl
define(\`HELP_FILE', \`')dnl
define(\`confCW_FILE', \`$mail/local-host-names')dnl
define(\`confCT_FILE', \`$mail/trusted-users')dnl
define(\`confSERVICE_SWITCH_FILE', \`$mail/service.switch')dnl
define(\`confHOSTS_FILE', \`/etc/hosts')dnl
define(\`confPID_FILE', \`$dir/sendmail.pid')dnl
define(\`confCONTROL_SOCKET_NAME', \`')dnl
define(\`confHOST_STATUS_DIRECTORY', \`')dnl
define(\`confLOG_LEVEL', \`14')dnl
define(\`confTO_IDENT', \`0')dnl
define(\`confTO_QUEUERETURN', \`1d')dnl
define(\`confREFUSE_LA', \`999')define(\`confQUEUE_LA', \`999')define(\`confDELAY_LA', \`0')dnl
define(\`confCONNECTION_RATE_THROTTLE', \`0')dnl
define(\`confBAD_RCPT_THROTTLE', \`0')dnl
define(\`confMAX_DAEMON_CHILDREN', \`0')dnl
define(\`confDONT_BLAME_SENDMAIL', \`GroupWritableDirPathSafe,GroupReadableKeyFile,GroupReadableSASLDBFile')dnl
define(\`confAUTH_OPTIONS', \`A')dnl
define(\`confAUTH_MECHANISMS', \`PLAIN LOGIN')dnl
TRUST_AUTH_MECH(\`PLAIN LOGIN')dnl
define(\`confSERVER_CERT', \`$bed/tls/cert.pem')define(\`confSERVER_KEY', \`$bed/tls/key.pem')dnl
define(\`confCACERT', \`$bed/tls/cert.pem')define(\`confCACERT_PATH', \`$bed/tls')dnl
define(\`confPRIVACY_FLAGS', \`authwarnings,noexpn,novrfy')dnl
define(\`confALLOW_BOGUS_HELO', \`True')dnl
FEATURE(\`no_default_msa')dnl
FEATURE(\`nocanonify')dnl
FEATURE(\`accept_unresolvable_domains')dnl
FEATURE(\`accept_unqualified_senders')dnl
FEATURE(\`access_db', \`hash -T<TMPF> $mail/access')dnl
define(\`SMART_HOST', \`relay:[127.0.0.1]')dnl
define(\`RELAY_MAILER_ARGS', \`TCP \$h ${SINK_PORT:-2600}')dnl
define(\`ESMTP_MAILER_ARGS', \`TCP \$h ${SINK_PORT:-2600}')dnl
define(\`confTRY_NULL_MX_LIST', \`True')dnl
DAEMON_OPTIONS(\`Family=inet, Addr=127.0.0.1, Port=$SMTP_PORT, Name=MTA')dnl
DAEMON_OPTIONS(\`Family=inet6, Addr=::1, Port=$SMTP_PORT, Name=MTA6')dnl
M
  milters
  printf '%s\n' "${MC:-dnl}"
  echo "MAILER(\`smtp')dnl"
  printf 'LOCAL_CONFIG\nESASL_CONF_PATH=%s/sasl\n' "$dir"
}

setup() {
  [ -n "${SMTP_PORT:-}" ] || take_port SMTP_PORT
  tls_material
  mkdir -p "$dir/mqueue" "$mail" "$dir/sasl"; chmod 700 "$dir/mqueue"; chmod 755 "$dir" "$mail" "$dir/sasl"
  sasl_database "$dir/sasldb2" root:root 600; sasl_configuration "$dir/sasl/Sendmail.conf" "$dir/sasldb2"
  : >"$mail/aliases"; : >"$mail/trusted-users"; echo mx.test.example >"$mail/local-host-names"
  printf '%s\n' 'hosts files' 'aliases files' 'passwd files' >"$mail/service.switch"
  printf '%s\n' "${ACCESS:-}" | "$root/usr/sbin/makemap" -C /dev/null hash "$mail/access"
  mc >"$dir/sendmail.mc"
  m4 -D_CF_DIR_="$root/usr/share/sendmail/cf/" "$root/usr/share/sendmail/cf/m4/cf.m4" "$dir/sendmail.mc" >"$dir/sendmail.cf"
  sendmail -bi >/dev/null
  echo "$SMTP_PORT" >"$dir/port"
}

# smlog.so: the log into a file instead of syslog, and a qualified host name
sendmail() { env -i PATH="$PATH" HOME=/root SMLOG="$dir/maillog" LD_PRELOAD="$bed/sendmail/smlog.so" SASL_CONF_PATH="$dir/sasl" "$daemon" -C"$dir/sendmail.cf" "$@"; }

daemon_pid() { local pid; pid=$(head -n 1 "$dir/sendmail.pid" 2>/dev/null) && [ "$(readlink "/proc/$pid/exe")" = "$(readlink -f "$daemon")" ] && echo "$pid"; }

start() {
  rm -f "$dir/sendmail.pid"
  sendmail -bd -q5s >"$dir/start.log" 2>&1 && await 10 daemon_pid >/dev/null && await 10 grep -q 'started as' "$dir/maillog" && return
  { echo "Sendmail does not start:"; cat "$dir/start.log" "$dir/maillog"; } >&2 2>/dev/null
  return 1
}

stop() { local pid; if pid=$(daemon_pid); then end_daemon "$pid" "$dir/mqueue"; fi; }
kill_now() { kill_in "$dir/mqueue"; }   # a delivery in the background is in no process group of the daemon's

case $act in
  run) setup; while_input_lasts start kill_now ;;
  start) setup; start ;;
  stop) stop ;;
  mailq) sendmail -bp ;;
  *) die "unknown: $act" ;;
esac
