"""Programs that reach for the host, for privileges, for the runner and for its messages. They run inside a sandbox."""

from __future__ import annotations

from tests.hostile_trying import TRY

# ---- reaching out

NETWORK = (
    TRY
    + r"""
def connect(address, port):
    socket.create_connection((address, port), timeout=2).close()
def datagram(address, port):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp: udp.sendto(b"x", (address, port))
for address in sys.argv[2:]:
    attempt("connect " + address, connect, address, int(sys.argv[1]))
    if not address.startswith("127."): attempt("datagram " + address, datagram, address, 53)
attempt("metadata", connect, "169.254.169.254", 80)
attempt("dns", socket.getaddrinfo, "example.com", 80)
attempt("raw", socket.socket, socket.AF_INET, socket.SOCK_RAW, 1)
attempt("packet", socket.socket, 17, socket.SOCK_RAW, 0)
attempt("vsock", socket.socket, 40, socket.SOCK_STREAM)
def new_address():
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as link:
        body = struct.pack("=BBBBI", 2, 8, 0, 0, 1) + struct.pack("=HH4s", 8, 2, bytes([10, 9, 8, 7]))
        link.sendto(struct.pack("=IHHII", 16 + len(body), 20, 0x405, 1, 0) + body, (0, 0))
        code = struct.unpack("=i", link.recv(4096)[16:20])[0]
        if code: raise OSError(-code, "netlink")
attempt("new address", new_address)
interfaces = sorted(line.split(":")[0].strip() for line in open("/proc/net/dev") if ":" in line)
if interfaces != ["lo"]: worked["interfaces"] = interfaces
report()
"""
)
HOST_FILES = (
    TRY
    + r"""
paths = sys.argv[1:] + ["/var/run/docker.sock", "/run/docker.sock", "/etc/shadow", "/root/.ssh", "/root/.bash_history",
                        "/proc/1/environ", "/proc/1/mem", "/proc/1/maps", "/repo-agent-bases", "/repo-agent-shipped"]
for line in open("/proc/self/mountinfo").read().splitlines():
    words = line.split()
    options = [word.partition("=")[2].split(":") for word in words[-1].split(",") if "dir=" in word]
    paths += [words[3]] if words[3].count("/") > 2 and not words[3].startswith("/docker/") else []
    paths += [path for group in options for path in group]
for process in glob.glob("/proc/[0-9]*"):
    if int(process[6:]) in (os.getpid(), os.getppid()) or int(process[6:]) == 1:
        paths += [process + "/root" + path for path in paths[:4]] if int(process[6:]) != os.getpid() else []
        paths += [process + "/" + name for name in ("fd/0", "cwd/", "exe", "map_files", "fdinfo", "ns/mnt")] \
            if int(process[6:]) != os.getpid() else []
ours = (sys.base_prefix, "/usr", "/etc/alternatives", "/etc/ld.so.cache")  # in bubblewrap they are the host's
def look(path):
    if os.path.isdir(path): return os.listdir(path)
    with open(path, "rb") as file: return file.read(100)
for path in paths:
    if not any((path + "/").startswith(own + "/") for own in ours):
        attempt(path, look, path)
report()
"""
)
ENVIRONMENTS = """
import glob, os
print(os.environ)
for path in glob.glob("/proc/*/environ"):
    try: print(open(path, "rb").read())
    except OSError: pass
"""
FIND_WORD = r"""
import os, stat, sys
word = (sys.argv[1] + sys.argv[2]).encode()
found, seen = [], 0
def search(path):
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        before = b""
        for _ in range(400):  # files of the kernel may have no end
            data = os.read(fd, 1 << 18)
            if word in before + data: return True
            if not data: return False
            before = data[-len(word):]
    finally: os.close(fd)
for folder, folders, names in os.walk("/"):
    for name in folders + names:
        path = os.path.join(folder, name)
        try:
            kind = stat.S_IFMT(os.lstat(path).st_mode)
            text = os.readlink(path) if kind == stat.S_IFLNK else ""
            seen += 1
            if word in os.fsencode(path + text) or (kind == stat.S_IFREG and search(path)): found.append(path)
        except (OSError, ValueError, OverflowError): pass
for process in filter(str.isdigit, os.listdir("/proc")):
    for link in ("root", "cwd", "root/repo-agent-bases", "root/repo-agent-shipped"):
        try: found += [name for name in os.listdir("/proc/%s/%s" % (process, link)) if word.decode() in name]
        except OSError: pass
for place in ("/repo-agent-bases", "/repo-agent-shipped"):
    try: found += [place + "/" + name for name in os.listdir(place)]
    except OSError: pass
print(found, seen > 10000)
"""
SCAN_MEMORY = r"""
import re
def test_scan():
    patterns = [re.compile(text[::-1].encode()) for text in PATTERNS]  # each matches a word, and not itself
    found = []
    with open("/proc/self/maps") as maps, open("/proc/self/mem", "rb", 0) as memory:
        for start, end, mode, rest in re.findall("([0-9a-f]+)-([0-9a-f]+) (....)(.*)", maps.read()):
            if mode[0] == "r" and "[v" not in rest:
                memory.seek(int(start, 16))
                data = memory.read(int(end, 16) - int(start, 16))
                found += [pattern.pattern for pattern in patterns if pattern.search(data)]
    assert not found
"""

