"""The only place with wording: claims and conflicts become sentences a person can act on."""

from __future__ import annotations

import re
import shlex
import textwrap
from collections.abc import Callable, Iterable

from provisioner.model.stack import Choice, HostLock
from provisioner.resolve.conflict import Claim, Conflict, Edit, Falls, NoSolution, Repair, Source

WIDTH = 110


def _card_driver(c: Claim) -> str:
    first, last = c.word("first"), c.word("last")
    what = f"{c.about} ({c.word('architecture')}, compute capability {c.word('capability')})"
    if first and last:
        return f"{what} is driven by branches {first} to {last} only"
    if last:
        return f"{what} is driven by no branch after {last}"
    if first:
        return f"{what} is driven by no branch before {first}"
    return f"{what} is not driven by every branch"


def _not_offered(c: Claim) -> str:
    offered = c.word("offered")
    sources = f"this host's package sources ({c.about}{', ' + c.word('components') if c.word('components') else ''})"
    return f"{sources} offer driver {offered} and no other" if offered else f"{sources} offer no driver at all"


def _readable(specifier: str) -> str:
    """`>=580,<581` is `≥ 580, < 581`, `==535.261.03` is `535.261.03`."""
    text = re.sub(r"^==(?=[^,|]*$)", "", specifier).replace(",", ", ") if specifier[:1] in "<>=!" else specifier
    return re.sub(r"([<>])(?==?\d)", r"\1 ", text.replace(">=", "≥ ").replace("<=", "≤ ")).replace("  ", " ")


def _network_wants(c: Claim) -> str:
    key, wanted = c.word("key"), _readable(c.word("wanted"))
    who = f"{c.about} ({c.word('client')})" if c.word("client") not in ("", c.about) else c.about
    date = f" as read on {c.word('seen')}" if c.word("seen") else ""
    if key == "driver" and c.word("listed"):
        accepted = c.word("latest") or c.word("near")
        tail = (
            f"the latest it accepts of those offered here is {c.word('latest')}"
            if c.word("latest")
            else f"the latest of these branches that it accepts is {accepted}"
            if accepted
            else "it accepts none of the branches offered here"
        )
        refused = f", not {c.word('too-new')}" if c.word("too-new") else ""
        return f"{who} accepts {c.word('listed')} exact driver versions{date}{refused}: {tail}"
    need = {
        "driver": f"driver {wanted}",
        "host_driver": "a driver on the host" if wanted == "present" else "a host without a driver",
        "modules": f"{wanted} kernel modules",
        "cuda": f"CUDA {wanted}",
        "gpu.compute_capability": f"compute capability {wanted}",
        "gpu.memory_gib": f"{wanted} GiB of GPU memory",
        "gpu.model": f"a GPU of its list{date}",
        "gpu.architecture": f"a GPU of {wanted}",
        "gpu.brand": f"a GPU of {wanted}",
        "gpu.count": f"{wanted} GPUs",
        "gpu.same_model": "GPUs of one model",
        "os": re.sub(r"(?<=[a-z])(?=[≥≤<>])", " ", wanted),
        "arch": f"a {wanted} machine",
        "kernel": f"kernel {wanted}",
        "runtime": f"runtime {wanted}",
        "docker": f"Docker {wanted}",
        "containerd": f"containerd {wanted}",
        "toolkit": "a container toolkit" if wanted in ("*", "any version") else f"container toolkit {wanted}",
        "cdi": f"CDI specs {wanted}",
        "disk_gib": f"{wanted} GiB of disk",
        "cpu_cores": f"{wanted} CPU cores",
        "public_ip": f"a public address ({wanted})",
        "bandwidth": "bandwidth " + wanted.replace("down_mbps", "down").replace("up_mbps", "up") + " Mbit/s",
        "kubernetes": "Kubernetes: " + wanted.replace("_", " ").removeprefix("distribution "),
        "ram_gib": f"{wanted} GiB of memory",
        "client": f"client {wanted}",
    }.get(key, f"{key.replace('_', ' ')} {wanted}")
    found = f"; this host has {c.word('found')}" if c.word("found") else ""
    return f"{who} wants {need}{found}"


