"""How the drain of a plan reads: what is done, how long a job is waited for, and what it may cost all the same."""

from __future__ import annotations

from provisioner.cli.views.plan import phase_lines
from provisioner.model.plan import DrainStep, HostPlan

AKASH = DrainStep(network="akash", kind="scale-zero", how="x", penalty="leases may be closed")
LIUM = DrainStep(network="lium", kind="notice-period", how="x", by_hand=True, containers="pod_*", wait_s=60)
CHUTES = DrainStep(network="chutes", kind="maintenance-window", how="x", by_hand=True, sees_jobs=False)
GONE = DrainStep(network="akash", kind="absent", how="x", wait_s=0)
RENDER = DrainStep(network="render", kind="none", how="x", by_hand=True, penalty="a frame suffers")


def lines(*steps: DrainStep) -> list[tuple[str, str]]:
    plan = HostPlan(host="rig-01", drain=("akash", "lium"), drains=steps)
    return [line for line in phase_lines(plan) if line[0] in ("drain", "")]


def test_each_network_says_how_it_stops() -> None:
    """One line each, its cost below it, and what ends the drain last."""
    assert lines(AKASH, LIUM, CHUTES, RENDER) == [
        ("drain", "akash: scale the provider to 0, wait up to 30 min for the running job"),
        ("", "penalty at akash: leases may be closed"),
        ("", "lium: set a notice period (by hand, before you apply), wait up to 60 s for the running job"),
        (
            "",
            "chutes: start maintenance in an open window (by hand, before you apply), "
            "nothing on the host tells whether a job runs: look first",
        ),
        ("", "render: no way without penalty is known, wait up to 30 min for the running job"),
        ("", "penalty at render: a frame suffers"),
        ("", "stop the clients of akash, lium, take back the enrolment"),
    ]


def test_a_node_of_a_cluster() -> None:
    """It is cordoned too; who does not wait reads what that means."""
    node = AKASH.model_copy(update={"then": ("evict",)})
    assert lines(node)[0][1] == (
        "akash: scale the provider to 0 and cordon the node, wait up to 30 min for the running job"
    )
    lost = node.model_copy(update={"interrupt": True, "wait_s": 0})
    assert lines(lost)[0][1] == (
        "akash: scale the provider to 0 and cordon the node, end what runs there, without waiting"
    )


def test_nothing_of_kubernetes() -> None:
    """The plan says why it scales nothing."""
    assert lines(GONE)[0] == (
        "drain",
        "akash: nothing of Kubernetes is on this host, so there is no provider to scale down, no job to wait for",
    )


def test_a_host_that_does_not_serve_has_nothing_to_drain() -> None:
    """One line, as ever."""
    assert lines() == [("drain", "stop the clients of akash, lium, take back the enrolment")]
