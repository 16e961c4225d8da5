#!/bin/bash
# guard.sh COMMAND…   runs COMMAND (same process id, its exit status) until standard input ends; then it gets TERM, and KILL after 5 s.
# A test that dies in any way closes its end of the pipe, so nothing that it started outlives it.
self=$$
watch() {
  ours() {   # COMMAND is alive as long as it is our parent
    local key value
    while read -r key value; do [ "$key" != PPid: ] || break; done <"/proc/$BASHPID/status"
    [ "$value" = "$self" ]
  }
  while read -r _; do :; done
  ours && kill -TERM "$self"
  for _ in {1..100}; do ours || return; sleep 0.05; done
  ours && kill -KILL "$self"
}
{ watch <&3 >/dev/null 2>&1 & } 3<&0
exec "$@" </dev/null
