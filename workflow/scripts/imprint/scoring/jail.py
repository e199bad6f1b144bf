"""The program of `imprint.scoring.isolation` that builds the jail and runs Python in it.

It is run by path with `python -I -S`, so it imports only the standard library. Its argument is a `Plan` as a JSON list.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import re
import resource
import signal
import struct
import sys
from functools import cache
from typing import NamedTuple

NEWNS, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET = 0x20000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000
NEW_SPACES = NEWNS | NEWUTS | NEWIPC | NEWUSER | NEWPID | NEWNET | 0x02000000  # the last: control groups
RDONLY, NOSUID, NODEV, NOEXEC, REMOUNT, BIND, REC, PRIVATE = 1, 2, 4, 8, 32, 4096, 16384, 1 << 18
KEPT = {"nosuid": NOSUID, "nodev": NODEV, "noexec": NOEXEC, "noatime": 1024, "nodiratime": 2048, "relatime": 1 << 21}
"""Options of a mount that an unprivileged user must keep in a remount."""
DETACH = 2
PDEATHSIG, SET_SECCOMP, CAPBSET_DROP, NO_NEW_PRIVS = 1, 22, 24, 38
NOBODY = 65534
BUILD_AT = "/sys"  # where the new root is built; the mount hides /sys, which holds neither Python nor a project
THREADS = 16
INODES = 4096  # files and folders in the scratch folder; no other limit holds for the kernel's memory of them
FLAGS = ("-s", "-S", "-B", "-P")  # no site packages, no user folder, no bytecode files, no working folder
ENVIRONMENT = {"HOME": "/tmp", "PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}

libc = ctypes.CDLL(None, use_errno=True)


class Plan(NamedTuple):
    """What a jail allows: bytes of address space of a process (`memory`), bytes of the `scratch` folder, CPU seconds of
    the program (`cpu`; 0: no limit, the program limits its children), whether it may start `processes`, the folders
    that are `readable` beside Python's own, and Python's `arguments`."""

    memory: int
    scratch: int
    cpu: int
    processes: bool
    readable: list[str]
    arguments: list[str]


# System call -> its numbers on x86_64 and aarch64 (None: it has none). From 424 on, both machines share the numbers.
Calls = dict[str, tuple[int | None, int | None]]
REFUSED: Calls = {
    # Memory and messages that belong to no process: a process's limits do not hold for them.
    "shmget": (29, 194), "shmat": (30, 196), "shmctl": (31, 195), "semget": (64, 190), "semop": (65, 193),
    "semctl": (66, 191), "semtimedop": (220, 192), "msgget": (68, 186), "msgsnd": (69, 189), "msgrcv": (70, 188),
    "msgctl": (71, 187), "mq_open": (240, 180), "memfd_create": (319, 279), "io_setup": (206, 0),
    # Keyrings: the user has the same ones inside and outside.
    "add_key": (248, 217), "request_key": (249, 218), "keyctl": (250, 219),
    # Sockets of every family: network namespaces do not contain some of them (VSOCK).
    "socket": (41, 198),
    # Namespaces, mounts, and other calls that administer or inspect a system.
    "unshare": (272, 97), "setns": (308, 268), "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41),
    "chroot": (161, 51), "bpf": (321, 280), "perf_event_open": (298, 241), "userfaultfd": (323, 282),
    "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "kcmp": (312, 272),
    "name_to_handle_at": (303, 264), "open_by_handle_at": (304, 265), "personality": (135, 92),
    "fanotify_init": (300, 262), "quotactl": (179, 60), "syslog": (103, 116), "acct": (163, 89), "reboot": (169, 142),
    "swapon": (167, 224), "swapoff": (168, 225), "init_module": (175, 105), "finit_module": (313, 273),
    "delete_module": (176, 106), "kexec_load": (246, 104), "kexec_file_load": (320, 294),
}  # fmt: skip
ALONE: Calls = {
    # Processes, and signals to them. Threads need `clone`, whose flags the filter inspects.
    "fork": (57, None), "vfork": (58, None), "kill": (62, 129), "tkill": (200, 130), "tgkill": (234, 131),
    "rt_sigqueueinfo": (129, 138), "rt_tgsigqueueinfo": (297, 240),
    # Settings of other processes.
    "setpriority": (141, 140), "ioprio_set": (251, 30), "sched_setparam": (142, 118), "sched_setscheduler": (144, 119),
    "sched_setaffinity": (203, 122), "sched_setattr": (314, 274), "migrate_pages": (256, 238), "move_pages": (279, 239),
    # Permissions: a child must not open /tmp for writing again.
    "chmod": (90, None), "fchmod": (91, 52), "fchmodat": (268, 53), "setxattr": (188, 5), "lsetxattr": (189, 6),
    "fsetxattr": (190, 7), "removexattr": (197, 14), "lremovexattr": (198, 15), "fremovexattr": (199, 16),
}  # fmt: skip
CLONE, SOCKETPAIR, NEW_THREAD, LOCAL = (56, 220), (53, 199), 0x10000, 1
LIMITS, FCNTL, IOCTL = (302, 261), (72, 25), (16, 29)
# prlimit64 is allowed for this process only. fcntl and ioctl may not set leases, nor which process a file signals.
TO_OTHERS = {FCNTL: (8, 10, 15, 1024, 1026), IOCTL: (0x8901, 0x8902)}
NEWER = 424  # from this call on only NEWER_ALLOWED are allowed; others are io_uring, new mounts, pidfd, memfd_secret
NEWER_ALLOWED = {"close_range": 436, "openat2": 437, "faccessat2": 439, "epoll_pwait2": 441, "futex_waitv": 449}
MACHINES = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}  # (audit's code, column in Calls)
LOAD, EQUAL, AT_LEAST, ANY_BIT, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06  # instructions of the kernel's packet filter
ALLOW, REFUSE, END = 0x7FFF0000, 0x00050000, 0x80000000


@cache
def filters(alone: bool) -> bytes:
    """The seccomp program (`struct sock_filter`, 8 bytes a step) by which the kernel decides on every system call.
    `alone`: see `refuse_system_calls`."""
    machine, column = MACHINES[os.uname().machine]
    steps = [(LOAD, 0, 0, 4), (EQUAL, 1, 0, machine), (RETURN, 0, 0, END), (LOAD, 0, 0, 0)]

    def answer(number: int | None, value: int) -> None:
        if number is not None:
            steps.extend([(EQUAL, 0, 1, number), (RETURN, 0, 0, value)])

    for numbers in (REFUSED | ALONE if alone else REFUSED).values():
        answer(numbers[column], REFUSE | errno.EPERM)
    for number in NEWER_ALLOWED.values():
        answer(number, ALLOW)
    # This also refuses x86_64's second set of numbers, from 1 << 30 on. After ENOSYS, C libraries try older calls.
    steps.extend([(AT_LEAST, 0, 1, NEWER), (RETURN, 0, 0, REFUSE | errno.ENOSYS)])
    first_argument, refuse = (LOAD, 0, 0, 16), (RETURN, 0, 0, REFUSE | errno.EPERM)
    steps.extend([(EQUAL, 0, 4, SOCKETPAIR[column]), first_argument])
    steps.extend([(EQUAL, 0, 1, LOCAL), (RETURN, 0, 0, ALLOW), refuse])
    if alone:
        steps.extend([(EQUAL, 0, 4, LIMITS[column]), first_argument])
        steps.extend([(EQUAL, 0, 1, 0), (RETURN, 0, 0, ALLOW), refuse])
        for numbers, commands in TO_OTHERS.items():
            steps.extend([(EQUAL, 0, 2 * len(commands) + 1, numbers[column]), (LOAD, 0, 0, 24)])
            for command in commands:
                steps.extend([(EQUAL, 0, 1, command), refuse])
            steps.append((LOAD, 0, 0, 0))
        steps.extend([(EQUAL, 0, 4, CLONE[column]), first_argument])
        steps.extend([(ANY_BIT, 0, 1, NEW_THREAD), (RETURN, 0, 0, ALLOW), refuse])
    else:
        steps.extend([(EQUAL, 0, 3, CLONE[column]), first_argument, (ANY_BIT, 0, 1, NEW_SPACES), refuse])
    steps.append((RETURN, 0, 0, ALLOW))
    return b"".join(struct.pack("HBBI", *step) for step in steps)


def refuse_system_calls(alone: bool) -> None:
    """Refuse system calls to this process and all that it starts, from now on. `alone` also refuses to start processes
    and to send signals. Threads stay allowed, because they share the limits of their process."""
    code = ctypes.create_string_buffer(filters(alone))
    program = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(code) // 8, ctypes.addressof(code)))
    call("prctl", NO_NEW_PRIVS, 1, 0, 0, 0)
    call("prctl", SET_SECCOMP, 2, ctypes.addressof(program), 0, 0)


def limit(memory: int, cpu: int, scratch: int) -> None:
    """Set this process's limits; `Plan` explains the parameters. A lower limit that it has already stays."""
    limits = {
        resource.RLIMIT_AS: memory,
        resource.RLIMIT_FSIZE: scratch,
        resource.RLIMIT_NOFILE: 64,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_MSGQUEUE: 0,
        resource.RLIMIT_MEMLOCK: 0,
    }
    if cpu:  # a worker has no such limit, and its children set their own
        limits |= {resource.RLIMIT_CPU: cpu, resource.RLIMIT_NPROC: THREADS}
    for kind, value in limits.items():
        _, allowed = resource.getrlimit(kind)
        value = value if allowed == resource.RLIM_INFINITY else min(value, allowed)
        resource.setrlimit(kind, (value, value))


