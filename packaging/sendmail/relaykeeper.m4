divert(-1)dnl
dnl Sendmail asks relaykeeper. In sendmail.mc, after all other filters, as what a later filter refuses an earlier one cannot know:
dnl
dnl   FEATURE(`relaykeeper')dnl
dnl   FEATURE(`relaykeeper', `inet:8891@127.0.0.1')dnl     a socket other than local:/run/relaykeeper/milter.sock
dnl
dnl F=T  without relaykeeper, mail waits at the client.
dnl T=   relaykeeper may take 20 s to answer while it reads its store after a start: the default of 10 s for S and R is too short.
dnl Permission to relay comes from the access map: see `relaykeeper export sendmail-access' in relaykeeper(8).
dnl _ARG_ holds the argument only while this file is read.
define(`_RELAYKEEPER_SOCKET_', ifelse(len(X`'_ARG_), `1', `local:/run/relaykeeper/milter.sock', _ARG_))dnl
divert(0)dnl
INPUT_MAIL_FILTER(`relaykeeper', `S='_RELAYKEEPER_SOCKET_`, F=T, T=C:1m;S:30s;R:30s;E:5m')dnl