def _opposite(c: Claim) -> str:
    key = c.word("key").replace("_", " ")
    if c.word("key") == "ports":
        one, other = (f"{c.word(w)} takes ports {c.word(v)}" for w, v in (("first", "one"), ("second", "other")))
        return f"{one}, {other}"
    if c.word("key") == "gpu.binding":
        return f"{c.word('first')} and {c.word('second')}: one hands the GPU to a VM, the other needs it on the host"
    if c.word("key") in ("gpu.exclusive", "dedicated"):
        return f"{c.word('first')} and {c.word('second')} each want the GPU for themselves"
    return f"{c.word('first')} wants {key} {c.word('one')}, {c.word('second')} wants {key} {c.word('other')}"


def _in_a_sentence(text: str) -> str:
    """Another sentence as the end of ours: without its full stop, and small unless it begins with a name or a code."""
    text = text.rstrip(".")
    return text[:1].lower() + text[1:] if text[1:2].islower() or text[1:2] == " " else text


FIRST = {
    "not-ended": "it is not past its end of life",
    "security": "it has the security fixes of its branch",
    "installed": "it is on the host already",
    "support": "its branch is supported longer",
    "line": "it is the distribution's own line",
    "flavour": "its kernel modules are the default flavour of its branch",
    "release": "it is no backport",
    "newest": "it is the newest patch",
    "newer": "it is newer",
    "own-engine": "it is the distribution's own engine",
    "taken": "more networks take it",
    "by-name": "of engines that are alike in all else, it is the first by name",
}
"""Why one driver stands before another, in the order in which that is decided."""

