"""Runs on the host under Python 3.6 or newer with `-I -S`; reads, never changes, and interprets nothing.

It is sent to the interpreter's standard input, so it imports nothing of the project. Imports cost more than the whole
reading of a host (json 4 ms, subprocess 8 ms, re 5 ms; 16 hosts at once may share two cores with their operator's
ssh), so it uses only modules that the interpreter has loaded anyway or carries built in. Answers go back as one JSON
text, framed so that whatever a login shell prints around it does no harm.
"""

# pathlib and contextlib cost more to import than reading a host takes.
# ruff: noqa: PTH112, PTH120, PTH208, SIM105

import os
import select
import sys
import time
import zlib

MYPY = False
if MYPY:  # never true: typing is not imported on the host, and annotations stand in quotes for Python 3.6
    from collections.abc import Callable
    from typing import Any

try:
    from _json import encode_basestring_ascii as quote  # what json uses, without what json imports
except ImportError:
    from json.encoder import encode_basestring_ascii as quote

MAX_FILE = 1 << 20
MAX_OUTPUT = 8 << 20
REDACTED = []  # type: list[str]
RECORDS = "/var/lib/provision/history/"
SECRET_NAMES = (
    "privatekey",
    "presharedkey",
    "password",
    "passwd",
    "passphrase",
    "secret",
    "token",
    "apikey",
    "api_key",
    "api-key",
    "authorization",
    "mnemonic",
)


NOTHING = tuple([word + end for word in ("null", "true", "false", "[]", "{}") for end in (",", "}", "]")])


def encode(value: "Any") -> str:
    if value is None:
        return "null"
    if isinstance(value, str):
        return quote(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, dict):
        return "{" + ",".join([quote(key) + ":" + encode(item) for key, item in value.items()]) + "}"
    return "[" + ",".join([encode(item) for item in value]) + "]"


# Secrets stay on the host.


def without_logins(text: str) -> str:
    """`http://user:secret@mirror/` becomes `http://***@mirror/`."""
    pieces = text.split("://")
    for number in range(1, len(pieces)):
        piece = pieces[number]
        end = 0
        while end < len(piece) and piece[end] not in " \t\r\n/\"'<>?#,;":
            end += 1
        at = piece.rfind("@", 0, end)
        if at >= 0:
            pieces[number] = "***" + piece[at:]
    return "://".join(pieces)


def without_secrets(text: str) -> str:
    if "://" in text and "@" in text:
        text = without_logins(text)
    lower = text.lower()
    if "private key-----" not in lower:
        for name in SECRET_NAMES:
            if name in lower:
                break
        else:
            return text
    kept = []
    inside = False
    for line in text.split("\n"):
        bare = line.lower()
        if "-----begin" in bare and "private key-----" in bare:
            inside = True
            kept.append("[private key removed]")
        if not inside:
            kept.append(without_secret(line))
        if "-----end" in bare:
            inside = False
    return "\n".join(kept)


def without_secret(line: str) -> str:
    """`PrivateKey = abc` becomes `PrivateKey = ***`; the name alone, as in a package list or a path, hides nothing."""
    bare = line.lower()
    if bare.lstrip().startswith(("password ", "password_pbkdf2 ")):  # of grub.cfg
        return line.split(None, 1)[0] + " ***"
    at = 0
    while True:
        places = [(bare.find(name, at), len(name)) for name in SECRET_NAMES if name in bare[at:]]
        if not places:
            return line
        start, length = min(places)
        at = start + length
        while at < len(line) and (line[at].isalnum() or line[at] in "_-"):
            at += 1
        while at < len(line) and line[at] in "\"' ":
            at += 1
        if line[at : at + 1] not in ("=", ":"):
            continue
        at += 1
        while line[at : at + 1] == " ":
            at += 1
        close = line.find('"', at + 1) if line[at : at + 1] == '"' else -1
        # `"Authorization":null` in `docker info` is no secret, and behind it stands all the rest of that line.
        if close < 0 and line[at:].startswith(NOTHING):
            continue
        if close > 0:
            return line[:at] + '"***"' + without_secret(line[close + 1 :])
        return line[:at] + ("***" if line[at:].strip() else line[at:])


# Files, links and listings: what `cat`, `readlink -f`, `ls` and `stat` would show, without starting them.


def text_of(data: bytes) -> str:
    return without_secrets(data.decode("utf-8", "backslashreplace"))


