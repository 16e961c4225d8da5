# As in docs/clients/exim.md.
mkdir -p /etc/exim4 /var/spool/exim4; chown Debian-exim:Debian-exim /var/spool/exim4
configure() {   # HELO-NAME TRANSPORT-OPTION… ; authenticators on standard input
  local name=$1; shift
  cat >/etc/exim4/exim4.conf <<C
primary_hostname = $name
qualify_domain = acme.example
log_file_path = /var/spool/exim4/%slog
trusted_users = root
never_users =
keep_environment =
begin routers
relay:
  driver = manualroute
  transport = relay
  route_list = * 127.0.0.1::$PORT byname
  self = send
begin transports
relay:
  driver = smtp
$(printf '  %s\n' "$@")
begin authenticators
$(cat)
C
}
configure mx.acme.example </dev/null
exim4 -odf -f ann@acme.example one@dest.example two@dest.example <"$MAIL/message"
exim4 -odf -f '<>' one@dest.example <"$MAIL/bounce"
configure laptop.elsewhere.example 'hosts_require_tls = *' 'hosts_require_auth = *' 'tls_verify_certificates =' <<'C'
login:
  driver = plaintext
  public_name = PLAIN
  client_send = ^kim@hooli.example^secret-kim
C
exim4 -odf -f kim@hooli.example one@dest.example <"$MAIL/login"
