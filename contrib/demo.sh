#!/bin/bash
# Shows relaykeeper at work on Debian 12 or 13, as root: builds it, starts a private Postfix and a private relaykeeper in a folder of their
# own, sends fifteen messages, and shows each SMTP dialogue with the reason for the reply.
#
#   contrib/demo.sh [--keep]      --keep: do not delete the folder with configuration, logs and store
#
# Nothing is installed: Postfix and what else is missing is unpacked below /var/cache/relaykeeper-tests and seen by the demo alone. The
# MTA of this machine, if there is one, goes on undisturbed. Nothing is left running.
#
# RELAYKEEPER=PATH shows that program instead of one built here.
set -eu
top=$(dirname "$(dirname "$(readlink -f "$0")")")
. "$top/tests/bed/lib.sh"

keep=''
case "${1:-}" in
  '') ;;
  --keep) keep=1 ;;
  *) sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0"; [ "$1" = --help ] || exit 2; exit ;;
esac
[ "$(id -u)" = 0 ] || die "must be run by root, to start Postfix: sudo env \"PATH=\$PATH\" \"HOME=\$HOME\" $0"

if [ -t 1 ]; then bold=$'\e[1m' dim=$'\e[2m' good=$'\e[32m' bad=$'\e[31m' plain=$'\e[0m'; else bold='' dim='' good='' bad='' plain=''; fi
heading() { printf '\n%s%s%s\n' "$bold" "$*" "$plain"; }
indented() { fold -s -w 88 | sed "1s/^/  $1/; 2,\$s/^/        /"; }   # MARK of four columns: long lines stay readable

# ---------------------------------------------------------------- what it needs

if [ -z "${DEMO_INSIDE:-}" ]; then
  heading 'Getting ready'
  [ -f "${CARGO_HOME:-$HOME/.cargo}/env" ] && . "${CARGO_HOME:-$HOME/.cargo}/env"
  "$top/tests/bed/install.sh" --demo ${RELAYKEEPER:+--without-rust}
  DEMO_INSIDE=1 BED_PACKAGES=demo exec "$top/tests/bed/inside.sh" "$0" "$@"
fi
relaykeeper=${RELAYKEEPER:-} target=''
if [ -z "$relaykeeper" ]; then
  echo 'building relaykeeper (this takes some minutes the first time)'
  if [ -t 2 ]; then quiet=''; else quiet=--quiet; fi
  (cd "$top" && cargo build --release --locked $quiet)
  target=$(cd "$top" && cargo metadata --format-version 1 --no-deps | sed 's/.*"target_directory":"\([^"]*\)".*/\1/')
  relaykeeper=$target/release/relaykeeper
fi

mkdir -p "$bed"; chmod 755 "$bed"
dir=$(mktemp -d "$bed/demo.XXXX"); chmod 755 "$dir"
# All that is started reads this pipe, and ends when it does: with us, however we end.
mkfifo "$dir/life"; exec 7<>"$dir/life"; exec 8>"$dir/life"
finish() {
  local status=$?
  trap - EXIT INT TERM HUP; exec 7>&- 8>&-; wait
  if [ -n "$keep" ]; then echo "kept: $dir"; else rm -rf "$dir"; fi
  printf '\n%sWhat stays: %s (unpacked packages)%s. Nothing was installed and nothing is left running.%s\n' "$dim" "$bed" "${target:+ and $target (the build)}" "$plain"
  exit $status
}
trap finish EXIT; trap 'exit 130' INT TERM HUP
living() { "$@" <"$dir/life" 7>&- 8>&- & }

# ---------------------------------------------------------------- configuration

mkdir -p "$dir/customers.d" "$dir/store"
cat >"$dir/relaykeeper.toml" <<M
[listen]
milter  = ["unix:$dir/milter.sock"]
policy  = ["unix:$dir/policy.sock"]
control = "unix:$dir/control.sock"
socket_group = "postfix"

[relay]
hostname  = "mx.test.example"
customers = "customers.d"

[log]
to = "stderr"

[store]
backend = "embedded"
path    = "$dir/store"
M

cat >"$dir/customers.d/acme.toml" <<'M'
name     = "acme"
domains  = ["acme.example"]
licenses = 250
limits.user.messages_per_day = 2

[[user]]
address = "ann@acme.example"
aliases = ["annie@acme.example"]
[[user]]
address = "bob@acme.example"

[[setting]]
name = "head office"
allowed_senders = "registered-users"
[[setting.ip]]
description = "HQ"
range = "192.0.2.0/24"
M

cat >"$dir/customers.d/hooli.toml" <<'M'
name     = "hooli"
domains  = ["hooli.example"]
licenses = 10

