#!/usr/bin/python3
"""Installs the packages on Debian 12 and 13 with a real systemd and Postfix, and does to them what administrators do. As root.

    tests/packages/suite.py [--release bookworm|trixie]... [--only STEP] [--keep-going] DEB [OLDER-DEB]

DEB is the package of this source (packaging/build deb); OLDER-DEB one of an earlier version, to upgrade from. Without it, the same
package under a lower version stands for that. Prints one line a step."""
import argparse, json, os, re, shutil, subprocess, sys, tempfile, time

here = os.path.dirname(os.path.realpath(__file__))
sys.path.insert(0, here)
from container import Container, run

ACME = """
name = "acme"
domains = ["acme.example"]
licenses = 1000
[[setting]]
name = "office"
allowed_senders = "own-domains"
[[setting.ip]]
range = "127.0.0.2"
"""

MAIN_CF = """
compatibility_level = 3.6
myhostname = relay.example.net
mydestination =
inet_interfaces = loopback-only
inet_protocols = ipv4
mynetworks = 127.0.0.1/32
default_transport = discard
smtpd_relay_restrictions =
    check_policy_service { unix:relaykeeper/policy.sock, policy_context=relay },
    reject_unauth_destination
smtpd_end_of_data_restrictions = check_policy_service unix:relaykeeper/policy.sock
smtpd_milters = unix:relaykeeper/milter.sock
milter_default_action = tempfail
smtpd_client_connection_count_limit = 0
"""

LOOK = r"""
import socket, sys
def talk(*commands):
    s = socket.create_connection(("127.0.0.1", 25), timeout=60, source_address=("127.0.0.2", 0)); f = s.makefile("rb"); out = []
    def reply():
        while True:
            line = f.readline().decode().rstrip()
            if line[3:4] != "-": out.append(line); return
    reply()
    for c in commands: s.sendall(c.encode() + b"\r\n"); reply()
    return out
for line in talk("EHLO mx.acme.example", *sys.argv[1:], "QUIT"): print(line)
"""