SENTENCES: dict[str, Callable[[Claim], str]] = {
    "card-driver": _card_driver,
    "card-floor": lambda c: f"{c.about} needs driver {_readable(c.word('driver'))}",
    "card-flavour": lambda c: (
        f"{c.about} ({c.word('architecture')}) does not run on {c.word('flavour')} kernel modules, "
        f"only on {c.word('takes')} ones"
    ),
    "card-unknown": lambda c: (
        f"the card {c.about} in slot {c.word('slot')} is in no matrix entry, so which driver drives it is not known"
    ),
    "card-guess": lambda c: (
        f"the card {c.about} is in no matrix entry: it stays on the branch of driver {c.word('loaded')}, which runs it"
    ),
    "tunnel-breaks": lambda c: (
        f"{c.about} can't be served through {c.word('kind')}, by which this host's customers are to come in: "
        f"{_in_a_sentence(c.word('why'))}"
    ),
    "cuda-ceiling": lambda c: (
        f"{c.about} has compute capability {c.word('capability')}: toolkits after CUDA {c.word('ceiling')} "
        f"build nothing that it can run, whatever its driver shows"
    ),
    "no-gpu": lambda c: f"There is no NVIDIA GPU on this host's PCI bus to serve {c.about} with",
    "driver-not-offered": _not_offered,
    "wanted-driver": lambda c: f"the request wants driver {c.about}",
    "wanted-driver-source": lambda c: (
        "the request wants the driver from NVIDIA's own repository"
        if c.about == "vendor"
        else "the request wants the distribution's own driver"
    ),
    "wanted-modules": lambda c: f"the request wants {c.about} kernel modules",
    "wanted-cuda": lambda c: f"the request wants CUDA {c.about} or higher",
    "wanted-client": lambda c: f"the request pins {c.about}",
    "forbidden-branches": lambda c: f"the policy forbids driver branches {c.about}",
    "refuse-ended": lambda c: f"the policy refuses drivers past their end of life, on {c.word('today')}: {c.about}",
    "no-reboot": lambda c: f"the policy allows no reboot, so the loaded driver {c.about} must stay",
    "kernel-floor": lambda c: f"kernel {c.about} is older than the driver branch can be built for",
    "does-not-build": lambda c: (
        f"the {c.word('flavour')} module of {c.word('package')} {c.word('version')} does not build for kernel "
        f"{c.about}: {_in_a_sentence(c.word('why'))}"
    ),
    "no-headers": lambda c: (
        f"the kernel that boots next, {c.about}, has no headers on disk and this host's sources offer none"
    ),
    "fabric-manager-not-offered": lambda c: (
        f"the cards are wired through {c.about} NVSwitch bridge{'s' if c.about != '1' else ''} and need the fabric "
        f"manager of exactly their driver's version; this host's package sources offer none for {c.word('lacking')}"
    ),
    "running-without-headers": lambda c: (
        f"the running kernel {c.about} has no headers any more: the driver is built for {c.word('next')}, "
        f"which boots next, and loads after a reboot"
    ),
    "wanted-runtime": lambda c: f"the request wants {c.about} as runtime",
    "wanted-toolkit": lambda c: (
        f"the request wants container toolkit {_readable(c.about)}; this host's package sources offer "
        + (f"{c.word('offered')} and no other" if c.word("offered") else "none, and NVIDIA's repository would")
    ),
    "wanted-cdi": lambda c: f"the request wants CDI specs {c.about}",
    "cdi-without-toolkit": lambda c: (
        "the request wants CDI specs, and this host's package sources offer no sound container toolkit to write them"
    ),
    "toolkit-holes": lambda c: (
        f"container toolkit {c.about} has published holes ({c.word('holes')}); {c.word('floor')} mends them all"
    ),
    "engine-reads-no-cdi": lambda c: (
        (f"{c.word('who')} hands GPUs out by CDI, and " if c.word("who") else "")
        + f"{c.about} cannot read the CDI specs that the toolkit writes, which takes {c.word('floors')} or newer"
    ),
    "engines-offered": lambda c: (
        f"this host's package sources offer the container engines {c.word('offered')} and no other"
        if c.word("offered")
        else "this host's package sources offer no container engine"
    ),
    "compat-refused": lambda c: (
        f"forward compatibility ({c.word('packages')}) is not for {c.about}: there CUDA fails with error 804"
    ),
    "compat-unknown": lambda c: (
        f"whether forward compatibility ({c.word('packages')}) works on {c.about} is not confirmed"
    ),
    "compat-not-offered": lambda c: (
        f"{c.about} would carry it by forward compatibility, and this host's package sources do not offer it "
        "(NVIDIA's CUDA repository does)"
    ),
    "runtime-not-offered": lambda c: f"this host's package sources offer no {c.about} for {c.word('os')}",
    "network-needs-driver": lambda c: f"{c.about} uses the driver of the host",
    "network-wants": _network_wants,
    "soft": lambda c: f"{_network_wants(c)}; that does not bind",
    "not-seen": lambda c: f"{_network_wants(c)}, and that could not be seen on this host",
    "not-checked": _network_wants,
    "networks-conflict": lambda c: f"{c.about} can't share a host. {c.word('statement').rstrip('.')}",
    "networks-disagree": lambda c: (
        f"{c.about} can share a host with care. {c.word('statement').rstrip('.')}"
        + (f". Way out: {c.word('way-out').rstrip('.')}" if c.word("way-out") else "")
    ),
    "opposite-wishes": _opposite,
    "carries": lambda c: f"driver {c.about} carries CUDA {c.word('cuda')}",
    # why a value was chosen, or nothing newer
    "installed": lambda c: f"{c.about} is on this host already",
    "only-one": lambda c: f"{c.about} is the only one that fits",
    "longest-supported": lambda c: (
        f"branch {c.about} is supported until {c.word('until')}, longer than any other that fits"
    ),
    "default-of-os": lambda c: f"{c.about} is what {c.word('os')} offers by itself",
    "newest-patch": lambda c: f"{c.about} is the newest patch of its branch that is offered here and fits",
    "moved-ended": lambda c: f"{c.about} is on the host, past its end of life since {c.word('date')}",
    "moved-floor": lambda c: f"{c.about} is on the host, below the fixed version {c.word('floor')}",
    "moved-unfit": lambda c: f"{c.about} is on the host and does not fit",
    "not-any-more": lambda c: f"{c.about} is on the host, and no source offers it any more",
    "asked-for": lambda c: f"the request asks for {c.about}",
    "flavour-of-package": lambda c: f"{c.word('package')} carries {c.about} kernel modules",
    "native-cuda": lambda c: f"driver branch {c.word('branch')} carries CUDA {c.about}",
    "newest-client": lambda c: f"{c.about} is the newest {c.word('program')} that fits",
    "unversioned-client": lambda c: f"{c.about} publishes no client versions: the network's own installer decides",
    "served-as": lambda c: f"{c.about} is served as: {c.word('title')}",
    "compat-carries": lambda c: (
        f"{c.about} carries CUDA {c.word('level')} on driver {c.word('driver')}, "
        f"which by itself carries {c.word('native')}"
    ),
    "compat-able": lambda c: f"{c.about} can use forward compatibility, which a GeForce can't",
    "toolkit-newest": lambda c: f"{c.about} is the newest sound one that this host's package sources offer",
    "toolkit-sound": lambda c: (
        f"{c.about} has every fix that is known: {c.word('floor')} is the lowest without a published hole"
    ),
    "toolkit-moved": lambda c: f"{c.about} is on the host, with published holes ({c.word('holes')})",
    "toolkit-not-offered": lambda c: (
        "toolkit: not offered by this host's sources, so nothing here gives containers a GPU; NVIDIA's repository for "
        "the container toolkit would offer it"
    ),
    "toolkit-only-holes": lambda c: (
        f"toolkit: none is chosen, for the newest that this host's sources offer, {c.about}, has published holes "
        f"({c.word('holes')}); NVIDIA's repository for the container toolkit would offer {c.word('floor')} or newer"
    ),
    "toolkit-unpinned": lambda c: (
        f"container toolkit {c.about} is on this host and no source offers a sound one: it stays as it is and is not "
        "pinned" + (f", with published holes ({c.word('holes')})" if c.word("holes") else "")
    ),
    "stays": lambda c: f"{c.about} is newer; {c.word('chosen')} is on the host and stays until something asks for more",
    "cdi-by-default": lambda c: "nobody minds: the toolkit keeps the specs up to date by itself (nvidia-cdi-refresh)",
    "cdi-nobody": lambda c: "nobody asks for the specs",
    "older-client": lambda c: (
        f"{c.about} is served with {c.word('program')} {c.word('client')}: the newest, {c.word('newest')}, does not "
        "fit (provision resolve --explain says why)"
    ),
    "client-defect": lambda c: f"{c.about} ({c.word('program')} {c.word('client')}): {c.word('text').rstrip('.')}",
    "client-brings": lambda c: f"{c.word('program')} {c.word('client')}: {c.word('text').rstrip('.')}",
    "newest-offered": lambda c: f"{c.about} is the newest that {c.word('os')} offers outside backports",
    "ended": lambda c: (
        f"driver branch {c.about} is past its end of life ({c.word('date')})"
        + ("" if c.word("better") else ", and nothing that is still supported fits this host")
    ),
    "below-floor": lambda c: (
        f"driver {c.about} is below {c.word('floor')}, the lowest that NVIDIA's bulletins call fixed for its branch, "
        f"and this host is offered nothing newer that fits"
        if c.word("floor")
        else f"driver {c.about} gets no security fixes any more"
    ),
    "os-ended": lambda c: f"{c.about} is past its end of life ({c.word('date')})",
    "secure-boot": lambda c: (
        "Secure Boot is on: a module that DKMS builds loads only when its key is enrolled (mokutil --import)"
    ),
    "runtime-replaced": lambda c: (
        f"{c.about} is on this host and makes way for {c.word('chosen')}: its containers stop "
        f"(provision_runtime: {c.word('id')} keeps it)"
    ),
    "run-file": lambda c: "a driver from NVIDIA's .run file lies on this host; packages cannot replace it cleanly",
    "left-behind": lambda c: f"{c.about} has no version {c.word('version')} here and will be removed",
    "shared": lambda c: (
        f"{c.about} is what {c.word('hosts')} hosts of the fleet share; by itself this one would get {c.word('own')}"
    ),
    "stack-gone": lambda c: f"the host's package sources do not offer {c.about} in the pinned packages any more",
    # what a question meets
    "asked": lambda c: f"the question is about {c.about}",
    "asked-unknown": lambda c: f"the matrix knows no {c.about}; {c.word('known')}",
    "asked-without-gpu": lambda c: f"there is no NVIDIA GPU on this host's PCI bus, so it gets no {c.about}",
    "asked-not-offered": lambda c: (
        f"this host's package sources offer no {c.about}"
        + (
            f", only {c.word('offered')}"
            if c.word("offered")
            else "; NVIDIA's repository for the container toolkit would"
        )
    ),
    "asked-cdi-alone": lambda c: (
        f"for {c.about} this host's package sources offer no sound container toolkit to write them"
    ),
    "client-unknown": lambda c: (
        f"the matrix knows no {c.word('program')} {c.word('asked')} of {c.about}; the newest that it knows is "
        f"{c.word('newest')}"
    ),
    "client-ended": lambda c: f"{c.about} lets in {c.word('program')} {c.word('oldest')} and newer only",
    "first-carrier": lambda c: f"CUDA {c.about} comes with driver branch {c.word('branch')} and newer ones",
    "not-served": lambda c: f"the request does not name {c.about} among the networks of this host",
    "comes-first": lambda c: f"{c.about} would fit as well; {c.word('chosen')} comes first: {FIRST[c.word('why')]}",
    "newer-client": lambda c: f"{c.word('program')} {c.about} would fit as well; {c.word('chosen')} is newer",
    "not-preferred": lambda c: f"{c.about} would fit as well; {c.word('chosen')} comes first: {c.word('why')}",
}