[[user]]
address = "kim@hooli.example"

[[setting]]
name = "roaming"
allowed_senders = "registered-users"
require_auth = true
require_tls  = true
M

cat >"$dir/customers.d/initech.toml" <<'M'
name     = "initech"
domains  = ["initech.example"]
licenses = 10
limits.customer.recipients_per_10_min = 4

[[setting]]
name = "applications"
allowed_senders = "any"
[[setting.ip]]
description = "office"
range = "203.0.113.0/24"
M

# ---------------------------------------------------------------- the parts

take_port SMTP_PORT; take_port SINK_PORT
mkdir -p "$dir/sink"; chown postfix "$dir/sink"
"$relaykeeper" check --config "$dir/relaykeeper.toml" || die 'the configuration is not good'
living "$top/tests/bed/guard.sh" "$relaykeeper" serve --config "$dir/relaykeeper.toml" 2>"$dir/log"
living "$top/tests/bed/guard.sh" smtp-sink -u postfix -R "$dir/sink" -d m. "127.0.0.1:$SINK_PORT" 100 >"$dir/sink.log" 2>&1
export SMTP_PORT SINK_PORT POLICY="unix:$dir/policy.sock" MILTER="unix:$dir/milter.sock" SASL_USERS=kim@hooli.example:secret-kim
living "$top/tests/bed/postfix.sh" run "$dir/postfix" >"$dir/postfix.out" 2>&1
sockets() { [ -S "$dir/milter.sock" ] && [ -S "$dir/policy.sock" ]; }
await 20 sockets || { cat "$dir/log"; die 'relaykeeper does not start'; }
await 20 grep -q ready "$dir/postfix.out" || { cat "$dir/postfix.out"; die 'Postfix does not start'; }
exec 7>&-

cat <<M
A private Postfix $(postconf -c "$dir/postfix/etc" -h mail_version) asks relaykeeper by both protocols:
M
postconf -c "$dir/postfix/etc" smtpd_relay_restrictions smtpd_end_of_data_restrictions smtpd_milters mynetworks | sed "s|$dir|…|g; s/^/  /"
echo 'Clients pretend their addresses by XCLIENT. Customers: acme (registered users, from 192.0.2.0/24),'
echo 'hooli (login over TLS), initech (any sender, from 203.0.113.0/24).'
echo 'For each message: the SMTP dialogue, relaykeeper'"'"'s log line, and what "relaykeeper explain" said beforehand (why).'

# ---------------------------------------------------------------- the messages

# What a person reads of a session: commands and replies, without greeting, XCLIENT, EHLO lists and the message itself
dialogue() {
  awk '/^ [-~]+> / { line = $0; sub(/^ [-~]+> /, "", line); verb = substr(line, 1, 4)
           if (verb == "EHLO") { ehlo = line; next }
           if (verb == "AUTH") line = "AUTH PLAIN ..."
           if (verb == "MAIL") print "C: " ehlo
           if (line ~ /lines sent$/) { verb = "."; line = "(the message)" }
           if (verb ~ /^(MAIL|RCPT|STAR|AUTH|DATA|\.)$/) print "C: " line; else verb = "" }
       /^<[-~*]/ { line = $0; sub(/^<[-~*]+ +/, "", line); if (verb != "" && verb != "EHLO") print "S: " line }'
}

# Of "explain": the verdict and the steps
steps() { awk '/^verdict/ || /^recipient/ { print } after { print } /^steps/ { after = 1 }' | uniq; }

lines() { local line; while IFS= read -r line; do printf '%s\n' "$line" | indented "$dim$1$plain"; done; }   # MARK