def call(name: str, *arguments: object) -> None:
    """Call a C function that returns 0 for success. Raises OSError for a failure."""
    values = [a.encode() if isinstance(a, str) else ctypes.c_ulong(a) if isinstance(a, int) else a for a in arguments]
    if getattr(libc, name)(*values) != 0:
        raise OSError(ctypes.get_errno(), f"{name}{arguments}: {os.strerror(ctypes.get_errno())}")


def write(path: str, text: str) -> None:
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)


def own_namespaces() -> int:
    """Become root of new namespaces. Returns the user id that the program gets there.

    If the machine's root runs this, the program gets a second user, nobody: limits of threads do not hold for root, and
    root's files would be within reach. An ordinary user cannot map a second user, and needs none: the id is 0."""
    spaces = NEWUSER | NEWNS | NEWPID | NEWNET | NEWIPC | NEWUTS
    uid, gid, me = os.getuid(), os.getgid(), os.getpid()
    with open("/proc/self/uid_map", encoding="ascii") as users:
        count = sum(int(line.split()[2]) for line in users)
    if uid != 0 or count == 1:  # count 1: root in an ordinary user's container, which has only this user
        call("unshare", spaces)
        write("/proc/self/setgroups", "deny")
        write("/proc/self/uid_map", f"0 {uid} 1")
        write("/proc/self/gid_map", f"0 {gid} 1")
        return 0
    wait, go = os.pipe()
    helper = os.fork()  # stays outside of the new namespace, where it may map two users
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
    return 1


