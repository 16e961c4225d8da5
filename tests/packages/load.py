#!/usr/bin/python3
"""SMTP clients that send until a file appears, and tell every reply that was no acceptance. Standard library only; runs in a container.

    load.py STOP-FILE [CLIENTS [MESSAGES-A-SESSION [PAUSE-SECONDS]]]

Prints an object: messages, sessions, refused (array of replies), slowest (seconds of the slowest reply)."""
import json, os, socket, sys, threading, time

stop, clients, messages, pause = sys.argv[1], *(kind(value) for kind, value in zip((int, int, float), (sys.argv[2:] + ["4", "3", "0.05"][len(sys.argv) - 2:])))
lock = threading.Lock()
total = {"messages": 0, "sessions": 0, "refused": [], "slowest": 0.0}
deadline = time.monotonic() + 240


class Refused(Exception):
    pass


class Session:
    def __init__(self, source):
        self.socket = socket.create_connection(("127.0.0.1", 25), timeout=120, source_address=(source, 0))
        self.lines = self.socket.makefile("rb")
        self.reply("connect")

    def reply(self, to):
        begun = time.monotonic()
        while True:
            line = self.lines.readline().decode(errors="replace").rstrip()
            if not line or line[3:4] != "-":
                break
        with lock:
            total["slowest"] = max(total["slowest"], round(time.monotonic() - begun, 3))
        if line[:1] not in ("2", "3"):
            raise Refused(f"{to}: {line or 'connection closed'}")
        return line

    def say(self, command):
        self.socket.sendall(command.encode() + b"\r\n")
        return self.reply(command.split("\r\n")[0])

    def message(self, n):
        self.say("MAIL FROM:<ann@acme.example>")
        self.say(f"RCPT TO:<r{n % 50}@dest.example>")
        self.say("DATA")
        time.sleep(pause)
        self.say(f"Subject: {n}\r\n\r\nHello\r\n.")
        with lock:
            total["messages"] += 1


def client(n):
    while not os.path.exists(stop) and time.monotonic() < deadline:
        try:
            session = Session("127.0.0.2")
            session.say("EHLO mx.acme.example")
            for _ in range(messages):
                n += 1
                session.message(n)
                time.sleep(pause)
            session.say("QUIT")
            with lock:
                total["sessions"] += 1
        except (Refused, OSError) as error:
            with lock:
                total["refused"].append(f"{time.strftime('%T')} {error}")
            time.sleep(0.2)


threads = [threading.Thread(target=client, args=(1000 * n,)) for n in range(clients)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(json.dumps(total))
