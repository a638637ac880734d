"""The logic of three answers, and how causes, consequences and likelihood order what is found."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from provisioner.doctor.diagnose import Catalogue, diagnose, score
from provisioner.doctor.facts import FACTS
from provisioner.doctor.host import Host
from provisioner.doctor.judge import fill, fill_command, verdict
from provisioner.doctor.mechanism import Condition, Mechanism
from provisioner.doctor.truth import Evidence, Truth, Verdict, both, either, neither
from provisioner.model.capture import UNKNOWN, Capture
from tests.doctor.hosts import Rig
from tests.doctor.variants import VARIANTS
from tests.doctor.world import EXPECTED, failure, matrix, mechanisms
from tests.facts.hosts import capture

ANSWERS = {Truth.YES: True, Truth.NO: False, Truth.UNSEEN: None}
TRUTHS = st.lists(st.sampled_from(list(Truth)), min_size=1, max_size=5)


@given(TRUTHS)
def test_all_and_any_are_kleenes(truths: list[Truth]) -> None:
    """One no decides all, one yes decides any; what is open stays open else."""
    verdicts = [Verdict(truth) for truth in truths]

    all_of = Truth.NO if Truth.NO in truths else Truth.UNSEEN if Truth.UNSEEN in truths else Truth.YES
    any_of = Truth.YES if Truth.YES in truths else Truth.UNSEEN if Truth.UNSEEN in truths else Truth.NO
    assert both(verdicts).truth is all_of
    assert either(verdicts).truth is any_of
    assert ANSWERS[neither(verdicts).truth] == (None if any_of is Truth.UNSEEN else not ANSWERS[any_of])


@given(TRUTHS, st.integers(0, 4), st.sampled_from([Truth.YES, Truth.NO]))
def test_seeing_more_settles_and_never_turns(truths: list[Truth], place: int, seen: Truth) -> None:
    """An answer that was settled before one more look is the same after it."""
    place %= len(truths)
    if truths[place] is not Truth.UNSEEN:
        return
    more = [*truths[:place], seen, *truths[place + 1 :]]
    for group in (both, either, neither):
        before = group(Verdict(truth) for truth in truths).truth
        after = group(Verdict(truth) for truth in more).truth

        assert before in (Truth.UNSEEN, after)


# Two looks at one thing, of which the better one is believed while both are there.
_SEVERAL_LOOKS = {"processes.zombies", "cards.xids", "driver.branch"}
_HOSTS: list[Capture] = [
    *(failure(name) for name in sorted(EXPECTED)[::4]),
    *(variant.capture for variant in list(VARIANTS.values())[::6]),
    Rig().capture(),
    Rig(system="debian-12", driver="535.261.03").capture(),
]


@given(st.sampled_from(_HOSTS), st.data())
def test_a_fact_is_forgotten_and_never_turned(host: Capture, data: st.DataObject) -> None:
    """Whatever is taken out of a capture, a fact is what it was or not seen."""
    keys = sorted([*host.files, *host.commands])
    gone = set(data.draw(st.lists(st.sampled_from(keys), min_size=1, max_size=6)))
    less = host.model_copy(
        update={
            "files": {path: text for path, text in host.files.items() if path not in gone},
            "commands": {line: answer for line, answer in host.commands.items() if line not in gone},
        }
    )
    whole, part = Host(host, matrix()), Host(less, matrix())
    turned = {
        name: (fact.of(whole).value, fact.of(part).value)
        for name, fact in FACTS.items()
        if name not in _SEVERAL_LOOKS and fact.of(part).value not in (UNKNOWN, fact.of(whole).value)
    }

    assert turned == {}


def condition(**given: object) -> Condition:
    return Condition.model_validate(given)


LOADED = {"/sys/module/nvidia/version": "535.261.03\n"}
LIBRARY = "readlink -f /usr/lib/x86_64-linux-gnu/libnvidia-ml.so.1"


def answer(asked: Condition, **given: object) -> Truth:
    return verdict(asked, Host(capture(**given))).truth  # type: ignore[arg-type]


def test_versions_compare_as_numbers_and_absent_ones_not_at_all() -> None:
    """`.03` is `.3`; nothing differs from what is not there; what was not seen stays open."""
    differs = condition(fact="driver.loaded", differs_from="driver.library")
    library = {LIBRARY: "/usr/lib/x86_64-linux-gnu/libnvidia-ml.so.535.261.3\n"}

    assert answer(differs, files=LOADED, commands=library) is Truth.NO
    assert answer(differs, files=LOADED) is Truth.UNSEEN
    assert (
        answer(differs, files={"/proc/modules": "", "/sys/module/nvidia/version": None}, commands=library) is Truth.NO
    )


def test_silence_is_no_answer_where_nobody_listened() -> None:
    """A log that was read and says nothing is a no; one that was not read, or refused to be read, is not seen."""
    asked = condition(said="GPU has fallen", **{"in": ["kernel-log"]})
    refused = {"dmesg": _output(1, stderr="dmesg: read kernel buffer failed: Operation not permitted\n")}

    assert answer(asked, commands={"dmesg": "all is well\n"}) is Truth.NO
    assert answer(asked, commands={"dmesg": "NVRM: GPU has fallen off the bus.\n"}) is Truth.YES
    assert answer(asked) is Truth.UNSEEN
    assert answer(asked, commands=refused) is Truth.UNSEEN


def test_a_missing_program_says_nothing_of_itself() -> None:
    """What a shell prints for a command that it does not find is no word of that command."""
    asked = condition(said="no such file", **{"in": ["containers"]})

    assert (
        answer(asked, commands={"docker run x": _output(127, stderr="docker: No such file or directory\n")})
        is not Truth.YES
    )


def test_the_line_and_its_number_are_shown() -> None:
    """Evidence is the very line; in files with its number."""
    asked = condition(said="root *=", **{"in": ["/etc/nvidia-container-runtime/config.toml"]})
    text = '[nvidia-container-cli]\n  root = "/run/nvidia/driver"\n'
    found = verdict(asked, Host(capture(files={"/etc/nvidia-container-runtime/config.toml": text})))

    assert found.evidence == (
        Evidence("said", 'root = "/run/nvidia/driver"', "/etc/nvidia-container-runtime/config.toml:2"),
    )


def test_what_the_matrix_knows_against_a_build_is_evidence() -> None:
    """With package, kernel and entry; of a host whose module is another package nothing is known."""
    broken = VARIANTS["an-open-module-on-a-kernel-that-moved-on"].capture
    found = FACTS["driver.does_not_build"].of(Host(broken, matrix()))
    [row] = found.evidence

    assert found.value == ("6.1.0-56-amd64",)
    assert row.text.startswith(
        "nvidia-open-kernel-dkms 535.261.03-1 does not build for 6.1.0-56-amd64 (drivers/535): pci_resize_resource"
    )
    assert row in diagnose(broken, Catalogue(mechanisms(), matrix())).findings[0].evidence
    sound = Rig(system="debian-12", driver="535.261.03").capture()
    assert FACTS["driver.does_not_build"].of(Host(sound, matrix())).value == ()
    assert FACTS["driver.does_not_build"].of(Host(broken)).value is UNKNOWN


def test_an_xid_belongs_to_its_root_and_is_counted_once() -> None:
    """Channels that follow from Xid 149 are no Xids 45; one event in two logs is one event."""
    line = "NVRM: Xid (PCI:0000:dc:00): 45, pid=1, name=p, Ch 00000001 caused by previous Xid 149"
    twice = {
        "dmesg": f"[    9.1] {line}\n",
        "journalctl -q --no-pager _TRANSPORT=kernel --grep='Xid'": f"2026-11-24T03:00:00+0000 n kernel: {line}\n",
    }

    assert answer(condition(xid=[149]), commands=twice) is Truth.YES
    assert answer(condition(xid=[45]), commands=twice) is Truth.NO
    assert answer(condition(xid=[149], times=2), commands=twice) is Truth.NO
    again = {"dmesg": f"[    9.1] {line}\n[  812.7] {line}\n"}
    assert answer(condition(xid=[149], times=2), commands=again) is Truth.YES


def test_commands_take_no_value_that_a_shell_would_mistake() -> None:
    """A host can call its kernel what it likes; it does not get into a line that an operator pastes."""
    good = Host(capture(files={"/proc/sys/kernel/osrelease": "6.1.0-56-amd64\n"}))
    evil = Host(capture(files={"/proc/sys/kernel/osrelease": "6.1$(reboot)\n"}))

    assert fill_command("apt-get install linux-headers-{kernel.running}", good).endswith("linux-headers-6.1.0-56-amd64")
    assert fill_command("apt-get install linux-headers-{kernel.running}", evil).endswith("linux-headers-KERNEL_RUNNING")
    assert fill("for {kernel.running} and {os}", good) == "for 6.1.0-56-amd64 and <the operating system>"


def _output(rc: int, stdout: str = "", stderr: str = "") -> object:
    from provisioner.model.capture import CommandOutput

    return CommandOutput(rc=rc, stdout=stdout, stderr=stderr)


# Folding and order, in a world of four mechanisms.


def mechanism(name: str, said: str, **more: object) -> Mechanism:
    given: dict[str, object] = {
        "id": name,
        "title": name.capitalize(),
        "area": "driver",
        "certainty": "certain",
        "costs": {"level": "down", "words": "all"},
        "when": {"said": said, "in": ["kernel-log"]},
        "cause": "Why.",
        "prevention": ["Care."],
        "sources": ["https://example.org"],
        "seen": "2026-11-24",
        "confidence": "high",
        "repair": {"where": "host", "steps": [{"do": "Mend."}], "drain": "no", "reboot": "no", "minutes": 0},
        "proof": {"match": [{"title": "yes"}], "no_match": [{"title": "no"}]},
    }
    return Mechanism.model_validate({**given, **more})


WORLD = {
    item.id: item
    for item in (
        mechanism("root", "alpha", explains=["middle"]),
        mechanism("middle", "beta", explains=["end"], kind="symptom"),
        mechanism("end", "gamma", kind="symptom"),
        mechanism("exact", "alpha exactly", covers=["root"]),
        mechanism("beside", "delta", costs={"level": "notice", "words": "little"}),
    )
}


def found(text: str) -> dict[str, list[str]]:
    """Findings with what follows from them."""
    diagnosis = diagnose(capture(commands={"dmesg": text}), Catalogue(WORLD))
    return {item.mechanism.id: [one.id for one in item.follows] for item in diagnosis.findings}


def test_consequences_are_folded_through_what_was_not_seen() -> None:
    """The end follows from the root although the middle does not hold."""
    assert found("alpha\nbeta\ngamma\n") == {"root": ["middle", "end"]}
    assert found("alpha\ngamma\n") == {"root": ["end"]}


def test_a_symptom_without_its_cause_is_a_finding() -> None:
    """Until its cause is seen."""
    assert found("gamma\n") == {"end": []}


def test_the_more_exact_one_takes_the_place_of_the_general_one() -> None:
    """And inherits what follows from it."""
    assert found("alpha exactly\ngamma\n") == {"exact": ["end"]}


def test_what_costs_more_comes_first() -> None:
    """A notice stands behind what keeps a host from serving."""
    assert list(found("delta\nalpha\n")) == ["root", "beside"]
    assert score(WORLD["root"]) > score(WORLD["middle"]) > score(WORLD["beside"])
