# As in docs/clients/swaks.md.
relay="--server 127.0.0.1:$PORT --hide-all"
swaks $relay --helo mx.acme.example --from ann@acme.example --to one@dest.example,two@dest.example --data - <"$MAIL/message"
swaks $relay --helo mx.acme.example --from '<>' --to one@dest.example --data - <"$MAIL/bounce"
swaks $relay --helo laptop.elsewhere.example --tls --auth PLAIN --auth-user kim@hooli.example --auth-password secret-kim \
  --from kim@hooli.example --to one@dest.example --data - <"$MAIL/login"