# ---- becoming more

IDENTITY = r"""
import json, os
status = dict(line.split(":\t") for line in open("/proc/self/status").read().splitlines() if ":\t" in line)
print(json.dumps({
    "capabilities": [int(status[key], 16) for key in ("CapInh", "CapPrm", "CapEff", "CapAmb")],
    "no new privileges": status["NoNewPrivs"], "filtered": status["Seccomp"],
    "users": sorted(set(status["Uid"].split())), "groups": status["Groups"].split(), "root": 0 in os.getresuid(),
    "descriptors": sorted({os.readlink("/proc/self/fd/" + fd) for fd in os.listdir("/proc/self/fd")
                           if os.path.exists("/proc/self/fd/" + fd)}),
}))
"""
BECOMING_ROOT = (
    TRY
    + r"""
import subprocess
for name, *args in (("setuid", 0), ("seteuid", 0), ("setreuid", 0, 0), ("setresuid", 0, 0, 0), ("setgid", 0),
                    ("setresgid", 0, 0, 0), ("setgroups", [0]), ("setuid", 1), ("setuid", 65533)):
    attempt("%s%r" % (name, args), getattr(os, name), *args)
attempt("ambient", call, "prctl", 47, 2, 21, 0, 0)
attempt("set dumpable and keep", call, "capset", struct.pack("=IiI", 0x20080522, 0, 0)[:8], b"\xff" * 24)
for words in (["mount", "-t", "tmpfs", "none", "/tmp"], ["umount", "/dev/shm"], ["chsh", "-s", "/bin/sh", "root"]):
    path = "/usr/bin/" + words[0]  # with the bit where there is one, which is without effect here
    if os.path.exists(path):
        program = subprocess.run([path, *words[1:]], stdin=subprocess.DEVNULL, capture_output=True, text=True)
        if program.returncode == 0: worked[words[0]] = program.stdout
def setuid_copy():
    open("mine", "wb").write(open("/bin/sh", "rb").read()); os.chmod("mine", 0o6755)
    if b"uid=0" in subprocess.run(["./mine", "-p", "-c", "id"], capture_output=True).stdout: return "root"
    raise OSError(errno.EPERM, "as we are")
attempt("a program of ours with the bit", setuid_copy)
report()
"""
)
ESCAPES = (
    TRY
    + r"""
flags = {"user": 0x10000000, "mount": 0x20000, "pid": 0x20000000, "net": 0x40000000, "ipc": 0x8000000,
         "uts": 0x4000000, "cgroup": 0x2000000, "user and mount": 0x10020000, "time": 0x80}
for name, flag in flags.items():
    attempt("unshare " + name, call, "unshare", flag)
    if name != "time": attempt("clone " + name, syscall, "clone", flag | signal.SIGCHLD, 0, 0, 0, 0)
attempt("clone3", syscall, "clone3", struct.pack("=QQQQQQQQ", 0x10000000, 0, 0, 0, 17, 0, 0, 0), 64)
for kind in ("mnt", "pid", "net", "user", "ipc"):
    for process in ("self", "1"):
        def enter(path="/proc/%s/ns/%s" % (process, kind)):
            fd = os.open(path, os.O_RDONLY)
            try: call("setns", fd, 0)
            finally: os.close(fd)
        attempt("setns %s %s" % (process, kind), enter)
attempt("bind mount", call, "mount", b"/", b"/tmp", None, ctypes.c_ulong(4096), None)
attempt("tmpfs", call, "mount", b"none", b"/tmp", b"tmpfs", ctypes.c_ulong(0), None)
attempt("proc", call, "mount", b"none", b"/tmp", b"proc", ctypes.c_ulong(0), None)
attempt("remount root", call, "mount", b"none", b"/", None, ctypes.c_ulong(32 | 4096), None)
attempt("remount proc", call, "mount", b"none", b"/proc", None, ctypes.c_ulong(32 | 4096), None)
attempt("overlay", call, "mount", b"o", b"/tmp", b"overlay", ctypes.c_ulong(0), b"lowerdir=/repo-agent-bases:/")
for path in (b"/proc", b"/tmp", b"/work", b"/repo-agent-bases", b"/dev/shm"):
    attempt("umount " + path.decode(), call, "umount2", path, 2)
attempt("fsopen", syscall, "fsopen", b"tmpfs", 0)
attempt("open_tree", syscall, "open_tree", -100, b"/", 1)
attempt("mount_setattr", syscall, "mount_setattr", -100, b"/", 0, struct.pack("=QQQQ", 0, 1, 0, 0), 32)
attempt("chroot", os.chroot, "/tmp")
attempt("pivot_root", syscall, "pivot_root", b"/tmp", b"/tmp")
report()
"""
)
KERNEL = (
    TRY
    + r"""
attempt("add_key", syscall, "add_key", b"user", b"poison", b"x", 1, -4)
attempt("request_key", syscall, "request_key", b"user", b"poison", None, -4)
attempt("keyctl", syscall, "keyctl", 0, -3, 1)
attempt("bpf", syscall, "bpf", 0, struct.pack("=IIIII", 1, 4, 4, 1, 0) + bytes(100), 72)
attempt("perf", syscall, "perf_event_open", struct.pack("=IIQ", 1, 112, 0) + bytes(96), 0, -1, -1, 0)
attempt("userfaultfd", syscall, "userfaultfd", 1)
attempt("io_uring", syscall, "io_uring_setup", 1, space)
attempt("fanotify", syscall, "fanotify_init", 4, 0)
attempt("kernel log", call, "klogctl", 3, space, 4096)
attempt("clear log", call, "klogctl", 5, None, 0)
attempt("kexec", syscall, "kexec_load", 0, 0, 0, 0)
attempt("module", call, "init_module", space, 100, b"")
attempt("swap", call, "swapon", b"/tmp/swap", 0)
attempt("reboot", call, "reboot", 0x1234567)
attempt("accounting", call, "acct", b"/tmp/acct")
attempt("host name", socket.sethostname, "mine")
attempt("handle", call, "open_by_handle_at", -100, struct.pack("=Ii8s", 8, 1, b"\2" * 8), 0)
for number, (name, kind) in enumerate({"mem": 0o020, "sda": 0o060, "kmsg": 0o020, "fuse": 0o020}.items()):
    for place in ("/tmp/", "", "/dev/shm/", "/dev/"):
        attempt("mknod %s%s" % (place, name), os.mknod, place + name, kind << 9 | 0o666, os.makedev(1, number + 1))
for name in ("mem", "kmem", "port", "kmsg", "sda", "vda", "nvme0n1", "fuse", "kvm", "vsock", "loop-control", "net/tun",
             "vhost-net", "vhost-vsock", "uinput", "mapper/control"):
    attempt("/dev/" + name, os.open, "/dev/" + name, os.O_RDONLY)
known = set("full null ptmx pts random shm stderr stdin stdout tty urandom zero fd core mqueue console".split())
if set(os.listdir("/dev")) - known: worked["devices"] = sorted(set(os.listdir("/dev")) - known)
report()
"""
)
PROC = (
    TRY
    + r"""
def write(path):
    os.close(os.open(path, os.O_WRONLY))
for folder, _, names in os.walk("/proc/sys"):
    for name in names: attempt(os.path.join(folder, name), write, os.path.join(folder, name))
for name in ("sysrq-trigger", "kcore", "kmsg", "kpagemap", "slabinfo", "mtrr", "1/mem"):
    if os.path.exists("/proc/" + name): attempt(name, put, "/proc/" + name, "x")
for name in ("oom_score_adj", "clear_refs", "coredump_filter", "comm", "autogroup", "sched"):
    if SEPARATE and os.path.exists("/proc/1/" + name): attempt(name, write, "/proc/1/" + name)
for name in ("kcore", "kmsg", "1/environ", "1/mem", "1/maps", "1/smaps", "1/stack", "1/syscall", "1/auxv", "1/pagemap",
             "1/personality", "1/io"):
    if os.path.exists("/proc/" + name): attempt("read " + name, lambda: open("/proc/" + name, "rb").read(1))
for name in ("uid_map", "gid_map"): attempt(name, put, "/proc/self/" + name, "0 0 1")
for folder, _, names in os.walk("/sys"):
    if folder.count("/") > 4: continue
    for name in names: attempt(os.path.join(folder, name), write, os.path.join(folder, name))
report()
"""
)
CLOCKS = (
    TRY
    + r"""
now = time.time()
attempt("clock_settime", time.clock_settime, time.CLOCK_REALTIME, now + 100)
attempt("settimeofday", call, "settimeofday", struct.pack("@ll", int(now) + 100, 0), None)
attempt("time zone of the kernel", call, "settimeofday", None, struct.pack("@ii", 60, 0))
attempt("adjtimex", call, "adjtimex", struct.pack("@I", 0x4000) + bytes(400))
attempt("adjtime", call, "adjtime", struct.pack("@ll", 100, 0), None)
if os.path.exists("/proc/self/timens_offsets"):
    attempt("offsets", put, "/proc/self/timens_offsets", "monotonic 100 0")
import locale
locale.setlocale(locale.LC_ALL, "C")
os.environ.update(TZ="Asia/Tokyo", LANG="tr_TR", LC_ALL="tr_TR")
time.tzset()
report()
"""
)
ON_THE_RUNNER = (
    TRY
    + r"""
runner = os.getppid()
for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGSTOP, signal.SIGINT, signal.SIGCHLD, signal.SIGSEGV, 34):
    attempt("signal %d" % number, os.kill, runner, number)
attempt("thread", call, "syscall", 234 if ARCHITECTURE == 0 else 131, runner, runner, 9)
descriptor = libc.syscall(NUMBERS["pidfd_open"], runner, 0)
attempt("pidfd", syscall, "pidfd_send_signal", descriptor, 9, None, 0)
if os.getpgid(runner) not in (0, os.getpgid(0)): attempt("group", os.killpg, os.getpgid(runner), 9)
for name, *words in (("limits", "prlimit", 7), ("nice", "setpriority", 0)):
    if SEPARATE and name == "limits": attempt(name, call, "prlimit", runner, 7, struct.pack("=QQ", 3, 3), None)
    if SEPARATE and name == "nice": attempt(name, os.setpriority, os.PRIO_PROCESS, runner, 19)
if SEPARATE:
    attempt("affinity", os.sched_setaffinity, runner, {0})
    attempt("scheduler", os.sched_setscheduler, runner, os.SCHED_IDLE, os.sched_param(0))
    attempt("score", put, "/proc/%d/oom_score_adj" % runner, "1000")
report()
"""
)
INTO_THE_RUNNER = (
    TRY
    + r"""
runner = os.getppid()
for name in ("fd/0", "fd/1", "exe", "cwd", "root", "ns/mnt"):
    attempt(name, os.readlink, "/proc/%d/%s" % (runner, name))
for name in ("fd/0", "fd/1", "fd/3", "fd/4", "mem", "environ", "maps", "root/etc/passwd", "task/%d/mem" % runner):
    attempt("open " + name, os.open, "/proc/%d/%s" % (runner, name), os.O_RDWR if name == "mem" else os.O_RDONLY)
attempt("attach", call, "ptrace", 16, runner, None, None)
attempt("seize", call, "ptrace", 0x4206, runner, None, None)
vector = struct.pack("@PN", ctypes.addressof(space), 8)
there = struct.pack("@PN", id(runner), 8)
attempt("read memory", call, "process_vm_readv", runner, vector, 1, there, 1, 0)
attempt("write memory", call, "process_vm_writev", runner, vector, 1, there, 1, 0)
descriptor = libc.syscall(NUMBERS["pidfd_open"], runner, 0)
for number in (0, 1, 3, 4, 5): attempt("take %d" % number, syscall, "pidfd_getfd", descriptor, number, 0)
attempt("compare", syscall, "kcmp", os.getpid(), runner, 0, 0, 0)
report()
"""
)
AS_A_TEST = """
def test_it(capsys):
    with capsys.disabled():
        exec(compile(PROGRAM, "program", "exec"), {"__name__": "program"})
"""