def mounts_below(path: str) -> list[tuple[str, int]]:
    """(path, flags that a remount must keep) of the mount at a path and of all mounts below it."""
    below = []
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as lines:
        for line in lines:
            place, options = line.split()[4:6]
            place = re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), place)  # such as \040 for a space
            if place == path or place.startswith(path + "/"):
                below.append((place, sum(KEPT.get(option, 0) for option in options.split(","))))
    return below


def show(path: str) -> None:
    """Mount a folder of the system, with all mounts below it, read-only in the new root, which is the working
    folder."""
    if os.path.islink(path):
        os.makedirs("." + os.path.dirname(path), exist_ok=True)
        os.symlink(os.readlink(path), "." + path)
    elif os.path.isdir(path):
        os.makedirs("." + path, exist_ok=True)
        call("mount", path, "." + path, None, BIND | REC, None)
        for place, kept in mounts_below(os.getcwd() + path):
            call("mount", "none", place, None, REMOUNT | BIND | RDONLY | NOSUID | kept, None)


def own_root(plan: Plan, user: int) -> None:
    """Enter a root in memory that holds Python, the system's libraries and the readable folders, all read-only, and
    /tmp."""
    call("mount", "none", "/", None, REC | PRIVATE, None)
    call("mount", "jail", BUILD_AT, "tmpfs", NOSUID | NODEV, f"size={plan.scratch},nr_inodes={INODES},mode=755")
    os.chdir(BUILD_AT)
    shown: list[str] = []
    for path in ("/usr", "/lib", "/lib64", "/bin", sys.base_prefix, os.path.dirname(sys.executable), *plan.readable):
        if not any(os.path.commonpath([path, other]) == other for other in shown):
            show(path)
            shown.append(path)
    os.makedirs("./dev", exist_ok=True)
    for device in ("null", "zero", "urandom"):
        write(f"./dev/{device}", "")
        call("mount", f"/dev/{device}", f"./dev/{device}", None, BIND, None)
    os.makedirs("./tmp", exist_ok=True)
    os.chown("./tmp", user, user)
    os.makedirs("./old")
    number = (155, 41)[MACHINES[os.uname().machine][1]]
    if libc.syscall(number, b".", b"./old") != 0:
        raise OSError(ctypes.get_errno(), f"pivot_root: {os.strerror(ctypes.get_errno())}")
    os.chdir("/")
    call("umount2", "/old", DETACH)
    os.rmdir("/old")
    for path in (*shown, "/dev/null"):
        while path != "/":
            path = os.path.dirname(path)
            os.chmod(path, 0o555)  # the program may be the owner, and could write
    os.chmod("/tmp", 0o755)
    os.chdir("/tmp")


def no_powers(user: int) -> None:
    """Give up every capability, and become another user of the namespace; 0 keeps the user."""
    for capability in range(64):
        if libc.prctl(CAPBSET_DROP, capability, 0, 0, 0) != 0:
            break
    call("prctl", NO_NEW_PRIVS, 1, 0, 0, 0)
    if user:
        os.setgroups([])
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    call("capset", header, (ctypes.c_uint32 * 6)())


def main() -> None:
    plan = Plan(*json.loads(sys.argv[1]))
    libc.prctl(PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    user = own_namespaces()
    init = os.fork()  # the first process of the new process namespace; all others end with it
    if init:
        _, status = os.waitpid(init, 0)
        os._exit(os.waitstatus_to_exitcode(status) & 0xFF)
    libc.prctl(PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    own_root(plan, user)
    program = os.fork()
    if program:
        while True:  # the first process also inherits what the program leaves behind
            child, status = os.wait()
            if child == program:
                os._exit(os.waitstatus_to_exitcode(status) & 0xFF)
    os.setsid()
    no_powers(user)
    limit(plan.memory, plan.cpu, plan.scratch)
    refuse_system_calls(alone=not plan.processes)
    os.write(1, b"jailed\n")
    os.execve(sys.executable, [sys.executable, *FLAGS, *plan.arguments], ENVIRONMENT)


if __name__ == "__main__":
    try:
        main()
    except Exception as error:
        print(error, flush=True)
        os._exit(1)