number=0 results='' unexpected=0
# show TITLE EXPECTED CLIENT HELO SENDER RECIPIENTS [tls] [LOGIN:PASSWORD]: EXPECTED is the start of a reply that has to come
show() {
  local title=$1 expected=$2 client=$3 helo=$4 sender=$5 recipients=$6 tls=${7:-} login=${8:-} before explained mark recipient
  local swaks=(--server 127.0.0.1 --port "$SMTP_PORT" --xclient-addr "$client" --xclient-port $((40000 + number)) --helo "$helo")
  local explain=(--client "$client" --helo "$helo" --sender "$sender")
  swaks+=(--from "${sender:-<>}" --to "$recipients" --header "Subject: $title" --suppress-data)
  [ -z "$tls" ] || { swaks+=(--tls); explain+=(--tls TLSv1.3); }
  [ -z "$login" ] || { swaks+=(--auth PLAIN --auth-user "${login%%:*}" --auth-password "${login#*:}"); explain+=(--login "${login%%:*}"); }
  for recipient in ${recipients//,/ }; do explain+=(--recipient "$recipient"); done
  number=$((number + 1)); heading "$number. $title"
  # Asked beforehand, and needs no daemon; it counts nothing and says what will happen.
  explained=$("$relaykeeper" explain --config "$dir/relaykeeper.toml" "${explain[@]}" 2>&1) || true
  before=$(wc -c <"$dir/log")
  swaks "${swaks[@]}" >"$dir/swaks.out" 2>&1 || true   # a refusal is a result too
  dialogue <"$dir/swaks.out" >"$dir/dialogue"
  lines '    ' <"$dir/dialogue"
  verdict_logged() { tail -c +$((before + 1)) "$dir/log" | grep -q 'verdict='; }
  await 10 verdict_logged || true
  { tail -c +$((before + 1)) "$dir/log" | grep 'verdict=' || echo '(no log line)'; } | lines 'log '
  printf '%s\n' "$explained" | steps | lines 'why '
  if grep -q "^S: $expected" "$dir/dialogue"; then mark="${good}as expected$plain"
  else mark="${bad}not as expected$plain"; unexpected=$((unexpected + 1)); fi
  results="$results$(printf '%2d. %-62s %-9s %s' "$number" "$title" "${expected:0:9}" "$mark")"$'\n'
}

queued='250 2.0.0 Ok: queued'
show 'Accepted: a registered user, from the address of the customer' "$queued" 192.0.2.7 mx1.carrier.example ann@acme.example you@dest.example
show 'Accepted: an alias, which counts for its user' "$queued" 192.0.2.7 mx1.carrier.example annie@acme.example you@dest.example
show 'Accepted: a bounce; only the HELO name tells whose it is' "$queued" 192.0.2.7 smtp3.branch.acme.example '' you@dest.example
show 'Accepted: from anywhere, by login over TLS' "$queued" 198.51.100.77 laptop.hotel.example kim@hooli.example you@dest.example tls kim@hooli.example:secret-kim
show 'Accepted and rewritten: a sender from outside' "$queued" 203.0.113.5 app7.initech.example guest@elsewhere.example you@dest.example
rewritten() { grep -hs '^X-Mail-Args: <postmaster@initech.example>' "$dir"/sink/*; }
await 10 rewritten >/dev/null || true
printf '  %ssink%s %s\n' "$dim" "$plain" "$(rewritten | sed 's/^X-Mail-Args: /MAIL FROM:/; s/>.*/>/' || echo '(not rewritten)')"
show 'Refused: nobody knows this customer' '550 5.7.0' 192.0.2.7 mx1.carrier.example someone@unknown.example you@dest.example
show 'Refused: not from an address of the customer' '550 5.7.1' 198.51.100.77 mail.acme.example ann@acme.example you@dest.example
show 'Refused: the sender is no registered user' '550 5.7.1' 192.0.2.7 mail.acme.example stranger@acme.example you@dest.example
show 'Refused: login required' '530 5.7.0 .*Authentication' 198.51.100.77 laptop.hotel.example kim@hooli.example you@dest.example tls
show 'Refused: login without TLS' '530 5.7.0 .*STARTTLS' 198.51.100.77 laptop.hotel.example kim@hooli.example you@dest.example '' kim@hooli.example:secret-kim
show 'Refused: a second recipient of the empty sender' '452 4.5.3' 192.0.2.7 mail.acme.example '' you@dest.example,me@dest.example
show "Deferred: ann's two messages a day are used up" '450 4.4.5' 192.0.2.7 mail.acme.example ann@acme.example you@dest.example
show 'Accepted: bob has his own quota' "$queued" 192.0.2.7 mail.acme.example bob@acme.example you@dest.example
show 'Accepted: three more of the four recipients in ten minutes' "$queued" 203.0.113.5 app7.initech.example app@initech.example a@dest.example,b@dest.example,c@dest.example
show "Deferred: initech's peak is reached" '450 4.2.1' 203.0.113.5 app7.initech.example app@initech.example d@dest.example

# ---------------------------------------------------------------- the end

heading 'What was counted'
"$relaykeeper" quota show acme initech hooli ann@acme.example bob@acme.example kim@hooli.example --config "$dir/relaykeeper.toml" | sed 's/^/  /'
heading 'Summary'
printf '%s' "$results"
if [ "$unexpected" = 0 ]; then printf '\n%sall %d as expected%s\n' "$good" "$number" "$plain"
else printf '\n%s%d of %d not as expected%s\n' "$bad" "$unexpected" "$number" "$plain"; exit 1; fi