class Step:
    """What one release goes through, in order; each step builds on the ones before."""

    def __init__(self, machine, deb, older):
        self.machine, self.deb, self.older = machine, deb, older
        machine.put(deb, "/root/new.deb")
        machine.put(older, "/root/old.deb")
        machine.put(f"{here}/load.py", "/root/load.py", 0o755)
        machine.write("/root/look.py", LOOK)

    def talk(self, *commands):
        return self.machine.call("python3", "/root/look.py", *commands).splitlines()

    def send(self, n=1):
        """The reply to the end of a message."""
        replies = self.talk("MAIL FROM:<ann@acme.example>", f"RCPT TO:<r{n}@dest.example>", "DATA", "Subject: x\r\n\r\nHello\r\n.")
        return replies[-2]

    def dpkg(self, *options, check=True):
        return self.machine.call("dpkg", "--force-confdef", "--force-confold", *options, check=check)

    def status(self):
        return json.loads(self.machine.call("relaykeeper", "status", "--json"))

    def used(self):
        shown = json.loads(self.machine.call("relaykeeper", "quota", "show", "acme", "--json"))
        return {limit["limit"]: limit["used"] for limit in shown[0]["limits"]}["customer.recipients_per_day"]

    def configure_postfix(self):
        self.machine.write("/etc/postfix/main.cf", MAIN_CF)
        self.machine.call("systemctl", "restart", "postfix")
        self.machine.until("SMTP port", lambda: self.machine.call("python3", "-c", "import socket; socket.create_connection(('127.0.0.1', 25)).recv(1)", check=False).returncode == 0)

    # --- the steps ---------------------------------------------------------------------------------------------------------

    def install(self):
        """A fresh installation runs, with folders, user and sockets as they belong."""
        said = self.dpkg("-i", "/root/new.deb")
        assert "not started yet" not in said, said
        machine = self.machine
        assert machine.call("systemctl", "is-active", "relaykeeper").strip() == "active"
        machine.until("control socket", lambda: machine.has("/run/relaykeeper/control.sock"))
        assert machine.call("systemctl", "is-enabled", "relaykeeper").strip() == "enabled"
        modes = machine.call("stat", "-c", "%n %a %U:%G", "/etc/relaykeeper", "/etc/relaykeeper/customers.d", "/etc/relaykeeper/relaykeeper.toml",
                             "/var/lib/relaykeeper", "/run/relaykeeper", "/run/relaykeeper/control.sock", "/var/spool/postfix/relaykeeper",
                             "/var/spool/postfix/relaykeeper/milter.sock", "/var/spool/postfix/relaykeeper/policy.sock")
        assert modes.splitlines() == [
            "/etc/relaykeeper 750 root:relaykeeper",
            "/etc/relaykeeper/customers.d 750 root:relaykeeper",
            "/etc/relaykeeper/relaykeeper.toml 640 root:relaykeeper",
            "/var/lib/relaykeeper 750 relaykeeper:relaykeeper",
            "/run/relaykeeper 755 relaykeeper:relaykeeper",
            "/run/relaykeeper/control.sock 600 relaykeeper:relaykeeper",
            "/var/spool/postfix/relaykeeper 2750 relaykeeper:postfix",
            "/var/spool/postfix/relaykeeper/milter.sock 660 relaykeeper:postfix",
            "/var/spool/postfix/relaykeeper/policy.sock 660 relaykeeper:postfix",
        ], modes
        assert machine.shell("stat -c %U /proc/$(systemctl show -P MainPID relaykeeper)").strip() == "relaykeeper"
        exposure = machine.call("systemd-analyze", "security", "relaykeeper.service")
        found = re.search(r"exposure level for relaykeeper.service: ([0-9.]+)", exposure)
        assert found and float(found.group(1)) <= 1.5, exposure[-300:]
        return f"exposure {found.group(1)}"

    def mail_flows(self):
        """Customers are read by a reload, and their mail goes out through both protocols."""
        machine = self.machine
        self.configure_postfix()
        # The client is on this host, as there is no other network here.
        machine.shell("sed -i 's/^exempt_clients = .*/exempt_clients = []/' /etc/relaykeeper/relaykeeper.toml")
        machine.call("systemctl", "reload", "relaykeeper")
        refused = self.talk("MAIL FROM:<ann@acme.example>", "RCPT TO:<r@dest.example>")
        assert refused[-2].startswith("550 5.7.0 "), refused
        machine.write("/etc/relaykeeper/customers.d/acme.toml", ACME, 0o640)
        machine.call("chgrp", "relaykeeper", "/etc/relaykeeper/customers.d/acme.toml")
        machine.call("systemctl", "reload", "relaykeeper")
        assert self.send().startswith("250 "), "after the reload"
        assert self.used() == 1, self.used()
        machine.until("delivery", lambda: "status=sent" in machine.journal("-t", "postfix/discard"), 30)

    def a_bad_reload_fails(self):
        """`systemctl reload` fails while the main file has an error, and mail goes on."""
        machine = self.machine
        good = machine.read("/etc/relaykeeper/relaykeeper.toml")
        machine.write("/etc/relaykeeper/relaykeeper.toml", good + "\nnonsense = 1\n", 0o640)
        assert machine.call("systemctl", "reload", "relaykeeper", check=False).returncode != 0
        machine.write("/etc/relaykeeper/relaykeeper.toml", good, 0o640)
        machine.call("chgrp", "relaykeeper", "/etc/relaykeeper/relaykeeper.toml")
        assert self.send().startswith("250 ")
        machine.call("systemctl", "reload", "relaykeeper")

    def restart_under_load(self):
        """Nobody is refused while the daemon is exchanged."""
        return self.under_load(lambda: self.machine.call("systemctl", "restart", "relaykeeper"))

    def upgrade_under_load(self):
        """Nor while the package is, from an earlier version; conffiles and counts stay."""
        machine = self.machine
        machine.write("/run/relaykeeper.allow-downgrade", "")
        self.dpkg("-i", "/root/old.deb")
        machine.call("rm", "/run/relaykeeper.allow-downgrade")
        before = machine.read("/etc/relaykeeper/relaykeeper.toml")
        counted = self.used()
        told = self.under_load(lambda: self.dpkg("-i", "/root/new.deb"))
        assert machine.read("/etc/relaykeeper/relaykeeper.toml") == before
        assert self.used() > counted
        return told

    def under_load(self, action):
        machine = self.machine
        machine.call("rm", "-f", "/run/stop")
        counted = self.used()
        load = machine.start("/root/load.py", "/run/stop", "4", "3", "0.05")
        time.sleep(3)
        begun = time.monotonic()
        action()
        took = time.monotonic() - begun
        time.sleep(3)
        machine.write("/run/stop", "")
        report = json.loads(load.communicate(timeout=200)[0])
        assert report["messages"] > 10 and not report["refused"], report
        used = self.used()
        assert used - counted == report["messages"], (counted, used, report)
        return f"{report['messages']} messages, 0 refused, all counted, slowest reply {report['slowest']} s, the exchange took {took:.1f} s"

    def downgrade_is_refused(self):
        """With words, and nothing changes."""
        done = self.dpkg("-i", "/root/old.deb", check=False)
        assert done.returncode != 0 and "is older" in done.stdout and "allow-downgrade" in done.stdout, done.stdout
        assert self.send().startswith("250 ")

    def lines_are_known(self):
        """logcheck's rules know every line of this run."""
        lines = [line for line in self.machine.journal("-t", "relaykeeper").splitlines() if "relaykeeper[" in line]
        # Not what `relaykeeper reload` printed to whoever called it.
        daemons = {pid for line in lines for pid in re.findall(r" relaykeeper\[(\d+)\]: relaykeeper [0-9.]+ ready: ", line)}
        lines = [line for line in lines if re.search(r" relaykeeper\[(\d+)\]: ", line).group(1) in daemons]
        rules = self.machine.read("/etc/logcheck/ignore.d.server/relaykeeper")
        with tempfile.NamedTemporaryFile("w") as file:
            file.write(rules)
            file.flush()
            left = subprocess.run(["grep", "-Evf", file.name], input="\n".join(lines), stdout=subprocess.PIPE, text=True).stdout
        # What is for the administrator to see: there were no customers yet, and the bad reload.
        left = [line for line in left.splitlines() if not re.search("no customer files|relaykeeper.toml:|not reloaded", line)]
        assert lines and not left, "\n".join(left[:10])
        return f"{len(lines)} lines"

    def backup_and_restore(self):
        """A backup of the running daemon, put back while it is stopped; not while it runs."""
        machine = self.machine
        counted = self.used()
        machine.call("relaykeeper", "backup", "/root/backup")
        assert self.send().startswith("250 ") and self.used() == counted + 1
        refused = machine.call("relaykeeper", "restore", "/root/backup", check=False)
        assert refused.returncode == 1 and "stop it first" in refused.stdout, refused.stdout
        machine.call("systemctl", "stop", "relaykeeper")
        machine.call("relaykeeper", "restore", "/root/backup")
        machine.call("systemctl", "start", "relaykeeper")
        machine.until("control socket", lambda: machine.call("relaykeeper", "status", check=False).returncode == 0)
        assert self.used() == counted
        assert self.send().startswith("250 ") and self.used() == counted + 1
        assert "\n" not in machine.call("find", "/var/lib/relaykeeper", "!", "-user", "relaykeeper").strip()
        machine.call("relaykeeper", "audit")

    def remove(self):
        """Says what to take out of main.cf; the sockets go, mail is deferred at once, and the counts stay."""
        said = self.dpkg("-r", "relaykeeper")
        for line in ("smtpd_milters = unix:relaykeeper/milter.sock", "smtpd_end_of_data_restrictions = check_policy_service unix:relaykeeper/policy.sock"):
            assert line in said, said
        machine = self.machine
        assert machine.has("/var/lib/relaykeeper/ledger.db") and machine.has("/etc/relaykeeper/relaykeeper.toml")
        assert not machine.has("/var/spool/postfix/relaykeeper") and not machine.has("/run/relaykeeper")
        begun = time.monotonic()
        replies = self.talk("MAIL FROM:<ann@acme.example>", "RCPT TO:<r@dest.example>")
        took = time.monotonic() - begun
        assert any(reply.startswith("451 ") for reply in replies) and took < 10, (replies, took)
        return f"451 after {took:.1f} s"

    def reinstall(self):
        """After a removal: it runs again, with the counts and the configuration that stayed."""
        self.dpkg("-i", "/root/new.deb")
        self.machine.call("postfix", "reload")
        assert self.send(2).startswith("250 ")
        assert self.used() > 1

    def purge(self):
        """Takes the state and the configuration, but not the administrator's own files."""
        self.dpkg("-r", "relaykeeper")
        said = self.dpkg("-P", "relaykeeper")
        machine = self.machine
        assert not machine.has("/var/lib/relaykeeper") and not machine.has("/etc/relaykeeper/relaykeeper.toml")
        assert machine.has("/etc/relaykeeper/customers.d/acme.toml") and "still there" in said, said
        machine.call("rm", "-r", "/etc/relaykeeper")

    def without_postfix(self):
        """Where the sample cannot work, the installation says what to change, and nothing loops."""
        machine = self.machine
        machine.shell("dpkg -P postfix; rm -rf /var/spool/postfix; userdel postfix || true; groupdel postfix || true")
        said = self.dpkg("-i", "/root/new.deb")
        assert "not started yet" in said and "/var/spool/postfix/relaykeeper" in said and "For Sendmail" in said, said
        assert machine.call("systemctl", "is-active", "relaykeeper", check=False).stdout.strip() == "inactive"
        machine.shell("""sed -i -e 's#^milter = .*#milter = ["unix:/run/relaykeeper/milter.sock"]#' -e '/^policy = /d' -e '/^socket_group = /d' /etc/relaykeeper/relaykeeper.toml""")
        machine.call("systemctl", "start", "relaykeeper")
        assert machine.has("/run/relaykeeper/milter.sock")

    STEPS = ["install", "mail_flows", "a_bad_reload_fails", "restart_under_load", "upgrade_under_load", "downgrade_is_refused",
             "backup_and_restore", "lines_are_known", "remove", "reinstall", "purge", "without_postfix"]


