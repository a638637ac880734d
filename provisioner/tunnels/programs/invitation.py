#!/usr/bin/python3
"""An invitation: run it on the rig it is for, as root:  sudo python3 THIS-FILE

It makes the rig's key (which never leaves the rig), tells the hub its public half and the rig's ssh host key over a
connection in which both sides are known to each other, brings up the tunnel, and lets the operator's key in over the
tunnel alone. What it needs and does not find it installs with apt-get. When the tunnel does not carry within a minute,
everything is taken back.
"""

import getpass
import glob
import json
import os
import pwd
import shutil
import socket
import subprocess
import sys
import tempfile
import time

MYPY = False
if MYPY:  # never true: annotations stand in quotes for Python 3.6
    from typing import Any

INVITATION = "@INVITATION@"
CONFIG = "/etc/wireguard/prov0.conf"
PRIVATE, PUBLIC = "/etc/wireguard/prov0.key", "/etc/wireguard/prov0.pub"
UNIT = "wg-quick@prov0.service"
WAIT_S = 60


def stop(text: str) -> "Any":
    sys.exit("\n%s" % text)


def say(text: str) -> None:
    print(text)
    sys.stdout.flush()


def run(*argv: str, **more: "Any") -> str:
    done = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True, **more)
    if done.returncode != 0:
        stop("%s failed: %s" % (" ".join(argv[:3]), done.stderr.strip() or "exit %d" % done.returncode))
    return str(done.stdout)


def need() -> None:
    """Programs and their Debian packages; a kernel without the module needs one more."""
    missing = []
    for program, package in (
        ("wg", "wireguard-tools"),
        ("ssh", "openssh-client"),
        ("sshd", "openssh-server"),
        ("ip", "iproute2"),
        ("ping", "iputils-ping"),
    ):
        if shutil.which(program, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin") is None:
            missing.append(package)
    if not kernel_has_it() and shutil.which("wireguard-go") is None:
        missing.append("wireguard-go")
    if not missing:
        return
    say("Installing %s …" % ", ".join(missing))
    environment = dict(os.environ, DEBIAN_FRONTEND="noninteractive")
    argv = ["apt-get", "install", "-y", "-q", "--no-install-recommends"]
    quiet = {"stdout": subprocess.DEVNULL, "env": environment}  # type: dict[str, Any]
    if subprocess.call([*argv, *missing], **quiet) != 0:
        subprocess.call(["apt-get", "update", "-q"], **quiet)
        if subprocess.call([*argv, *missing], **quiet) != 0:
            stop("apt-get could not install %s: do that by hand, then run this again" % ", ".join(missing))


def kernel_has_it() -> bool:
    if os.path.isdir("/sys/module/wireguard"):
        return True
    if subprocess.call(["ip", "link", "add", "prov-try", "type", "wireguard"], stderr=subprocess.DEVNULL) != 0:
        return False
    subprocess.call(["ip", "link", "delete", "prov-try"])
    return True


def own_key() -> str:
    os.makedirs("/etc/wireguard", mode=0o700, exist_ok=True)
    if not os.path.exists(PUBLIC):
        os.umask(0o077)
        key = run("wg", "genkey")
        with open(PRIVATE, "w") as file:
            file.write(key)
        with open(PUBLIC + ".new", "w") as file:
            file.write(run("wg", "pubkey", input=key))
        os.chmod(PUBLIC + ".new", 0o644)
        os.rename(PUBLIC + ".new", PUBLIC)
        os.umask(0o022)
    with open(PUBLIC) as file:
        return file.read().strip()


def host_keys() -> "list[str]":
    if not glob.glob("/etc/ssh/ssh_host_*_key.pub"):
        subprocess.call(["ssh-keygen", "-A"])
    found = []
    for path in sorted(glob.glob("/etc/ssh/ssh_host_*_key.pub"), key=lambda p: "ed25519" not in p):
        with open(path) as file:
            found.append(" ".join(file.read().split()[:2]))
    return found


def ask_the_hub(invitation: "dict[str, Any]", said: "dict[str, Any]") -> "dict[str, Any]":
    """One question over ssh; the hub must show the key that stands in the invitation."""
    folder = tempfile.mkdtemp(prefix="provision-join-")
    try:
        with open(folder + "/key", "w") as file:
            os.fchmod(file.fileno(), 0o600)
            file.write(invitation["door_key"])
        with open(folder + "/known", "w") as file:
            file.write("".join("hub %s\n" % key for key in invitation["hub_keys"]))
        argv = ["ssh", "-F", "/dev/null", "-T", "-i", folder + "/key"]
        for option in (
            "IdentitiesOnly=yes",
            "BatchMode=yes",
            "StrictHostKeyChecking=yes",
            "HostKeyAlias=hub",
            "UserKnownHostsFile=" + folder + "/known",
            "ConnectTimeout=20",
        ):
            argv += ["-o", option]
        argv += ["-p", str(invitation["hub_port"]), "%s@%s" % (invitation["door"], invitation["hub_host"]), "join"]
        done = subprocess.run(
            argv,
            input=json.dumps(said),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            universal_newlines=True,
            timeout=120,
        )
    finally:
        shutil.rmtree(folder)
    try:
        answer = json.loads(done.stdout)
    except ValueError:
        if "Permission denied" in done.stderr:
            stop("The hub does not know this invitation (any more): it was used, taken back, or has ended.")
        stop("The hub could not be asked: %s" % (done.stderr.strip() or "exit %d" % done.returncode))
    if "refused" in answer:
        stop("The hub said no: %s." % answer["refused"])
    return dict(answer)


def let_in(user: str, keys: "list[str]", hub_address: str) -> None:
    """The operator's key, for sessions out of the tunnel alone; another user than root is made, and may use sudo."""
    try:
        account = pwd.getpwnam(user)
    except KeyError:
        run("useradd", "--create-home", "--shell", "/bin/bash", "--password", "*", user)
        account = pwd.getpwnam(user)
    if account.pw_uid != 0:
        path = "/etc/sudoers.d/provision-" + user
        if not os.path.exists(path):
            with open(path, "w") as file:
                os.fchmod(file.fileno(), 0o440)
                file.write("%s ALL=(ALL) NOPASSWD: ALL\n" % user)
    folder = os.path.join(account.pw_dir, ".ssh")
    os.makedirs(folder, mode=0o700, exist_ok=True)
    os.chown(folder, account.pw_uid, account.pw_gid)
    path = os.path.join(folder, "authorized_keys")
    try:
        with open(path) as file:
            text = file.read()
    except OSError:
        text = ""
    for key in keys:
        if key not in text:
            text += "" if not text or text.endswith("\n") else "\n"
            text += 'from="%s" %s\n' % (hub_address, key)
    with open(path, "w") as file:
        file.write(text)
    os.chmod(path, 0o600)
    os.chown(path, account.pw_uid, account.pw_gid)


def carries(address: str) -> bool:
    until = time.time() + WAIT_S
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}  # type: dict[str, Any]
    while time.time() < until:
        if subprocess.call(["ping", "-n", "-q", "-c", "1", "-W", "2", address], **quiet) == 0:
            return True
        time.sleep(1)
    return False