def sentence(claim: Claim) -> str:
    """One claim in words, without its source."""
    return SENTENCES[claim.kind](claim)


def source(rest: Source) -> str:
    """`networks/ionet, seen 2026-03-19, low confidence`."""
    parts = [rest.entry]
    if rest.seen:
        parts.append(f"seen {rest.seen}")
    if rest.confidence == "low":
        parts.append("low confidence")
    return ", ".join(parts)


def sources(claim: Claim) -> tuple[str, ...]:
    return tuple(source(rest) for rest in claim.rests_on)


def warning(claim: Claim) -> str:
    """A claim that does not forbid, in one line with its source."""
    rests = "; ".join(sources(claim))
    return f"{sentence(claim)} ({rests})" if rests else sentence(claim)


# --- no solution --------------------------------------------------------------------------------------------------


def no_solution(host: str, answer: NoSolution, *, assumed: bool = False) -> str:
    """The whole text for one host: the conflicts, what would mend them, what to type next.

    What is only assumed of a host cannot be asked about it: then no question is named.
    """
    head = f"error: no set of versions serves {host}"
    lines = [head + "[unresolvable-host]".rjust(max(WIDTH - len(head), 22)), ""]
    if answer.unseen:
        lines += [f"{host} did not show {what}." for what in answer.unseen]
        lines += ["", f"Look closer: provision facts {host}"]
        return "\n".join(lines) + "\n"
    count = len(answer.conflicts)
    if count == 1:
        lines.append("One reason:")
    else:
        lines.append(f"{in_words(count)} reasons, each enough by itself{'' if answer.complete else ', and more'}:")
    lines.append("")
    for number, conflict in enumerate(answer.conflicts, 1):
        lines += conflict_lines(number, conflict)
    if answer.repairs:
        lines += ["", "What would work, least downtime first:"]
        lines += repair_lines(answer.repairs)
    else:
        lines += ["", "No single change of the request or this host mends it."]
    lines += ["", *_next(host, answer, None if assumed else look_closer(host, answer))]
    return "\n".join(line.rstrip() for line in lines) + "\n"


