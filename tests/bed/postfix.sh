#!/bin/bash
# A private Postfix below one folder, as root; any number of them at once.
#
#   postfix.sh run DIR       starts it, prints "ready", stops it when standard input ends
#   postfix.sh start DIR     starts it; postfix.sh stop DIR stops it
#   postfix.sh reload|flush|mailq DIR
#
# Environment:
#   SMTP_PORT    where it listens, on 127.0.0.1 and ::1: STARTTLS, AUTH, XCLIENT for 127.0.0.1 and ::1 (default: a free one, see DIR/port)
#   SINK_PORT    where all mail goes (smtp-sink on 127.0.0.1)
#   POLICY       unix:/PATH or inet:HOST:PORT of relaykeeper's policy service; it alone permits relaying
#   MILTER       one or more milters, in Postfix's words
#   MYNETWORKS   who may relay when there is no POLICY (a milter cannot permit it); default: nobody
#   SASL_USERS   "name@realm:password …" (default alice and bob @test.example, secret-alice, secret-bob)
#   MAIN_CF      further lines for main.cf; they replace lines of the same name
#   MASTER_CF    further lines for master.cf
set -eu
. "$(dirname "$(readlink -f "$0")")/lib.sh"
[ $# = 2 ] || { sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0"; exit 2; }
act=$1; need_root "$@"; mkdir -p "$2"; dir=$(readlink -f "$2"); etc=$dir/etc queue=$dir/queue
master=/usr/lib/postfix/sbin/master
[ -x $master ] || die "there is no Postfix here: tests/bed/install.sh gets it, tests/bed/inside.sh COMMAND runs a command where it is seen"

relay_restrictions() {
  if [ -n "${POLICY:-}" ]; then echo "check_policy_service { $POLICY, policy_context=relay }, reject_unauth_destination"
  else echo "permit_mynetworks, permit_sasl_authenticated, reject_unauth_destination"; fi
}

main_cf() {
  cat <<M
compatibility_level = 3.6
queue_directory = $queue
data_directory = $dir/data
command_directory = /usr/sbin
daemon_directory = /usr/lib/postfix/sbin
sendmail_path = /usr/sbin/sendmail
newaliases_path = /usr/bin/newaliases
mailq_path = /usr/bin/mailq
maillog_file = $dir/log/maillog
maillog_file_prefixes = /
myhostname = mx.test.example
mydomain = test.example
mydestination =
inet_interfaces = 127.0.0.1, [::1]
inet_protocols = all
mynetworks = ${MYNETWORKS:-}
alias_maps =
alias_database =
local_recipient_maps =
local_transport = error:no local delivery here
default_transport = smtp:[127.0.0.1]:${SINK_PORT:-2600}
relay_transport = smtp:[127.0.0.1]:${SINK_PORT:-2600}
smtp_destination_recipient_limit = 1000
smtp_dns_support_level = disabled
smtp_host_lookup = native
smtpd_peername_lookup = no
biff = no
in_flow_delay = 0
smtpd_authorized_xclient_hosts = 127.0.0.1, [::1]
smtpd_tls_cert_file = $bed/tls/cert.pem
smtpd_tls_key_file = $bed/tls/key.pem
smtpd_tls_security_level = may
smtpd_tls_loglevel = 1
smtpd_sasl_auth_enable = yes
smtpd_sasl_path = smtpd
smtpd_sasl_local_domain =
smtpd_sasl_security_options = noanonymous
cyrus_sasl_config_path = $etc/sasl
smtpd_relay_restrictions = $(relay_restrictions)
smtpd_recipient_limit = 100
smtpd_hard_error_limit = 1000
smtpd_error_sleep_time = 0
smtpd_client_connection_rate_limit = 0
smtpd_client_connection_count_limit = 0
queue_run_delay = 5s
minimal_backoff_time = 5s
maximal_backoff_time = 10s
M
  [ -z "${POLICY:-}" ] || echo "smtpd_end_of_data_restrictions = check_policy_service $POLICY"
  [ -z "${MILTER:-}" ] || printf '%s\n' "smtpd_milters = $MILTER" 'milter_default_action = tempfail'
}

master_cf() {
  cat <<M
127.0.0.1:$SMTP_PORT inet n - n - - smtpd
[::1]:$SMTP_PORT inet n - n - - smtpd
pickup    unix n - n 60 1 pickup
cleanup   unix n - n - 0 cleanup
qmgr      unix n - n 300 1 qmgr
tlsmgr    unix - - n 1000? 1 tlsmgr
rewrite   unix - - n - - trivial-rewrite
bounce    unix - - n - 0 bounce
defer     unix - - n - 0 bounce
trace     unix - - n - 0 bounce
verify    unix - - n - 1 verify
flush     unix n - n 1000? 0 flush
proxymap  unix - - n - - proxymap
proxywrite unix - - n - 1 proxymap
smtp      unix - - n - - smtp
relay     unix - - n - - smtp
showq     unix n - n - - showq
error     unix - - n - - error
retry     unix - - n - - error
discard   unix - - n - - discard
local     unix - n n - - local
virtual   unix - n n - - virtual
lmtp      unix - - n - - lmtp
anvil     unix - - n - 1 anvil
scache    unix - - n - 1 scache
postlog   unix-dgram n - n - 1 postlogd
M
}

# The lines of MAIN_CF instead of those of the same name (Postfix warns of a name that comes twice)
with_overrides() {
  awk -v more="${MAIN_CF:-}" 'BEGIN { n = split(more, line, "\n"); for (i = 1; i <= n; i++) { k = line[i]; sub(/[ \t]*=.*/, "", k); if (line[i] ~ /^[a-z]/) over[k] = 1 } }
    { k = $0; sub(/[ \t]*=.*/, "", k); if (!(k in over)) print } END { print more }'
}

# What "postfix check" would make, in a hundredth of its time
folders() {
  mkdir -p "$etc/sasl" "$queue" "$dir/data" "$dir/log"
  chmod 755 "$dir" "$etc" "$etc/sasl" "$queue" "$dir/log"; chown root:root "$etc" "$queue"; chown postfix "$dir/data"; chmod 700 "$dir/data"
  install -d -o postfix -m 700 "$queue"/{active,bounce,corrupt,defer,deferred,flush,hold,incoming,private,saved,trace}
  install -d -o postfix -g postdrop -m 730 "$queue/maildrop"; install -d -o postfix -g postdrop -m 710 "$queue/public"; install -d "$queue/pid"
}

setup() {
  [ -n "${SMTP_PORT:-}" ] || take_port SMTP_PORT
  tls_material; folders
  sasl_database "$dir/sasldb2" root:postfix 640; sasl_configuration "$etc/sasl/smtpd.conf" "$dir/sasldb2"
  main_cf | with_overrides >"$etc/main.cf"; { master_cf; printf '%s\n' "${MASTER_CF:-}"; } >"$etc/master.cf"; echo "$SMTP_PORT" >"$dir/port"
  touch -d '1 minute ago' "$etc/main.cf"   # each Postfix program waits until a fresh main.cf is two seconds old
}

master_pid() { local pid; pid=$(tr -d ' ' <"$queue/pid/master.pid" 2>/dev/null) && [ "$(readlink "/proc/$pid/exe")" = "$(readlink -f $master)" ] && echo "$pid"; }

start() {
  MAIL_CONFIG=$etc MAIL_LOGTAG=postfix $master -c "$etc" -w >"$dir/log/start" 2>&1 && return   # -w waits until it listens
  { echo "Postfix does not start:"; cat "$dir/log/start" "$dir/log/maillog"; } >&2 2>/dev/null
  return 1
}

stop() { local pid; if pid=$(master_pid); then end_daemon "$pid" "$queue"; fi; }
kill_now() { kill_in "$queue"; }   # a second faster, and nobody needs the queue any more

case $act in
  run) setup; while_input_lasts start kill_now ;;
  start) setup; start ;;
  stop) stop ;;
  reload) kill -HUP "$(master_pid)" ;;
  flush) postqueue -c "$etc" -f ;;
  mailq) postqueue -c "$etc" -j ;;
  *) die "unknown: $act" ;;
esac
