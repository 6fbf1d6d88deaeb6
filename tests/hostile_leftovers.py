"""Programs that leave something for the next run in the same sandbox. They run inside one, so they are text."""

from __future__ import annotations

from tests.hostile_trying import TRY

VANDAL = (
    TRY
    + r"""
import fcntl
def tried(function, *args):  # what works is no matter here
    try: return function(*args)
    except OSError: pass
def overwritten(path, mode="w"):
    with open(path, mode) as file: file.write("overwritten")
for path in ("tests/test_ground.py", "pkg/value.py", "run.sh", "link", "pkg/deep/data.txt"):
    tried(os.link, path, "hard-" + os.path.basename(path))
    tried(os.link, path, "/tmp/hard")
    tried(os.chmod, path, 0o666)
    tried(os.chown, path, os.getuid(), -1)
    tried(os.utime, path, (1, 1))
    tried(os.setxattr, path, "user.left", b"x")
    tried(overwritten, path)
    tried(os.truncate, path, 0)
    tried(os.rename, path, path + ".moved")
    tried(os.remove, path)
    tried(os.symlink, "/etc/passwd", path)
for path in ("pkg", "tests", "pkg/deep", "."):
    tried(os.chmod, path, 0o700)
    tried(os.utime, path, (1, 1))
    tried(os.setxattr, path, "user.left", b"x")
    tried(os.setxattr, path, "security.left", b"x")
    tried(os.rename, path, path + "-moved")
    tried(os.rmdir, path)
os.makedirs("over/pkg")
overwritten("over/pkg/value.py")
tried(libc.renameat2, -100, b"over/pkg", -100, b"pkg", 2)  # exchange them
tried(os.rename, "over/pkg", "pkg")
tried(os.rename, "over", "tests")
tried(os.rename, "over/pkg/value.py", "pkg/value.py")
for target, name in (("/etc/passwd", "to-passwd"), ("/repo-agent-bases", "to-bases"), ("/tmp", "pkg/to-tmp"),
                     (".", "loop"), ("nowhere", "dangling"), ("/", "root"), ("../..", "pkg/up")):
    tried(os.symlink, target, name)
tried(overwritten, "to-passwd", "a")
for name in ("pipe", "pkg/pipe", "/tmp/pipe", "/dev/shm/pipe"): tried(os.mkfifo, name)
tried(os.mknod, "node", 0o100644)
tried(socket.socket(socket.AF_UNIX).bind, "socket")
for name in (b"\xff\xfe odd \n name", b"-rf", b" ", b"*", b"\x1b[2J", b"x" * 255, "\u202e".encode(), b"0", b"3"):
    tried(overwritten, name)
for folder in ("new/read-only/inner", "sticky/folder", "1/2", "2/1/0"):
    os.makedirs(folder)
    overwritten(folder + "/file")
lock = os.open("pkg/value.py", os.O_RDONLY)
tried(fcntl.flock, lock, fcntl.LOCK_EX)
tried(fcntl.fcntl, lock, 1024, fcntl.F_RDLCK)  # a lease
with open("sparse", "wb") as file: tried(file.truncate, 2 ** 24)
for flag in (0x10, 0x20, 0x40):  # immutable, append only, no dump
    fd = os.open("sticky", os.O_RDONLY)
    tried(fcntl.ioctl, fd, 0x40086602, struct.pack("@l", flag))
    os.close(fd)
top = os.getcwd()
for place in (top, "/tmp", "/dev/shm"):
    os.chdir(place)
    for depth in range(int(sys.argv[1])):
        os.mkdir("nested-" + "x" * 40)
        os.chdir("nested-" + "x" * 40)
os.chdir(top)
NOTHING = struct.pack("<IHHIHHIHHI", 2, 1, 0, 0xFFFFFFFF, 4, 0, 0xFFFFFFFF, 32, 0, 0xFFFFFFFF)
for path in ("sticky", ".", "/tmp", "/dev/shm"):
    tried(os.setxattr, path, "system.posix_acl_default", NOTHING)  # what is made there later would inherit it
    tried(os.setxattr, path, "user.left", b"x")
for path in ("new/read-only/inner", "new/read-only", "new"): os.chmod(path, 0)
os.chmod("sticky", 0o1000)
tried(os.chmod, ".", 0)
"""
)
WRITE_OUTSIDE = r"""
import os
for folder, folders, _ in os.walk("/"):
    if folder.startswith("/proc/"): folders[:] = []
    else:
        try: open(folder + "/left-by-a-run", "w").close()
        except OSError: continue
        print(folder)
"""
FIND_LEFT = r"find / \( -path /proc -o -path /sys \) -prune -o -name '*left-by-a-run*' -print 2>/dev/null; true"
POISON = (
    TRY
    + r"""
import importlib.util, marshal, site, sysconfig
EVIL = "raise SystemExit('poisoned')\n"
def poison(path, content=EVIL):
    try:
        os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
        with open(path, "wb") as file: file.write(content if isinstance(content, bytes) else content.encode())
    except OSError: pass
def poison_compiled(source):
    code = marshal.dumps(compile("VALUE = 'poisoned'\n", source, "exec"))
    stamp = struct.pack("<III", 0, int(os.stat(source).st_mtime), os.stat(source).st_size)
    poison(importlib.util.cache_from_source(source), importlib.util.MAGIC_NUMBER + stamp + code)
places = "/usr/lib/python3/dist-packages /usr/local/lib /tmp /dev/shm /var/tmp /run/lock /run /work /guest-site"
places = places.split() + [site.getusersitepackages(), sysconfig.get_paths()["purelib"], "/repo-agent-shipped", "/etc"]
for place in places:
    for name in ("usercustomize", "sitecustomize", "pytest", "json", "conftest", "pkg", "random"):
        poison("%s/%s.py" % (place, name))
    poison(place + "/left.pth", "import os; " + EVIL)
for name in (".bashrc", ".profile", ".pdbrc", ".config/pip/pip.conf", ".pythonrc.py", ".netrc", ".gitconfig"):
    poison(os.environ["HOME"] + "/" + name)
for name in ("pytest.ini", "tox.ini", "setup.cfg"):
    poison(name, "[pytest]\naddopts = --collect-only\n[tool:pytest]\naddopts = --collect-only\n")
for name in ("conftest", "tests/conftest", "pkg/conftest", "sitecustomize", "usercustomize", "tests/pkg", "random"):
    poison(name + ".py")
poison(".pytest_cache/v/cache/lastfailed", '{"tests/test_ground.py::test_value": true}')
poison_compiled("pkg/value.py")
poison_compiled("tests/test_ground.py")
for name in ("/dev/shm/sem.left", "/dev/shm/left", "/dev/mqueue/left", "/tmp/left"): poison(name)
if libc.mq_open(b"/left", os.O_CREAT | os.O_RDWR, 0o666, None) != -1: worked["message queue"] = "/left"
for make in (lambda: libc.shmget(4711, 4096, 0o1666), lambda: libc.semget(4711, 1, 0o1666),
             lambda: libc.msgget(4711, 0o1666)):
    make()
os.environ["PYTHONSTARTUP"] = "/tmp/usercustomize.py"
os.umask(0o777)
os.nice(19)
os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
os.sched_setaffinity(0, {0})
signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 32))
libc.personality(0x0040000)
report()
"""
)
POISON_PROCESS = r"""
import atexit, builtins, os, random, signal, socket, sys, threading
import _pytest.runner
def test_it():
    builtins.len = builtins.isinstance = lambda *_: 1
sys.modules["pkg.value"] = type(sys)("pkg.value")
sys.path.insert(0, "/tmp")
sys.path_importer_cache["/work"] = None
sys.setrecursionlimit(100)
socket.setdefaulttimeout(0.001)
signal.signal(signal.SIGTERM, signal.SIG_IGN)
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1, signal.SIGALRM, signal.SIGPROF})
signal.setitimer(signal.ITIMER_REAL, 1000)
random.seed(5)
atexit.register(os._exit, 9)
os.umask(0)
os.environ.clear()
_pytest.runner.runtestprotocol = None
threading.Thread(target=threading.Event().wait, daemon=True).start()
"""