def in_words(count: int) -> str:
    words = ("No", "One", "Two", "Three", "Four", "Five", "Six", "Seven", "Eight", "Nine")
    return words[count] if count < len(words) else str(count)


def conflict_lines(number: int, conflict: Conflict) -> list[str]:
    claims = list(conflict.claims)
    if len(claims) == 1:
        text = sentence(claims[0])
        rest = f"({'; '.join(sources(claims[0]))})"
        if text.startswith(("the ", "this ", "container ")):
            text = text[:1].upper() + text[1:]
        way_out = claims[0].word("way-out")
        more = wrapped("   way out: ", way_out) if way_out else []
        return [*wrapped(f"{number}. ", text + "."), f"   {rest}", *more]
    lines = wrapped(f"{number}. ", _headline(conflict))
    for leaf, rests in _lines(conflict.tree):
        lines += with_source(leaf, rests)
    return lines


def _headline(conflict: Conflict) -> str:
    """What the claims come down to, in one sentence."""
    kinds = {claim.kind for claim in conflict.claims}
    who, verb = _who(conflict)
    if found := _about_containers(conflict, who, verb):
        return found
    cards = [c.about for c in conflict.claims if c.kind in ("card-driver", "card-flavour", "card-floor")]
    if "cuda-ceiling" in kinds:
        card = next(c.about for c in conflict.claims if c.kind == "cuda-ceiling")
        return f"{who} {verb} a CUDA level that {card} can't run."
    if any(c.kind == "wanted-cuda" or c.word("key") == "cuda" for c in conflict.claims):
        return f"{who} {verb} a CUDA level that no driver on offer carries."
    if who and cards:
        return f"{who} {verb} a driver that {_listed(list(dict.fromkeys(cards)))} can't have here."
    if len(set(cards)) > 1:
        return f"No driver drives {_listed(list(dict.fromkeys(cards)))} together."
    if cards:
        return f"No driver that this host is offered drives {cards[0]}."
    if "fabric-manager-not-offered" in kinds:
        return "The cards are wired through NVSwitch, and no driver on offer has its fabric manager beside it."
    if "no-headers" in kinds:
        return "The driver can't be built for the kernel that boots next."
    if "does-not-build" in kinds:
        kernel = next(c.about for c in conflict.claims if c.kind == "does-not-build")
        return (
            f"{who or 'This host'} {verb if who else 'needs'} a driver whose module does not build for kernel {kernel}."
        )
    if who and "driver-not-offered" in kinds:
        return f"{who} {verb} a driver that this host is not offered."
    if who:
        return f"{who} {verb} different drivers." if verb == "want" else f"{who} {verb} a driver that can't be."
    return "No driver on offer is left."


