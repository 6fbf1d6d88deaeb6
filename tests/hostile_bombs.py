"""Programs that take all there is, or do not end. They run inside a sandbox, so they are text."""

from __future__ import annotations

from tests.hostile_trying import TRY

# ---- taking all there is

FORK_BOMB = """
import os
while True:
    try: os.fork()
    except OSError: pass
"""
THREAD_BOMB = """
import threading, time
while True:
    try: threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()
    except RuntimeError: pass
"""
MEMORY_BOMB = "blocks = []\nwhile True: blocks.append(bytearray(b'x' * 10_000_000))\n"
MANY_MEMORY_BOMBS = """
import os, time
for _ in range(20):
    if os.fork() == 0:
        block = bytearray(b'x' * 20_000_000)
        time.sleep(1000)
while True: os.wait()
"""
UNOWNED_MEMORY = r"""
import os
def hide():
    try: open("/proc/self/oom_score_adj", "w").write("0")
    except OSError: pass
hide()
fds = [os.memfd_create("x", 0) for _ in range(30)]
fill = "(echo 0 > /proc/self/oom_score_adj) 2>/dev/null; "
fill += "for i in %s; do dd if=/dev/zero of=/proc/self/fd/$i bs=64k count=900 2>/dev/null & done; wait"
os.execvp("sh", ["sh", "-c", fill % " ".join(str(fd) for fd in fds if not os.set_inheritable(fd, True))])
"""
SHARED_MEMORY_HOG = (
    TRY
    + r"""
libc.shmat.restype, libc.shmat.argtypes = ctypes.c_void_p, [ctypes.c_int, ctypes.c_void_p, ctypes.c_int]
count = 0
while True:
    number = libc.shmget(0, 1 << 20, 0o1666)
    if number == -1: break
    ctypes.memset(libc.shmat(number, None, 0), 1, 1 << 20)
    count += 1
while libc.semget(0, 250, 0o1666) != -1: count += 1
while True:
    queue = libc.msgget(0, 0o1666)
    if queue == -1: break
    while libc.msgsnd(queue, struct.pack("@l", 1) + b"x" * 4000, 4000, 0o4000) != -1: pass
"""
)
DISK_FILLER = """
import os, sys
number = 0
try:
    while True:
        with open("%s/filler%d" % (sys.argv[1], number), "wb") as file:
            number += 1
            while file.tell() < 2 ** 24: file.write(b"x" * 65536)
except OSError as error: print(error.strerror)
"""
NAME_FILLER = """
import os, sys
os.makedirs(sys.argv[1] + "/names"); os.chdir(sys.argv[1] + "/names")
number = 0
try:
    while True:
        os.close(os.open("x" * 200 + str(number), os.O_CREAT | os.O_WRONLY))
        number += 1
except OSError as error: print(error.strerror)
"""
DESCRIPTOR_LEAK = """
import os
kept = []
try:
    while True: kept += os.pipe()
except OSError as error: print(error.strerror, len(kept) <= 4096)
"""
ENDLESS_RECORDS = """
import os
def test_it():
    line = b'{"id": "x", "outcome": "passed", "message": "%s", "seconds": 0, "over_limit": false}\\n' % (b"y" * 50000)
    while True:
        for fd in range(3, 64):
            try: os.write(fd, line)
            except OSError: pass
"""

RECORDS_BESIDE_A_FULL_DISK = """
import os
def test_it():
    for place in (".", "/tmp", "/dev/shm"):
        try:
            for number in range(10000):
                with open("%s/%d" % (place, number), "wb") as file: file.write(b"x" * 2 ** 20)
        except OSError: pass
    line = b'{"id": "%s", "outcome": "passed", "message": "", "seconds": 0, "over_limit": 0}\\n' % (b"\\xff" * 65000)
    for fd in range(3, 64):
        data = line * 140
        try:
            while data: data = data[os.write(fd, data):]
        except OSError: pass
"""

# ---- not ending

IGNORES_SIGNALS = """
import signal, time
for number in range(1, 65):
    try: signal.signal(number, signal.SIG_IGN)
    except (OSError, ValueError): pass
print("ready", flush=True)
%s
"""
HELD_BY_ITS_TRACER = """
import ctypes, os, time
libc = ctypes.CDLL(None, use_errno=True)
libc.prctl(0x59616d61, -1, 0, 0, 0)
main = os.getpid()
ready_r, ready_w = os.pipe()
if os.fork() == 0:
    os.setsid()
    os.write(ready_w, b"y" if libc.ptrace(0x4206, main, None, None) == 0 else b"n")
    while True: time.sleep(1000)
print(os.read(ready_r, 1).decode(), flush=True)
os._exit(0)
"""
BUSY_CHILDREN = "import os\nfor _ in range(4): os.fork()\nprint('x', flush=True)\nwhile True: pass\n"
SURVIVORS = (
    TRY
    + r"""
def live():
    while True: time.sleep(1000)
def daemon(prepare=lambda: None):
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.setsid()
            prepare()
            os.write(ready_w, b"x")
            live()
        os._exit(0)
def deaf():
    for number in set(range(1, 32)) - {signal.SIGKILL, signal.SIGSTOP}: signal.signal(number, signal.SIG_IGN)
def reaping(): libc.prctl(36, 1, 0, 0, 0); daemon()
def listening():
    kept.append(socket.create_server(("127.0.0.1", 8766)))
    kept.append(socket.socket(socket.AF_UNIX)); kept[-1].bind("\0left-by-a-run"); kept[-1].listen()
    kept.append(socket.socket(socket.AF_UNIX)); kept[-1].bind("left.sock"); kept[-1].listen()
def stopped(): os.write(ready_w, b"x"); os.kill(os.getpid(), signal.SIGSTOP)
def named(): libc.prctl(15, b"python3 (sd-pam)"); os.execvp("sleep", ["sleep", "1000"]) if os.fork() == 0 else None
kept = []
ready_r, ready_w = os.pipe()
for prepare in (lambda: None, deaf, reaping, listening, stopped, named): daemon(prepare)
if libc.syscall(NUMBERS["clone"], 0x8000 | signal.SIGCHLD, 0, 0, 0, 0) == 0:  # CLONE_PARENT: a child of the runner's
    os.write(ready_w, b"x")
    live()
got = b""
while len(got) < 8: got += os.read(ready_r, 100)
print(len(got))
"""
)
LOOPBACK_SERVER = """
import socket
with socket.socket() as server:
    server.bind(("127.0.0.1", 8767))
    server.listen()
    with socket.create_connection(("127.0.0.1", 8767)):
        server.accept()[0].close()
print("served")
"""
