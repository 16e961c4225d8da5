# As in docs/clients/msmtp.md.
cat >/etc/msmtprc <<C
account acme
host 127.0.0.1
port $PORT
domain mx.acme.example
from ann@acme.example
auth off
tls off

account hooli
host 127.0.0.1
port $PORT
domain laptop.elsewhere.example
from kim@hooli.example
auth on
user kim@hooli.example
passwordeval "echo secret-kim"
tls on
tls_starttls on
tls_certcheck off
C
msmtp -a acme one@dest.example two@dest.example <"$MAIL/message"
msmtp -a acme --from= one@dest.example <"$MAIL/bounce"
msmtp -a hooli one@dest.example <"$MAIL/login"