def lower(deb, folder):
    """The same package under a lower version."""
    run("dpkg-deb", "-R", deb, f"{folder}/tree")
    for name in ("control", "preinst"):
        path = f"{folder}/tree/DEBIAN/{name}"
        text = open(path).read()
        version = run("dpkg-deb", "-f", deb, "Version").strip()
        open(path, "w").write(text.replace(version.rsplit("-", 1)[0], "0.0.9"))
    run("dpkg-deb", "--root-owner-group", "-b", f"{folder}/tree", f"{folder}/older.deb")
    return f"{folder}/older.deb"


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--release", action="append")
    arguments.add_argument("--until", help="the last step to do")
    arguments.add_argument("deb")
    arguments.add_argument("older", nargs="?")
    given = arguments.parse_args()
    passed, failed = 0, 0
    with tempfile.TemporaryDirectory() as folder:
        older = given.older or lower(given.deb, folder)
        for release in given.release or ["bookworm", "trixie"]:
            with Container(release) as machine:
                step = Step(machine, given.deb, older)
                for name in Step.STEPS:
                    begun = time.monotonic()
                    try:
                        told = getattr(step, name)()
                        passed += 1
                        print(f"   ok {release} {name} ({time.monotonic() - begun:.1f} s){': ' + told if told else ''}", flush=True)
                    except Exception as error:
                        failed += 1
                        print(f"   FAILED {release} {name}: {error}\n{machine.journal('-n', '20')}", flush=True)
                        break
                    if name == given.until:
                        break
    print(f"packages: {passed} passed, {failed} failed")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
