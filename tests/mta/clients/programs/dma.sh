# As in docs/clients/dma.md.
mkdir -p /etc/dma /var/spool/dma; chown root:mail /var/spool/dma; chmod 2775 /var/spool/dma
printf '%s\n' 'SMARTHOST 127.0.0.1' "PORT $PORT" 'MAILNAME mx.acme.example' >/etc/dma/dma.conf
dma -D -f ann@acme.example one@dest.example two@dest.example <"$MAIL/message"
printf '%s\n' 'SMARTHOST 127.0.0.1' "PORT $PORT" 'MAILNAME laptop.elsewhere.example' 'AUTHPATH /etc/dma/auth.conf' SECURETRANSFER STARTTLS \
  >/etc/dma/dma.conf
echo 'kim@hooli.example|127.0.0.1:secret-kim' >/etc/dma/auth.conf; chown root:mail /etc/dma/auth.conf; chmod 640 /etc/dma/auth.conf
dma -D -f kim@hooli.example one@dest.example <"$MAIL/login"
until [ -z "$(ls /var/spool/dma | grep '^[MQ]')" ]; do sleep 0.05; done   # it delivers in the background