_REQUESTED = {
    "wanted-driver", "wanted-driver-source", "wanted-modules", "wanted-cuda", "wanted-client", "wanted-runtime",
    "wanted-toolkit", "wanted-cdi", "cdi-without-toolkit",
}  # fmt: skip


def _about_containers(conflict: Conflict, who: str, verb: str) -> str:
    """The headline of a conflict in which no driver plays a part; '' when it is none."""
    kinds = {claim.kind for claim in conflict.claims}
    keys = {claim.word("key") for claim in conflict.claims if claim.kind == "network-wants"}
    if "engine-reads-no-cdi" in kinds:
        name = next(claim.word("who") for claim in conflict.claims if claim.kind == "engine-reads-no-cdi")
        return f"{name[:1].upper()}{name[1:]} wants CDI, and no engine on offer reads it."
    if conflict.tree.variable != "stack" or not who:
        return ""
    if kinds & {"wanted-client", "client-ended"} and kinds <= {"wanted-client", "client-ended", "network-wants"}:
        return f"{who} {verb} a client that the network does not let in."
    if "toolkit-holes" in kinds:
        return f"{who} {verb} a container toolkit with published holes."
    if keys == {"cdi"} or kinds & {"wanted-cdi", "cdi-without-toolkit"}:
        return f"{who} {verb} CDI on and off: one side for each host."
    if "toolkit" in keys or "wanted-toolkit" in kinds:
        return f"{who} {verb} a container toolkit that this host is not offered."
    if keys & {"runtime", "docker", "containerd"}:
        return f"{who} {verb} a container engine that this host is not offered."
    return ""


def _who(conflict: Conflict) -> tuple[str, str]:
    """Who asks: networks, the request, the policy; ("", "") when nobody does."""
    who = [c.about for c in conflict.claims if c.kind in ("network-wants", "network-needs-driver")]
    kinds = {claim.kind for claim in conflict.claims}
    if kinds & _REQUESTED:
        who.append("the request")
    if kinds & {"forbidden-branches", "refuse-ended", "no-reboot"}:
        who.append("the policy")
    who = list(dict.fromkeys(who))
    text = _listed(who) if who else ""
    if text.startswith("the "):
        text = text[:1].upper() + text[1:]
    return text, "wants" if len(who) == 1 else "want"


def _lines(tree: Falls) -> list[tuple[str, tuple[str, ...]]]:
    """The leaves in order, each once, with what they rest on."""
    found: dict[Claim, None] = {}

    def walk(node: Falls) -> None:
        for reason in node.because:
            if isinstance(reason, Falls):
                walk(reason)
            else:
                found.setdefault(reason)

    walk(tree)
    return [(sentence(claim), sources(claim)) for claim in found]


def with_source(text: str, rest: Iterable[str]) -> list[str]:
    where = f"({'; '.join(rest)})" if rest else ""
    first = wrapped("   · ", text)
    if not where:
        return first
    if len(first) == 1 and len(first[0]) + 2 + len(where) <= WIDTH:
        return [f"{first[0]}  {where}"]
    return [*first, f"     {where}"]


