"""The inside of `imprint.isolation`: builds the jail and runs the program from standard input in it.

Run by path with `python -I -S`, so it imports the standard library only. Arguments: "MEMORY SCRATCH PROCESSES CPU".
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys

NEWNS, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET = 0x20000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000
RDONLY, NOSUID, NODEV, NOEXEC, REMOUNT, BIND, REC, PRIVATE = 1, 2, 4, 8, 32, 4096, 16384, 1 << 18
NOATIME, NODIRATIME, RELATIME = 1024, 2048, 1 << 21
KEPT = {2: NOSUID, 4: NODEV, 8: NOEXEC, 1024: NOATIME, 2048: NODIRATIME, 4096: RELATIME}  # statvfs flag -> mount flag
DETACH = 2
PDEATHSIG, CAPBSET_DROP, NO_NEW_PRIVS = 1, 24, 38
PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
NOBODY = 65534

libc = ctypes.CDLL(None, use_errno=True)


def call(name: str, *arguments: object) -> None:
    """A C function that returns 0 for success."""
    given = [a.encode() if isinstance(a, str) else a for a in arguments]
    given = [ctypes.c_ulong(a) if isinstance(a, int) else a for a in given]
    if getattr(libc, name)(*given) != 0:
        raise OSError(ctypes.get_errno(), f"{name}{arguments}: {os.strerror(ctypes.get_errno())}")


def write(path: str, text: str) -> None:
    with open(path, "w") as file:
        file.write(text)


def own_namespaces() -> bool:
    """Become root of new namespaces. Says whether there is a second user in them, nobody, that the program can become;
    only the machine's root may have one, and only it needs one: the limit of processes does not hold for it, and files
    that belong to it are within reach."""
    spaces = NEWUSER | NEWNS | NEWPID | NEWNET | NEWIPC | NEWUTS
    uid, gid, me = os.getuid(), os.getgid(), os.getpid()
    if uid != 0:
        call("unshare", spaces)
        write("/proc/self/setgroups", "deny")
        write("/proc/self/uid_map", f"0 {uid} 1")
        write("/proc/self/gid_map", f"0 {gid} 1")
        return False
    wait, go = os.pipe()
    helper = os.fork()  # stays outside, where it may map two users
    if helper == 0:
        os.close(go)
        os.read(wait, 1)
        try:
            for kind in ("uid", "gid"):
                write(f"/proc/{me}/{kind}_map", f"0 0 1\n1 {NOBODY} 1\n")
        except OSError:
            os._exit(1)
        os._exit(0)
    call("unshare", spaces)
    os.write(go, b"x")
    os.close(go)
    os.close(wait)
    if os.waitpid(helper, 0)[1] != 0:
        raise OSError("the users of the namespace cannot be mapped")
    return True


def own_root(scratch: int) -> None:
    """A root in memory that holds Python and the system's libraries, read-only, and /tmp."""
    call("mount", "none", "/", None, REC | PRIVATE, None)
    call("mount", "jail", "/tmp", "tmpfs", NOSUID | NODEV, f"size={scratch},mode=755")
    os.chdir("/tmp")
    shown = ["/usr", "/lib", "/lib64", "/bin"]
    shown += [p for p in (sys.base_prefix, os.path.dirname(sys.executable)) if not p.startswith("/usr")]
    for path in dict.fromkeys(shown):
        if os.path.islink(path):
            os.symlink(os.readlink(path), "." + path)
        elif os.path.isdir(path):
            os.makedirs("." + path, exist_ok=True)
            call("mount", path, "." + path, None, BIND | REC, None)
            flags = os.statvfs(path).f_flag
            kept = sum(flag for shown_as, flag in KEPT.items() if flags & shown_as)
            call("mount", "none", "." + path, None, REMOUNT | BIND | RDONLY | NOSUID | kept, None)
    os.makedirs("./dev")
    for device in ("null", "zero", "urandom"):
        write(f"./dev/{device}", "")
        call("mount", f"/dev/{device}", f"./dev/{device}", None, BIND, None)
    os.makedirs("./tmp")
    os.chmod("./tmp", 0o1777)
    os.makedirs("./old")
    number = PIVOT_ROOT[os.uname().machine]
    if libc.syscall(number, b".", b"./old") != 0:
        raise OSError(ctypes.get_errno(), f"pivot_root: {os.strerror(ctypes.get_errno())}")
    os.chdir("/")
    call("umount2", "/old", DETACH)
    os.rmdir("/old")
    os.chdir("/tmp")


def no_powers(memory: int, processes: int, cpu: int, scratch: int, nobody: bool) -> None:
    """Take on the limits, and give up every capability."""
    for capability in range(64):
        if libc.prctl(CAPBSET_DROP, capability, 0, 0, 0) != 0:
            break
    libc.prctl(NO_NEW_PRIVS, 1, 0, 0, 0)
    for what, limit in (
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_CPU, cpu),
        (resource.RLIMIT_NPROC, processes),
        (resource.RLIMIT_FSIZE, scratch),
        (resource.RLIMIT_NOFILE, 64),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(what, (limit, limit))
    if nobody:
        os.setgroups([])
        os.setresgid(1, 1, 1)
        os.setresuid(1, 1, 1)
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    call("capset", header, (ctypes.c_uint32 * 6)())


def main() -> None:
    memory, scratch, processes, cpu = map(int, sys.argv[1].split())
    libc.prctl(PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    nobody = own_namespaces()
    init = os.fork()  # the first process of the new process namespace: when it ends, so does all in it
    if init:
        _, status = os.waitpid(init, 0)
        os._exit(os.waitstatus_to_exitcode(status) & 0xFF)
    libc.prctl(PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    own_root(scratch)
    program = os.fork()
    if program:
        while True:  # whatever the program leaves behind is ours to bury
            child, status = os.wait()
            if child == program:
                os._exit(os.waitstatus_to_exitcode(status) & 0xFF)
    os.setsid()
    no_powers(memory, processes, cpu, scratch, nobody)
    os.write(1, b"jailed\n")
    os.execve(sys.executable, [sys.executable, "-I", "-S", "-B", "-"], {"HOME": "/tmp", "PYTHONHASHSEED": "0"})


if __name__ == "__main__":
    try:
        main()
    except OSError as error:
        print(error, flush=True)
        os._exit(1)