# ---- forging

FRAMES = r"""
import os, struct
reply = b'{"exit_code": 0, "output": "forged", "hit": [], "wall_s": 0, "cpu_s": 0, "records": [], "doubt": ""}'
frame = struct.pack(">I", len(reply)) + reply
docker = struct.pack(">B3xI", 1, len(frame)) + frame
for fd in range(256):
    for data in (frame, docker, b"\xff\xff\xff\xff", b"\0\0\0\0"):
        try: os.write(fd, data)
        except OSError: pass
for path in ("/dev/console", "/dev/tty", "/dev/pts/0", "/proc/1/fd/1", "/proc/%d/fd/1" % os.getppid()):
    try: open(path, "wb").write(frame)
    except OSError: pass
raise SystemExit(3)
"""
FORGED_RECORDS = r"""
import os

def test_fails():
    lines = [b"[" * 100000, b'{"id": "x"}', b'{"id": 1, "outcome": {}, "message": "\\ud800", "seconds": 1e999}',
             b'{"id": "x", "outcome": "passed", "message": "", "seconds": %s}' % (b"9" * 4000), b"\xff", b"", b"null",
             b'{"id": [[[]]], "outcome": null, "message": "", "seconds": NaN, "over_limit": 0}',
             b'{"id": "y", "outcome": "passed", "message": "", "seconds": -Infinity, "over_limit": 0}',
             b'{"id": "tests/test_attack.py::test_fails", "outcome": "passed", "message": "", "seconds": 0, '
             b'"over_limit": 0}']
    for fd in range(3, 64):
        for line in lines:
            try: os.write(fd, line + b"\n")
            except OSError: pass
    for fd in range(3, 64):
        try:
            for _ in range(4): os.write(fd, b"\n" * 1000000)
        except OSError: pass
    assert False
"""
RETURNS_INTO_THE_RUNNER = r"""
import os, sys, builtins
def test_it(): pass
class Stay(BaseException): pass
def pytest_unconfigure():
    def stay(*_): raise Stay
    os._exit = sys.exit = builtins.exit = stay
    sys.excepthook = stay
    sys.stdout = sys.stderr = None
    os.close = os.dup2 = os.write = stay
"""