def wrapped(lead: str, text: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent=lead, subsequent_indent=" " * len(lead), break_on_hyphens=False)


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


EDITS: dict[str, Callable[[Edit], str]] = {
    "drop-network": lambda e: f"serve without {e.word('name') or e.value}",
    "profile": lambda e: f"serve {e.word('name')} as: {e.word('title')}",
    "free-driver": lambda e: f"let the driver be chosen (provision_driver is {e.value})",
    "free-modules": lambda e: f"let the kernel modules be chosen (provision_modules is {e.value})",
    "free-client": lambda e: f"let the client of {e.word('name')} be chosen (provision_networks pins {e.word('pin')})",
    "free-cuda": lambda e: f"ask for no CUDA level (provision_cuda is {e.value})",
    "allow-branch": lambda e: f"allow driver branch {e.value}",
    "allow-ended": lambda e: "accept a driver past its end of life (provision_policy.past_end_of_life: upgrade)",
    "allow-reboot": lambda e: "allow a reboot (provision_policy.reboot: allow)",
    "component": lambda e: f"enable {e.value} in the package sources",
    "source": lambda e: (
        f"add the {e.word('title')} ({e.value}) to the package sources"
        + (", stating its key's fingerprint" if e.word("fingerprint") else "")
    ),
    "boot-kernel": lambda e: f"boot into kernel {e.value}, whose headers are offered",
    "older-kernel": lambda e: (
        f"go back to kernel {e.value}, whose headers are offered, and do without the fixes of {e.word('newer')}"
    ),
    "runtime": lambda e: f"use {e.value} as runtime",
    "free-toolkit": lambda e: f"let the container toolkit be chosen (provision_toolkit is {e.value})",
    "free-cdi": lambda e: f"let CDI be chosen (provision_cdi is {e.value})",
    "os": lambda e: f"upgrade to {e.word('name') or e.value}",
    "take-out": lambda e: f"take out {e.word('name')} in slot {e.value}",
}


def edit(change: Edit) -> str:
    return EDITS[change.kind](change)


def repair_lines(repairs: tuple[Repair, ...]) -> list[str]:
    rows = []
    for letter, repair in zip("abcdefghijklmnop", repairs, strict=False):
        what = " and ".join(edit(change) for change in repair.edits)
        rows.append((f"   {letter}. {what}", _cost(repair), _given(repair)))
    left, middle = (max(len(row[column]) for row in rows) for column in (0, 1))
    if left + middle + max(len(row[2]) for row in rows) + 6 <= WIDTH:
        return [f"{a:<{left}}  {b:<{middle}}  → {c}" for a, b, c in rows]
    return [line for a, b, c in rows for line in (a, f"      {b:<{middle}}  → {c}")]


def _cost(repair: Repair) -> str:
    if any(change.kind == "take-out" for change in repair.edits):
        return "at the rig"
    if any(change.kind == "os" for change in repair.edits):
        return "reinstall or upgrade"
    return "reboot" if repair.reboot else "no reboot"


def _given(repair: Repair) -> str:
    return stack_in_words(repair.stack) + (" (as the matrix lists its packages)" if repair.assumed else "")


def stack_in_words(stack: HostLock) -> str:
    """`driver 535.309.01, CUDA 12.2, serves akash`."""
    parts = []
    if stack.driver_version is not None:
        parts.append(f"driver {stack.driver_version.value}")
    if stack.cuda is not None:
        parts.append(f"CUDA {stack.cuda.value}")
    if not parts:
        parts.append("no driver on the host")
    serving = ", ".join(stack.networks) or "no network"
    return f"{', '.join(parts)}, serves {serving}"


def _next(host: str, answer: NoSolution, closer: str | None) -> list[str]:
    if not answer.repairs:
        unknown = [c for conflict in answer.conflicts for c in conflict.claims if c.kind == "card-unknown"]
        if unknown:
            return [
                f"Add the card to the matrix (a file in matrix/gpus that names {unknown[0].about}), then resolve again."
            ]
        return [closer or f"Look closer: provision facts {host}"]
    return [_to_do(host, answer.repairs[0].edits[0]), *([closer] if closer else [])]


