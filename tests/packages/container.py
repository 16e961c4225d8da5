"""Debian with a real systemd as process 1, in namespaces of its own: no network but its own loopback.

A root folder is made once per release by debootstrap and kept; each container gets an overlay over it, which is thrown away."""
import glob, os, shutil, signal, subprocess, sys, tempfile, time

CACHE = os.path.join(os.environ.get("RELAYKEEPER_TESTS", "/var/cache/relaykeeper-tests"), "roots")
PACKAGES = "systemd,systemd-sysv,dbus,postfix,python3"


def run(*command, check=True, **options):
    """Standard output and error of a command, as one text."""
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options)
    if check and done.returncode:
        raise AssertionError(f"{' '.join(command)}: exit status {done.returncode}\n{done.stdout[-4000:]}")
    return done.stdout if check else done


def base(release):
    """The folder of a fresh system."""
    root = f"{CACHE}/{release}"
    if os.path.exists(f"{root}/usr/sbin/postconf"):
        return root
    new = f"{root}.new"
    shutil.rmtree(new, ignore_errors=True)
    os.makedirs(CACHE, exist_ok=True)
    print(f"   debootstrap {release} (once, a minute or two)", flush=True)
    run("debootstrap", "--variant=minbase", f"--include={PACKAGES}", release, new, env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"})
    os.rename(new, root)
    return root


class Container:
    """One system, from its start to its end (a context)."""

    def __init__(self, release):
        self.release = release
        self.folder = tempfile.mkdtemp(prefix="relaykeeper-container.", dir="/var/tmp")
        self.root = f"{self.folder}/root"
        self.process = self.init = None

    def __enter__(self):
        for name in ("upper", "work", "root"):
            os.makedirs(f"{self.folder}/{name}")
        os.chmod(f"{self.folder}/upper", 0o755)
        layers = f"lowerdir={base(self.release)},upperdir={self.folder}/upper,workdir={self.folder}/work"
        run("mount", "-t", "overlay", "overlay", "-o", layers, self.root)
        try:
            self.boot()
        except BaseException:
            self.__exit__()
            raise
        return self

    def boot(self):
        log = open(f"{self.folder}/console", "wb")
        self.process = subprocess.Popen(
            ["systemd-nspawn", "--quiet", "-D", self.root, "--register=no", "--keep-unit", "--private-network", "--console=pipe",
             "--hostname=relay", "--resolv-conf=off", "--boot"],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
        self.until("systemd", lambda: self.find_init() and self.call("systemctl", "is-system-running", check=False).stdout.strip() in ("running", "degraded"))

    def find_init(self):
        if self.process.poll() is not None:
            raise AssertionError(f"systemd-nspawn ended:\n{open(f'{self.folder}/console').read()[-2000:]}")
        children = f"/proc/{self.process.pid}/task/{self.process.pid}/children"
        self.init = next(iter(open(children).read().split()), None)
        return self.init

    def call(self, *command, check=True, **options):
        """Runs a command within."""
        return run("nsenter", "-t", self.init, "-m", "-u", "-i", "-n", "-p", "-r", "-w", "--", "env", "-i",
                   "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C.UTF-8", "DEBIAN_FRONTEND=noninteractive", "HOME=/root",
                   *command, check=check, **options)

    def shell(self, text, **options):
        return self.call("bash", "-euo", "pipefail", "-c", text, **options)

    def start(self, *command, **options):
        """Begins a command within, and does not wait."""
        return subprocess.Popen(["nsenter", "-t", self.init, "-m", "-u", "-i", "-n", "-p", "-r", "-w", "--", *command],
                                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options)

    def inside(self):
        """The root folder as its processes see it, with what is mounted there."""
        return f"/proc/{self.init}/root"

    def put(self, source, path, mode=0o644):
        """Copies a file into it."""
        os.makedirs(os.path.dirname(f"{self.inside()}{path}"), exist_ok=True)
        shutil.copyfile(source, f"{self.inside()}{path}")
        os.chmod(f"{self.inside()}{path}", mode)

    def write(self, path, text, mode=0o644):
        os.makedirs(os.path.dirname(f"{self.inside()}{path}"), exist_ok=True)
        with open(f"{self.inside()}{path}", "w") as file:
            file.write(text)
        os.chmod(f"{self.inside()}{path}", mode)

    def read(self, path):
        with open(f"{self.inside()}{path}") as file:
            return file.read()

    def has(self, path):
        return os.path.lexists(f"{self.inside()}{path}")

    def until(self, what, condition, seconds=60):
        end = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > end:
                raise AssertionError(f"no {what} within {seconds} s")
            time.sleep(0.1)

    def journal(self, *options):
        return self.call("journalctl", "--no-pager", "-o", "short", *options)

    def __exit__(self, *_):
        if self.process and self.process.poll() is None:
            # SIGRTMIN+4 to systemd is "power off"; whatever is left of it goes with its process 1.
            try:
                os.kill(int(self.init), signal.SIGRTMIN + 4)
                self.process.wait(20)
            except (subprocess.TimeoutExpired, ProcessLookupError, TypeError):
                if self.init:
                    os.kill(int(self.init), signal.SIGKILL)
                self.process.kill()
                self.process.wait()
        run("umount", "-l", self.root, check=False)
        shutil.rmtree(self.folder, ignore_errors=True)