def read_file(path: str, found: "dict[str, str | None]") -> "str | None":
    """Absent is None; what may not be read, is no plain file or is too large is left out: not seen, not absent."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except (FileNotFoundError, NotADirectoryError):
        found[path] = None
        return None
    except OSError:
        return None
    try:
        if os.fstat(fd).st_mode & 0o170000 != 0o100000:
            return None
        data = os.read(fd, 65536)
        more = data
        while more and len(data) <= MAX_FILE:
            more = os.read(fd, 65536)
            data += more
        if len(data) > MAX_FILE:
            return None
    except OSError:
        return None
    finally:
        os.close(fd)
    text = data.decode("utf-8", "backslashreplace")
    # A record of a change names where secrets come from, never what they are; cut short it could not be taken back.
    found[path] = text if path.startswith(RECORDS) else without_secrets(text)
    if found[path] != text:
        REDACTED.append(path)
    return found[path]


def matches(name: str, pattern: str) -> bool:
    """`nvidia.ko.xz` matches `nvidia*.ko*`; only the star is special."""
    parts = pattern.split("*")
    if len(parts) == 1:
        return name == pattern
    if not name.startswith(parts[0]) or (name[0] == "." and pattern[0] != "."):
        return False
    at = len(parts[0])
    for part in parts[1:-1]:
        at = name.find(part, at)
        if at < 0:
            return False
        at += len(part)
    return len(name) - at >= len(parts[-1]) and name.endswith(parts[-1])


def expand(pattern: str) -> "list[str] | None":
    """Absolute paths that match, sorted; None when a folder on the way may not be listed."""
    paths = [""]
    for part in pattern.split("/")[1:]:
        if "*" not in part:
            paths = [path + "/" + part for path in paths]
            continue
        wider = []
        for path in paths:
            try:
                names = os.listdir(path or "/")
            except (FileNotFoundError, NotADirectoryError):
                continue
            except OSError:
                return None
            wider += [path + "/" + name for name in sorted(names) if matches(name, part)]
        paths = wider
    return [path for path in paths if os.path.lexists(path)]


def output(rc: int, stdout: str, stderr: str = "") -> "dict[str, Any]":
    return {"rc": rc, "stdout": stdout, "stderr": stderr}


def absent(command: str, path: str) -> "dict[str, Any]":
    return output(2 if command == "ls" else 1, "", f"{command}: cannot access '{path}': No such file or directory\n")


def lines(items: "list[str]") -> str:
    return "".join([item + "\n" for item in items])


def list_pattern(pattern: str, commands: "dict[str, Any]") -> "list[str]":
    paths = expand(pattern)
    if paths is not None:
        commands["ls -d " + pattern] = output(0, lines(paths)) if paths else absent("ls", pattern)
    return paths or []


def list_folder(path: str, commands: "dict[str, Any]") -> None:
    try:
        names = [name for name in sorted(os.listdir(path)) if name[0] != "."]
    except (FileNotFoundError, NotADirectoryError):
        commands["ls " + path] = absent("ls", path)
    except OSError:
        pass
    else:
        commands["ls " + path] = output(0, lines(names))


def follow(path: str) -> "str | None":
    real = os.path.realpath(path)
    return real if os.path.isdir(os.path.dirname(real)) else None


def read_link(path: str, commands: "dict[str, Any]") -> None:
    if "*" in path:
        found = expand(path)
        if found is None:
            return
    else:
        found = [path]
    targets = [target for target in map(follow, found) if target is not None]
    commands["readlink -f " + path] = output(0 if targets else 1, lines(targets))


def status(path: str, commands: "dict[str, Any]") -> None:
    try:
        seen = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        commands["stat -c '%a %U:%G %F' " + path] = absent("stat", path)
        return
    except OSError:
        return
    import grp
    import pwd

    kinds = {0o100000: "regular file", 0o040000: "directory", 0o120000: "symbolic link"}
    try:
        user = pwd.getpwuid(seen.st_uid).pw_name
    except KeyError:
        user = "UNKNOWN"
    try:
        group = grp.getgrgid(seen.st_gid).gr_name
    except KeyError:
        group = "UNKNOWN"
    kind = kinds.get(seen.st_mode & 0o170000, "special file")
    commands["stat -c '%a %U:%G %F' " + path] = output(0, f"{seen.st_mode & 0o7777:o} {user}:{group} {kind}\n")


def free_space(paths: "list[str]", commands: "dict[str, Any]") -> None:
    rows = ["File Avail"]
    for path in paths:
        try:
            seen = os.statvfs(path)
        except OSError:
            continue
        rows.append(f"{path} {seen.f_bavail * seen.f_frsize >> 20}")
    commands["df -B1M --output=file,avail " + " ".join(paths)] = output(0, lines(rows))


def read_devices(
    root: str, vendor: str, names: "list[str]", files: "dict[str, str | None]", commands: "dict[str, Any]"
) -> None:
    """Every device tells its vendor; only those of `vendor` tell the rest."""
    for path in list_pattern(root + "/*/vendor", commands):
        if (read_file(path, files) or "").strip() == vendor:
            folder = path[: -len("/vendor")]
            for name in names:
                read_file(folder + "/" + name, files)
            read_link(folder + "/driver", commands)


# Commands: several at once, each with a time limit, none of them through a shell unless it asks for one.


class Running:
    def __init__(self, pid: int, limit: float, ends: "tuple[int, int]") -> None:
        self.pid = pid
        self.ends_at = time.monotonic() + limit
        self.open = dict.fromkeys(ends)
        self.ends = ends
        self.data = {fd: [] for fd in ends}  # type: dict[int, list[bytes]]
        self.size = 0
        self.late = False

    def text(self, number: int) -> bytes:
        return b"".join(self.data[self.ends[number]])


def spawn(argv: "list[str]", environment: "dict[str, str]") -> "tuple[int, tuple[int, int]]":
    out_r, out_w = os.pipe()
    err_r, err_w = os.pipe()
    null = os.open(os.devnull, os.O_RDONLY)
    try:
        if hasattr(os, "posix_spawnp"):
            actions = [(os.POSIX_SPAWN_DUP2, null, 0), (os.POSIX_SPAWN_DUP2, out_w, 1), (os.POSIX_SPAWN_DUP2, err_w, 2)]
            # 13 is SIGPIPE: Python ignores it, and a child that inherited this would complain instead of ending.
            pid = os.posix_spawnp(argv[0], argv, environment, file_actions=actions, setpgroup=0, setsigdef=[13])
        else:
            pid = fork_command(argv, environment, (null, out_w, err_w))
    except OSError:
        os.close(out_r)
        os.close(err_r)
        raise
    finally:
        os.close(null)
        os.close(out_w)
        os.close(err_w)
    return pid, (out_r, err_r)


def fork_command(argv: "list[str]", environment: "dict[str, str]", fds: "tuple[int, ...]") -> int:
    """Python 3.6 and 3.7 have no posix_spawn; 127 tells of a missing program as a shell would."""
    pid = os.fork()
    if pid == 0:
        try:
            os.setpgid(0, 0)
            for number, fd in enumerate(fds):
                os.dup2(fd, number)
            import signal

            signal.signal(signal.SIGPIPE, signal.SIG_DFL)
            os.execvpe(argv[0], argv, environment)
        except FileNotFoundError:
            os._exit(127)
        finally:
            os._exit(126)
    return pid


def fork_answer(work: "Callable[[], Any]") -> "tuple[int, tuple[int, int]]":
    """Run `work` in a child whose answer comes through a pipe: a card that hangs then hangs the child only."""
    out_r, out_w = os.pipe()
    err_r, err_w = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.setpgid(0, 0)
            null = os.open(os.devnull, os.O_RDWR)
            # The session's own pipes must not stay open in a child that may never end.
            for number in (0, 1, 2):
                os.dup2(null, number)
            os.write(out_w, encode(work()).encode())
            os._exit(0)
        except BaseException as error:
            os.write(err_w, (type(error).__name__ + ": " + str(error)).encode("utf-8", "replace"))
        finally:
            os._exit(1)
    os.close(out_w)
    os.close(err_w)
    return pid, (out_r, err_r)


def ended(pid: int) -> "int | None":
    """The exit code; None for a process that even SIGKILL does not end (it waits for a sick device)."""
    for _ in range(20):
        done, state = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.WEXITSTATUS(state) if os.WIFEXITED(state) else 128 + os.WTERMSIG(state)
        time.sleep(0.005)
    return None


def drain(
    running: "dict[str | None, Running]", full: int, finish: "Callable[[str | None, Running, int], None]"
) -> None:
    """Read from all that run until fewer than `full` are left."""
    while len(running) >= full and running:
        now = time.monotonic()
        poll = select.poll()
        owner = {}
        for job in running.values():
            for fd in job.open:
                poll.register(fd, select.POLLIN)
                owner[fd] = job
        wait = min([job.ends_at for job in running.values()]) - now
        for fd, _ in poll.poll(max(0, wait * 1000) + 1):
            job = owner[fd]
            data = os.read(fd, 262144)
            job.size += len(data)
            if data and job.size <= MAX_OUTPUT:
                job.data[fd].append(data)
            elif not data:
                os.close(fd)
                del job.open[fd]
        now = time.monotonic()
        for name, job in list(running.items()):
            if job.open and now >= job.ends_at:
                job.late = True
                try:
                    os.killpg(job.pid, 9)
                except OSError:
                    pass
                for fd in job.open:
                    os.close(fd)
                job.open = {}
            if not job.open:
                del running[name]
                rc = ended(job.pid)
                finish(name, job, 124 if job.late or rc is None else rc)


def observe(request: "dict[str, Any]") -> "dict[str, Any]":
    files = {}  # type: dict[str, str | None]
    commands = {}  # type: dict[str, Any]
    del REDACTED[:]
    answer = {"format": 1, "files": files, "commands": commands, "redacted": REDACTED}
    environment = dict(os.environ, LC_ALL="C", LANGUAGE="")
    environment["PATH"] = environment.get("PATH", "/usr/bin:/bin") + ":/usr/local/sbin:/usr/sbin:/sbin"
    os.environ["PATH"] = environment["PATH"]
    running = {}  # type: dict[str | None, Running]

    def finish(name: "str | None", job: Running, rc: int) -> None:
        if name is None:
            answer["nvml"] = nvml_answer(job, rc)
        else:
            commands[name] = output(rc, text_of(job.text(0)), text_of(job.text(1)))

    if request.get("nvml"):
        pid, ends = fork_answer(lambda: ask_nvml(request["nvml"], request["nvml_calls"]))
        running[None] = Running(pid, request["nvml_limit"], ends)
    waiting = list(request["commands"])
    while waiting and len(running) < request["width"]:
        start(waiting.pop(0), running, commands, environment)
    for path in request["files"]:
        if "*" not in path:
            read_file(path, files)
            continue
        for found in list_pattern(path, commands):
            read_file(found, files)
    for pattern in request["listings"]:
        list_pattern(pattern, commands)
    for path in request["folders"]:
        list_folder(path, commands)
    for path in request["links"]:
        read_link(path, commands)
    for path in request["stats"]:
        status(path, commands)
    for root, vendor, names in request["devices"]:
        read_devices(root, vendor, names, files, commands)
    free_space(request["disks"], commands)
    while waiting:
        drain(running, request["width"], finish)
        start(waiting.pop(0), running, commands, environment)
    drain(running, 1, finish)
    commands["uname -m"] = output(0, os.uname().machine + "\n")
    commands["date +%s.%N"] = output(0, f"{time.time():.9f}\n")
    return answer


def start(
    command: "Any", running: "dict[str | None, Running]", commands: "dict[str, Any]", environment: "dict[str, str]"
) -> None:
    line, argv, limit = command
    try:
        pid, ends = spawn(argv, environment)
    except OSError as error:
        commands[line] = output(127, "", str(error) + "\n")
    else:
        running[line] = Running(pid, limit, ends)


# NVML, through the part of NVIDIA's own pynvml that the controller sends along.


def nvml_answer(job: Running, rc: int) -> "Any":
    if rc == 124:
        return {"error": "timed-out"}
    data = job.text(0)
    if rc != 0 or not data:
        return {"error": "probe-failed", "detail": text_of(job.text(1))[:500]}
    answer = Raw()
    answer.text = data.decode()
    return answer


class Raw(int):
    """A piece of JSON that a child encoded already; `encode` writes a number by its repr."""

    text = ""

    def __repr__(self) -> str:
        return self.text


def ask_nvml(source: str, calls: str) -> "Any":
    module = type(sys)("pynvml")
    sys.modules["pynvml"] = module
    exec(compile(source, "pynvml", "exec"), module.__dict__)
    scope = {}  # type: dict[str, Any]
    exec(compile(calls, "nvml_calls", "exec"), scope)
    return scope["ask"](module)


def main(request: "dict[str, Any]") -> None:
    body = encode(observe(request)).encode("ascii")
    kind = b"j"
    if len(body) > 1000:
        body = zlib.compress(body, 1)
        kind = b"z"
    sys.stdout.flush()
    data = b"\n#provision-probe-1 " + kind + b" " + str(len(body)).encode() + b"\n" + body
    while data:
        data = data[os.write(1, data) :]
