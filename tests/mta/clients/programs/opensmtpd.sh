# As in docs/clients/opensmtpd.md. Its listener is for the test alone, and the relay's certificate is trusted here.
mkdir -p /var/lib/opensmtpd/empty /var/spool/smtpd; chmod 711 /var/spool/smtpd; chmod 755 /var/lib/opensmtpd /var/lib/opensmtpd/empty
echo '127.0.0.1 mx.test.example' >>/etc/hosts; cat "$CERTIFICATE" >>/etc/ssl/certs/ca-certificates.crt
echo 'hooli kim@hooli.example:secret-kim' >/etc/secrets; chown root:opensmtpd /etc/secrets; chmod 640 /etc/secrets
# At an address from which nobody connects: at 127.0.0.1 any connection may have taken the port.
port=$((PORT + 30000)) own=127.7.7.7
cat >/etc/smtpd.conf <<C
table secrets file:/etc/secrets
listen on $own port $port hostname mx.acme.example
action "relay" relay host smtp://127.0.0.1:$PORT helo mx.acme.example
action "login" relay host smtp+tls://hooli@mx.test.example:$PORT auth <secrets> helo laptop.elsewhere.example
match mail-from "kim@hooli.example" from any for any action "login"
match from any for any action "relay"
C
smtpd -d >/run/log 2>&1 &
until (exec 3<>/dev/tcp/$own/$port) 2>/dev/null; do
  kill -0 $! 2>/dev/null || { cat /run/log; exit 1; }
  sleep 0.05
done
take="swaks --server $own:$port --hide-all"
$take --from ann@acme.example --to one@dest.example,two@dest.example --data - <"$MAIL/message"
$take --from '<>' --to one@dest.example --data - <"$MAIL/bounce"
$take --from kim@hooli.example --to one@dest.example --data - <"$MAIL/login"
until [ "$(grep -c 'mta delivery .*result="Ok"' /run/log)" = 4 ]; do
  if grep -E 'result="(TempFail|PermFail)"|fatal' /run/log; then cat /run/log; exit 1; fi
  sleep 0.05
done
