"""Two owners of one JSON file: nothing of the other's is lost, and what somebody changed is told apart."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from provisioner.model.settings import lacking, merged, told

KEYS = st.sampled_from(["a", "b", "c"])
OPTIONS = st.lists(st.sampled_from(["x=1", "x=2", "y=1"]), max_size=2, unique_by=lambda option: option[0])
LEAVES: Any = st.none() | st.booleans() | st.integers(0, 3) | OPTIONS
VALUES: Any = st.recursive(
    st.dictionaries(KEYS, LEAVES, max_size=3), lambda inner: st.dictionaries(KEYS, inner | LEAVES, max_size=3)
)


@given(VALUES, VALUES)
def test_what_is_merged_lacks_nothing_and_merging_again_changes_nothing(theirs: Any, ours: Any) -> None:
    """Two laws; the text of a file is the same after the second run."""
    once = merged(theirs, ours)

    assert lacking(once, ours) == ()
    assert merged(once, ours) == once


@given(VALUES, VALUES)
def test_no_key_of_theirs_is_lost(theirs: Any, ours: Any) -> None:
    assert theirs.keys() <= merged(theirs, ours).keys()


def test_the_owners_runtimes_and_options_stay() -> None:
    """`sysbox-runc` is theirs; of exec-opts only the one option changes."""
    theirs = {
        "runtimes": {"sysbox-runc": {"path": "/usr/bin/sysbox-runc"}},
        "exec-opts": ["isolation=default", "native.cgroupdriver=systemd"],
        "data-root": "/srv/docker",
    }
    ours = {"runtimes": {"nvidia": {"path": "nvidia-container-runtime"}}, "exec-opts": ["native.cgroupdriver=cgroupfs"]}

    assert merged(theirs, ours) == {
        "runtimes": {
            "sysbox-runc": {"path": "/usr/bin/sysbox-runc"},
            "nvidia": {"path": "nvidia-container-runtime"},
        },
        "exec-opts": ["isolation=default", "native.cgroupdriver=cgroupfs"],
        "data-root": "/srv/docker",
    }
    assert lacking(theirs, ours) == ("exec-opts", "runtimes.nvidia")


def test_what_somebody_changed_is_shown_from_three_sides() -> None:
    """Only what we wrote and now stands otherwise; a wish of ours that is new is no quarrel."""
    wrote = json.loads('{"default-runtime": "runc", "live-restore": true}')
    there = {"default-runtime": "nvidia"}
    wanted = {"default-runtime": "runc", "live-restore": True, "features": {"cdi": True}}

    assert told(lacking(there, wanted), wrote=wrote, there=there, wanted=wanted) == (
        'default-runtime: provision wrote "runc", "nvidia" stands there now, "runc" is wanted',
        "live-restore: provision wrote true, nothing stands there now, true is wanted",
    )
    assert told(lacking(there, wanted), wrote=None, there=there, wanted=wanted) == ()
