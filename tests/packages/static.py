#!/usr/bin/python3
"""Checks what packaging/ holds without installing it: units, rules and filters against the tools that read them, and against what
the program really says. Needs systemd, fail2ban, apparmor, lintian, m4, python3-yaml and the test bed's Sendmail.

    tests/packages/static.py [PROGRAM]

PROGRAM checks the configurations, and is target/debug/relaykeeper by default."""
import glob, os, re, shutil, subprocess, sys, tempfile

here = os.path.dirname(os.path.realpath(__file__))
top = os.path.dirname(os.path.dirname(here))
program = os.path.abspath(sys.argv[1]) if len(sys.argv) > 1 else f"{top}/target/debug/relaykeeper"
bed = os.environ.get("RELAYKEEPER_TESTS", "/var/cache/relaykeeper-tests")


def run(*command, **options):
    return subprocess.run(command, stdin=options.pop("stdin", subprocess.DEVNULL), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options)


def text(path):
    with open(f"{top}/{path}") as file:
        return file.read()


def sources():
    for path in glob.glob(f"{top}/src/**/*.rs", recursive=True):
        if not re.search(r"/tests(/|\.rs)", path):
            with open(path) as file:
                yield file.read().split("#[cfg(test)]")[0]


def the_unit_is_sealed_off():
    """systemd-analyze security is at most 1.5."""
    said = run("systemd-analyze", "security", "--offline=yes", f"{top}/packaging/systemd/relaykeeper.service").stdout
    exposure = re.search(r"exposure level for relaykeeper.service: ([0-9.]+)", said)
    assert exposure and float(exposure.group(1)) <= 1.5, said[-200:]
    return exposure.group(1)


def logcheck_knows_every_line():
    """Each event and each reason of a refusal is ignored or reported on purpose."""
    rules = text("packaging/logcheck/relaykeeper")
    reported = re.search(r"# Reported: (.*)", rules).group(1).split()
    events = {name for source in sources() for name in re.findall(r'event\("([a-z-]+)"\)', source)}
    reasons = {key for source in sources() for key in re.findall(r'(?:Refusal|LimitName|ConnectionLimit|Oversize)::\w+[^\n]*=> "([a-z]+(?:-[a-z]+)+)"', source)}
    unsure = {"cannot-decide", "customer-unusable", "directory-incomplete"}
    assert len(events) > 8 and len(reasons) > 20 and unsure < reasons, (events, reasons)
    prefixes = ["Nov 28 03:14:11 relay relaykeeper[276]: ", "2026-11-28T03:14:11.123456+00:00 relay.example.net relaykeeper[276]: "]
    lines = {f"event={event} x=1": event not in reported for event in events}
    lines |= {f"NOQUEUE: verdict={verdict} reason={reason} client=192.0.2.7": reason not in unsure for reason in reasons for verdict in ("defer", "reject")}
    lines |= {"8C77414C76E: verdict=accept customer=acme client=192.0.2.7": True, "the store is unreachable": False,
              'NOQUEUE: verdict=reject reason=x helo="reason=auth-required" client=192.0.2.7': False}
    with tempfile.NamedTemporaryFile("w") as file:
        file.write("".join(line + "\n" for line in rules.splitlines() if line and not line.startswith("#")))
        file.flush()
        for line, ignored in lines.items():
            for prefix in prefixes:
                found = subprocess.run(["grep", "-Eqf", file.name], input=prefix + line, text=True).returncode == 0
                assert found == ignored, f"{'not ' if ignored else ''}ignored: {prefix + line}"
    assert set(reported) <= events, f"no such event: {set(reported) - events}"
    return f"{len(events)} events, {len(reasons)} reasons"


def fail2ban_finds_strangers_only():
    lines = [
        ("Nov 28 03:14:11 relay relaykeeper[276]: NOQUEUE: verdict=reject reason=unknown-customer client=203.0.113.9 helo=x sender=a@b.example proto=policy ref=9H2T-2RHN-AV", True),
        ("Nov 28 03:14:11 relay relaykeeper[276]: 8C77414C76E: verdict=reject reason=unknown-customer client=2001:db8::9 helo=x proto=milter ref=9H2T-2RHN-AV", True),
        ("Nov 28 03:14:11 relay relaykeeper[276]: NOQUEUE: verdict=reject reason=address-not-in-ranges customer=acme by=helo client=203.0.113.9 helo=mx.acme.example", False),
        ("Nov 28 03:14:11 relay relaykeeper[276]: NOQUEUE: verdict=defer reason=user-message-limit customer=acme client=203.0.113.9", False),
        ('Nov 28 03:14:11 relay relaykeeper[276]: NOQUEUE: verdict=reject reason=sender-not-allowed customer=acme client=203.0.113.9 helo="verdict\\x3dreject reason\\x3dunknown-customer client\\x3d198.51.100.1 "', False),
    ]
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree("/etc/fail2ban/filter.d", f"{folder}/filter.d")
        shutil.copyfile(f"{top}/packaging/fail2ban/filter.conf", f"{folder}/filter.d/relaykeeper.conf")
        for line, matches in lines:
            with open(f"{folder}/log", "w") as log:
                log.write(line + "\n")
            said = run("fail2ban-regex", "--print-all-matched", f"{folder}/log", f"{folder}/filter.d/relaykeeper.conf").stdout
            found = re.search(r"Lines: 1 lines, 0 ignored, (\d) matched", said)
            assert found and (found.group(1) == "1") == matches, f"{line}\n{said}"


