# As in docs/clients/nullmailer.md.
mkdir -p /etc/nullmailer /var/spool/nullmailer/{tmp,queue,failed}; mkfifo /var/spool/nullmailer/trigger; chown -R mail /var/spool/nullmailer
echo acme.example >/etc/mailname
send() {   # HELO-NAME REMOTE
  echo "$1" >/etc/nullmailer/helohost; echo "$2" >/etc/nullmailer/remotes; chown mail /etc/nullmailer/remotes; chmod 600 /etc/nullmailer/remotes
  nullmailer-send & sender=$!
  until [ -z "$(ls /var/spool/nullmailer/queue)" ]; do kill -0 $sender || exit 1; sleep 0.05; done
  kill $sender; wait $sender || true
}
nullmailer-inject -f ann@acme.example one@dest.example two@dest.example <"$MAIL/message"
nullmailer-inject -f '' one@dest.example <"$MAIL/bounce"
send mx.acme.example "127.0.0.1 smtp --port=$PORT"
nullmailer-inject -f kim@hooli.example one@dest.example <"$MAIL/login"
send laptop.elsewhere.example "127.0.0.1 smtp --port=$PORT --starttls --insecure --auth-login --user=kim@hooli.example --pass=secret-kim"