def look_closer(host: str, answer: NoSolution) -> str | None:
    """`Look closer: provision why-not rig-01 cuda=13.0`: what would allow the value that the conflict is about."""
    for conflict in answer.conflicts:
        for claim in conflict.claims:
            value = _asked_about(claim)
            if value:
                return f"Look closer: {shlex.join(['provision', 'why-not', host, value])}"
    return None


def _asked_about(claim: Claim) -> str | None:
    """The value that a person misses: what was asked for, the newest that is not listed, the branch of a card."""
    if claim.kind == "wanted-cuda":
        return f"cuda={claim.about}"
    if claim.kind == "wanted-driver":
        return f"driver={claim.about}" if claim.about[:1].isdigit() else f"driver{claim.about}"
    if claim.kind == "card-driver":
        return f"driver={claim.word('last') or claim.word('first')}"
    if claim.kind == "network-wants" and claim.word("key") == "driver" and claim.word("too-new"):
        return f"driver={claim.word('too-new').rpartition(', ')[2]}"
    if claim.kind == "network-wants" and claim.word("key") == "cuda":
        level = re.fullmatch(r">=(\d+\.\d+)", claim.word("wanted"))
        return f"cuda={level[1]}" if level else None
    return None


def _to_do(host: str, first: Edit) -> str:
    """How the first repair is done: the variable to change, or what comes after it."""
    key = {
        "drop-network": "provision_networks",
        "profile": "provision_networks",
        "free-driver": "provision_driver",
        "free-client": "provision_networks",
        "free-modules": "provision_modules",
        "free-cuda": "provision_cuda",
        "allow-branch": "provision_policy.forbid_branches",
        "allow-ended": "provision_policy.past_end_of_life",
        "allow-reboot": "provision_policy.reboot",
        "runtime": "provision_runtime",
        "free-toolkit": "provision_toolkit",
        "free-cdi": "provision_cdi",
        "source": "provision_policy.sources",
    }.get(first.kind)
    again = f"provision resolve {host}"
    if key is None:
        return f"After that: {again}"
    return f"To do a: change {key} of {host} in the inventory, then {again}"


# --- a lock in words ----------------------------------------------------------------------------------------------


UNITS = ("driver", "compat", "runtime", "toolkit", "kernel")
"""Packages of one unit move together; the order in which they are told."""


def choices(lock: HostLock) -> str:
    """Each choice of a lock with its reasons, and why nothing newer: what `resolve --explain` prints."""
    rows: list[tuple[str, Choice]] = []
    for label, choice in (
        ("driver branch", lock.driver_branch),
        ("driver", lock.driver_version),
        ("modules", lock.modules),
        ("CUDA", lock.cuda),
        ("forward compatibility", lock.compat),
        ("runtime", lock.runtime),
        ("toolkit", lock.toolkit),
        ("CDI", lock.cdi),
    ):
        if choice is not None:
            rows.append((label, choice))
    rows += [(name, choice) for name, choice in lock.networks.items()]
    width = max((len(label) for label, _ in rows), default=0)
    lines = []
    for label, choice in rows:
        lines.append(f"  {label:<{width}}  {choice.value}")
        lines += reason_lines("because", choice.because, width)
        lines += reason_lines("not newer", choice.not_newer, width)
    if lock.driver_version is None:
        lines.append("  no driver: nothing here asks for one")
    count = {unit: sum(p.unit == unit for p in lock.packages) for unit in UNITS}
    size = sum(p.size for p in lock.packages) / 1e6
    if lock.packages:
        lines.append(
            f"  {len(lock.packages)} packages ({size:.0f} MB): "
            + ", ".join(f"{n} {unit}" for unit, n in count.items() if n)
        )
    lines += [line for text in lock.warnings for line in wrapped("  ! ", text)]
    lines += [line for text in lock.unchecked for line in wrapped("  not checked here: ", text)]
    return "\n".join(lines) + "\n"


def reason_lines(label: str, reasons: Iterable[object], width: int) -> list[str]:
    lines = []
    for reason in reasons:
        text = getattr(reason, "text", "")
        rests = getattr(reason, "rests_on", ())
        where = f" ({'; '.join(rests)})" if rests else ""
        lines += wrapped(" " * (width + 4) + f"{label}: ", f"{text}{where}")
    return lines