def apparmor_reads_the_profile():
    done = run("apparmor_parser", "-Q", "-K", "-S", f"{top}/packaging/apparmor/relaykeeper", errors="replace")
    assert done.returncode == 0, done.stdout[-500:]


def sendmail_takes_the_feature():
    root = f"{bed}/sendmail/root/usr/share/sendmail/cf"
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(root, f"{folder}/cf")
        shutil.copyfile(f"{top}/packaging/sendmail/relaykeeper.m4", f"{folder}/cf/feature/relaykeeper.m4")
        for feature, socket in (("`relaykeeper'", "local:/run/relaykeeper/milter.sock"), ("`relaykeeper', `inet:8891@127.0.0.1'", "inet:8891@127.0.0.1")):
            with open(f"{folder}/mc", "w") as file:
                file.write(f"divert(0)dnl\nOSTYPE(`linux')dnl\nFEATURE({feature})dnl\nMAILER(`smtp')dnl\n")
            made = run("m4", f"-D_CF_DIR_={folder}/cf/", f"{folder}/cf/m4/cf.m4", f"{folder}/mc", errors="replace").stdout
            assert f"\nXrelaykeeper, S={socket}, F=T, T=C:1m;S:30s;R:30s;E:5m\n" in made and "\nO InputMailFilters=relaykeeper\n" in made, made[-500:]


def containers_are_set_up_alike():
    """The compose file can be read, and asks relaykeeper where its configuration listens, as contrib's main.cf does."""
    import yaml
    compose = yaml.safe_load(text("packaging/container/compose.yaml"))
    services = compose["services"]
    assert set(services) == {"relaykeeper", "postfix", "valkey"}, services
    address = {name: service["networks"]["mail"]["ipv4_address"] for name, service in services.items()}
    configuration = text("packaging/container/relaykeeper.toml")
    assert f'allow   = ["{address["postfix"]}"]' in configuration and f'redis://{address["valkey"]}:6379' in configuration
    postfix = services["postfix"]["environment"]
    assert postfix["POSTFIX_smtpd_milters"] == f"inet:{address['relaykeeper']}:8891"
    ours = re.sub(r"(?m)^#.*\n", "", text("contrib/postfix/main.cf"))
    for key, value in postfix.items():
        if key.startswith("POSTFIX_smtpd") or key == "POSTFIX_milter_default_action":
            name = key.removeprefix("POSTFIX_")
            theirs = re.search(rf"(?m)^{name} =((?:.*\n)(?:[ \t].*\n)*)", ours)
            assert theirs, name
            expected = " ".join(theirs.group(1).split()).replace("unix:relaykeeper/policy.sock", f"inet:{address['relaykeeper']}:8892").replace("unix:relaykeeper/milter.sock", f"inet:{address['relaykeeper']}:8891")
            assert value == expected, (name, value, expected)
    with tempfile.TemporaryDirectory() as folder:
        shutil.copyfile(f"{top}/packaging/container/relaykeeper.toml", f"{folder}/relaykeeper.toml")
        os.mkdir(f"{folder}/customers.d")
        said = run(program, "check", "--files-only", "--config", f"{folder}/relaykeeper.toml").stdout
        # What this machine lacks is not the file's fault.
        assert not re.search(r"relaykeeper\.toml:\d", said), said


def maintainer_scripts_are_scripts():
    for path in glob.glob(f"{top}/packaging/debian/relaykeeper.p*") + [f"{top}/packaging/{name}" for name in ("build", "compile", "stage", "container/build")]:
        shell = open(path).readline().strip().removeprefix("#!")
        assert run(shell, "-n", path).returncode == 0, path


CHECKS = [the_unit_is_sealed_off, logcheck_knows_every_line, fail2ban_finds_strangers_only, apparmor_reads_the_profile, sendmail_takes_the_feature,
          containers_are_set_up_alike, maintainer_scripts_are_scripts]


def main():
    failed = 0
    for check in CHECKS:
        try:
            told = check()
            print(f"   ok {check.__name__}{': ' + told if told else ''}", flush=True)
        except Exception as error:
            failed += 1
            print(f"   FAILED {check.__name__}: {type(error).__name__}: {error}", flush=True)
    print(f"packaging: {len(CHECKS) - failed} passed, {failed} failed")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