def main() -> None:
    invitation = json.loads(INVITATION)
    if os.geteuid() != 0:
        stop("Run it as root: sudo python3 %s" % sys.argv[0])
    if os.path.exists(CONFIG):
        stop("This rig has a tunnel of provision's already (%s); nothing was changed." % CONFIG)
    if time.time() > invitation["expires"]:
        stop("This invitation has ended: ask your operator for a new one.")
    say("Joining %s as %s" % (invitation["hub"], invitation["host"]))
    code = sys.argv[1] if len(sys.argv) > 1 else getpass.getpass("Code from your operator: ")
    need()
    key, keys = own_key(), host_keys()
    if not keys:
        stop("This rig has no ssh host key: is openssh-server installed?")
    said = {
        "code": "".join(c for c in code if c.isdigit()),
        "public_key": key,
        "host_keys": keys,
        "machine": socket.gethostname(),
    }
    answer = ask_the_hub(invitation, said)
    with open(CONFIG, "w") as file:
        os.fchmod(file.fileno(), 0o600)
        file.write(answer["config"])
    if subprocess.call(["systemctl", "enable", "--now", UNIT], stderr=subprocess.DEVNULL) != 0 or not carries(
        answer["hub_address"]
    ):
        subprocess.call(["systemctl", "disable", "--now", UNIT], stderr=subprocess.DEVNULL)
        os.unlink(CONFIG)
        stop(
            "The tunnel did not carry within %d s, and was taken down again. Is UDP to %s let out here?\n"
            "Ask your operator for a new invitation." % (WAIT_S, invitation["endpoint"])
        )
    let_in(answer["user"], answer["operator_keys"], answer["hub_address"])
    subprocess.call(["systemctl", "enable", "--now", "ssh.service"], stderr=subprocess.DEVNULL)
    with tempfile.NamedTemporaryFile("w", suffix=".pub") as file:
        file.write(keys[0] + "\n")
        file.flush()
        shown = run("ssh-keygen", "-lf", file.name).split()[1]
    say("\nJoined: %s is %s in the tunnel." % (invitation["host"], answer["address"]))
    say("Tell your operator this fingerprint, and nothing else is left to do here:\n  %s" % shown)


if __name__ == "__main__":
    main()
