#!/bin/bash
# Private Redis or Valkey servers on loopback.
#
#   redis.sh run DIR redis|valkey single|cluster|sentinel [OPTION…]
#
#   single     one server; DIR/0/socket is its unix socket
#   cluster    three masters (nodes 0 to 2) and a replica of each (3 to 5)
#   sentinel   a master (0), its replica (1), and three sentinels (2 to 4) that call it "relaykeeper"
#   OPTION…    further options of each server, such as --maxmemory 10mb
#
# Each node may live in a network namespace of its own: $NETWORKS has FILE=ADDRESS of each, in their order.
#
# With --tls-cluster yes each node has a port for TLS, too.
#
# With $FAKE_CLOCK each node's wall clock shows the number of seconds more that is in DIR/NUMBER/clock (clock.c).
#
# They live until standard input ends; then they are killed, and DIR is removed. Says "node NUMBER PORT PID TLS-PORT" of each,
# then "ready". A line "start NUMBER" on standard input starts a node again that was killed, with what it has on disk; that is
# answered by another "node" line. Run by anybody; ports are the bed's.
set -eu
. "$(dirname "$(readlink -f "$0")")/lib.sh"
[ "${1:-}" = run ] && [ $# -ge 4 ] || { sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0" >&2; exit 2; }
dir=$2 flavour=$3 kind=$4; shift 4
options=("$@") ports=() tls_ports=() buses=() pids=()
read -ra networks <<<"${NETWORKS:-}"
case $flavour in
  redis) server=$(command -v redis-server) || die "there is no redis-server here: tests/bed/install.sh gets it, tests/bed/inside.sh COMMAND runs a command where it is seen" ;;
  valkey) server=$bed/valkey/valkey-server; [ -x "$server" ] || die "there is no $server: tests/bed/install.sh gets it" ;;
  *) die "redis or valkey, not $flavour" ;;
esac

address() { local of=${networks[$1]:-=127.0.0.1}; echo "${of#*=}"; }   # NODE
within() {   # NODE COMMAND…
  local of=${networks[$1]:-}; shift
  if [ -n "$of" ]; then exec nsenter --net="${of%=*}" "$@"; else exec "$@"; fi
}
cli() { local node=$1; shift; (within "$node" redis-cli -h "$(address "$node")" -p "${ports[$node]}" "$@" </dev/null); }   # NODE COMMAND…
answers() { [ "$(cli "$1" ping 2>/dev/null)" = PONG ]; }
says() { local want=$1; shift; cli "$@" 2>/dev/null | tr -d '\r' | grep -qx "$want"; }   # LINE NODE COMMAND…

# node NUMBER [OPTION…]: starts a server, or starts it again with the options of the first time
node() {
  local number=$1; shift
  if [ -z "${ports[$number]:-}" ]; then
    take_port "ports[$number]"
    mkdir -p "$dir/$number"
    if [[ " $* " == *' --tls-cluster yes '* ]]; then
      take_port "tls_ports[$number]"
      set -- "$@" --tls-port "${tls_ports[$number]}"
    fi
    printf '%s\n' "$@" >"$dir/$number.options"
  fi
  local words preload=(); mapfile -t words <"$dir/$number.options"
  if [ -n "${FAKE_CLOCK:-}" ]; then
    [ -e "$dir/$number/clock" ] || head -c 8 /dev/zero >"$dir/$number/clock"
    preload=(env "FAKE_CLOCK=$dir/$number/clock" "LD_PRELOAD=$dir/clock.so")
  fi
  within "$number" ${preload[@]+"${preload[@]}"} "$server" ${words[@]+"${words[@]}"} --port "${ports[$number]}" --bind "$(address "$number")" --protected-mode no \
    --dir "$dir/$number" --daemonize no </dev/null >>"$dir/$number.log" 2>&1 &
  pids[$number]=$!; disown   # the shell says nothing about its end
  await 20 answers "$number" || { cat "$dir/$number.log" >&2; die "node $number does not answer"; }
}

announce() { echo "node $1 ${ports[$1]} ${pids[$1]} ${tls_ports[$1]:-0}"; }   # NUMBER

stop() {
  local pid
  for pid in ${pids[@]+"${pids[@]}"}; do kill -KILL "$pid" 2>/dev/null || true; done
  rm -rf "$dir"
}
trap stop EXIT
trap : TERM INT HUP PIPE

plain=(--repl-diskless-sync-delay 0 --save '' --appendonly no ${options[@]+"${options[@]}"})
mkdir -p "$dir"
[ -z "${FAKE_CLOCK:-}" ] || gcc -shared -fPIC -O -o "$dir/clock.so" "$(dirname "$(readlink -f "$0")")/clock.c"
case $kind in
  single) node 0 "${plain[@]}" --unixsocket "$dir/0/socket" ;;
  cluster)
    for n in 0 1 2 3 4 5; do
      take_port "buses[$n]"
      node $n "${plain[@]}" --cluster-port "${buses[$n]}" --cluster-enabled yes --cluster-node-timeout 1000 --cluster-replica-validity-factor 0
    done
    for n in 0 1 2; do
      cli $n cluster addslotsrange $((n * 16384 / 3)) $(((n + 1) * 16384 / 3 - 1)) >/dev/null
      cli $n cluster set-config-epoch $((n + 1)) >/dev/null
    done
    for n in 1 2 3 4 5; do cli $n cluster meet "$(address 0)" "${ports[0]}" "${buses[0]}" >/dev/null; done
    for n in 0 1 2 3 4 5; do await 20 says cluster_known_nodes:6 $n cluster info && await 20 says cluster_state:ok $n cluster info || die "node $n does not join"; done
    for n in 0 1 2; do cli $((n + 3)) cluster replicate "$(cli $n cluster myid)" >/dev/null; done
    for n in 0 1 2; do await 20 says master_link_status:up $((n + 3)) info replication || die "node $((n + 3)) does not replicate"; done
    # Every node knows who is whose replica.
    replicas() { [ "$(cli "$1" cluster nodes | grep -c slave)" = 3 ]; }
    for n in 0 1 2 3 4 5; do await 20 replicas $n || die "node $n does not know the replicas"; done
    ;;
  sentinel)
    node 0 "${plain[@]}"
    node 1 "${plain[@]}" --replicaof "$(address 0) ${ports[0]}"
    await 20 says master_link_status:up 1 info replication || die "the replica does not replicate"
    for n in 2 3 4; do
      printf '%s\n' "sentinel monitor relaykeeper $(address 0) ${ports[0]} 2" 'sentinel down-after-milliseconds relaykeeper 1000' \
        'sentinel failover-timeout relaykeeper 5000' >"$dir/sentinel$n.conf"
      node $n "$dir/sentinel$n.conf" --sentinel
    done
    ready() { cli "$1" sentinel ckquorum relaykeeper 2>/dev/null | grep -q '^OK 3'; }
    for n in 2 3 4; do await 20 ready $n || die "sentinel $n does not find the others"; done
    ;;
  *) die "single, cluster or sentinel, not $kind" ;;
esac
for n in "${!ports[@]}"; do announce "$n"; done
echo ready
while read -r word number; do
  [ "$word" != start ] || { node "$number"; announce "$number"; }
done
