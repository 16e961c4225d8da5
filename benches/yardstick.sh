#!/bin/bash
# How fast the daemon answers, beside servers that decide nothing, in one run, in turn: medians and ratios.
#
#   benches/yardstick.sh DIR [RUNS]      (5 runs by default; both with sync = "full")
#
# DIR holds the load generators and the empty policy server: policybench, milterbench, policynoop. The empty milter is
# benches/noop_milter.rs: indymilter with the same steps. 20 connections; one message a connection, one recipient, 4 KB.
# No limit on connections, which are counted all the same: the load comes from few addresses. The milter is measured without a
# limit on attachments, so without contents as the empty one, and with the default limit, for which it asks for them.
# Quiet machines only: on two cores any other program shows.
set -eu
programs=$(readlink -f "${1:?where are policybench, milterbench and policynoop?}") runs=${2:-5}
cd "$(dirname "$(readlink -f "$0")")/.."
cargo build --quiet --release --locked --bin relaykeeper --example noop_milter
built=$(cargo metadata --format-version 1 --no-deps | python3 -c 'import json, sys; print(json.load(sys.stdin)["target_directory"])')/release
work=$(mktemp -d); server=
stop() { if [ -n "$server" ]; then kill "$server" 2>/dev/null || true; wait "$server" 2>/dev/null || true; fi; server=; }
trap 'stop; rm -rf "$work"' EXIT

configure() {   # ATTACHMENTS: what a message may have
  rm -rf "$work/d"; mkdir -p "$work/d/customers.d" "$work/d/store"
  printf '%s\n' '[listen]' "milter = [\"unix:$work/d/milter.sock\"]" "policy = [\"unix:$work/d/policy.sock\"]" \
    '[relay]' 'hostname = "relay.example.net"' '[log]' 'to = "stderr"' '[store]' "path = \"$work/d/store\"" \
    '[limits]' 'connection.per_minute = "unlimited"' 'connection.simultaneous = "unlimited"' \
    'connection.generic_helo_per_minute = "unlimited"' "message.attachments_bytes = $1" >"$work/d/main.toml"
  printf '%s\n' 'name = "bench"' 'domains = ["example.org"]' 'licenses = 1000' 'users_file = "bench.users"' \
    'limits.user.messages_per_day = 1_000_000' 'limits.user.unique_recipients_per_day = 1_000_000' \
    'limits.customer.recipients_per_day = 1_000_000_000' 'limits.customer.recipients_per_10_min = 1_000_000_000' \
    '[[setting]]' 'name = "login"' 'allowed_senders = "registered-users"' 'require_auth = true' >"$work/d/customers.d/bench.toml"
  seq 0 999 | sed 's/.*/user&@example.org/' >"$work/d/customers.d/bench.users"
}
await() { for _ in $(seq 100); do [ -S "$1" ] && return; sleep 0.05; done; echo "$1 did not appear" >&2; exit 1; }
daemon() { configure "${1:-\"unlimited\"}"; "$built/relaykeeper" serve --config "$work/d/main.toml" 2>"$work/d/log" & server=$!; await "$work/d/milter.sock"; }
empty() { rm -f "$work/noop.sock"; "$@" & server=$!; await "$work/noop.sock"; }
policy() { "$programs/policybench" --target "unix:$1" --connections 20 --requests 20000 --pid $server --json "${@:2}"; }
milter() { "$programs/milterbench" --target "unix:$1" --connections 20 --messages 20000 --messages-per-connection 1 --rcpts 1 --body-bytes 4096 --pid $server --json; }

for run in $(seq "$runs"); do
  empty "$programs/policynoop" "unix:$work/noop.sock" 0; policy "$work/noop.sock" >>"$work/policy-empty"; stop
  daemon; policy "$work/d/policy.sock" >>"$work/policy-rcpt"; stop
  daemon; policy "$work/d/policy.sock" --end >>"$work/policy-end"; stop
  empty "$built/examples/noop_milter" "$work/noop.sock"; milter "$work/noop.sock" >>"$work/milter-empty"; stop
  daemon; milter "$work/d/milter.sock" >>"$work/milter"; stop
  daemon 26_214_400; milter "$work/d/milter.sock" >>"$work/milter-contents"; stop
done
python3 - "$work" <<'P'
import json, statistics, sys
def read(name):
    rows = [json.loads(line) for line in open(f"{sys.argv[1]}/{name}")]
    rate = statistics.median(row.get("rps") or row.get("messages_per_s") or row.get("mps") for row in rows)
    return rate, statistics.median(row["server"]["cpu_us_per_unit"] for row in rows), statistics.median((row.get("latency_us") or row["message_us"])["p99"] for row in rows)
empty = {"policy": read("policy-empty"), "milter": read("milter-empty")}
print(f"{'':34}{'a second':>10}{'ratio':>7}{'CPU us':>8}{'p99 us':>9}")
for title, name, base in [("policy, decides nothing", "policy-empty", "policy"), ("policy, RCPT with reservation", "policy-rcpt", "policy"),
                          ("policy, RCPT and END-OF-MESSAGE", "policy-end", "policy"),
                          ("milter, decides nothing", "milter-empty", "milter"), ("milter, messages", "milter", "milter"), ("milter, messages with contents", "milter-contents", "milter")]:
    rate, cpu, p99 = read(name)
    print(f"{title:34}{rate:10.0f}{rate / empty[base][0]:7.2f}{cpu:8.1f}{p99:9.0f}")
P
