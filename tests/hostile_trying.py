"""What hostile programs share: they try several things, and write as JSON what worked and why the others did not."""

from __future__ import annotations

TRY = r"""
import ctypes, errno, glob, json, os, platform, signal, socket, struct, sys, time
libc = ctypes.CDLL(None, use_errno=True)
worked, refused = {}, {}
def attempt(name, function, *args):
    try: worked[name] = repr(function(*args))[:200]
    except OSError as error: refused[name] = errno.errorcode.get(error.errno, str(error))
def call(name, *args):
    ctypes.set_errno(0)
    if getattr(libc, name)(*args) == -1: raise OSError(ctypes.get_errno(), name)
def syscall(name, *args):
    ctypes.set_errno(0)
    if libc.syscall(NUMBERS[name], *args) == -1: raise OSError(ctypes.get_errno(), name)
def put(path, text):
    fd = os.open(path, os.O_WRONLY)
    try: return os.write(fd, text.encode())
    finally: os.close(fd)
def report():
    print(json.dumps({"worked": worked, "refused": refused}))
ARCHITECTURE = 0 if platform.machine() == "x86_64" else 1
NUMBERS = {
    "pivot_root": (155, 41), "keyctl": (250, 219), "add_key": (248, 217), "request_key": (249, 218),
    "bpf": (321, 280), "perf_event_open": (298, 241), "userfaultfd": (323, 282), "kexec_load": (246, 104),
    "clone": (56, 220), "seccomp": (317, 277), "kcmp": (312, 272), "fanotify_init": (300, 262),
}
NUMBERS = {name: both[ARCHITECTURE] for name, both in NUMBERS.items()}
NUMBERS.update(pidfd_send_signal=424, io_uring_setup=425, open_tree=428, fsopen=430, pidfd_open=434, pidfd_getfd=438,
               clone3=435, mount_setattr=442)
space = ctypes.create_string_buffer(4096)
"""
