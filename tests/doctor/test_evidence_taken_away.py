"""One line of evidence less: doctor still knows, or says what it has not seen; never well, never another cause."""

from __future__ import annotations

import pytest

from provisioner.model.capture import Capture
from tests.doctor.variants import VARIANTS
from tests.doctor.world import EXPECTED, LINES_CALLED, catalogue, failure, ids, look, mechanisms, without

HOSTS = {name: (mechanism, failure(name)) for name, mechanism in EXPECTED.items()} | {
    name: (variant.first, variant.capture) for name, variant in VARIANTS.items()
}


@pytest.mark.parametrize("name", HOSTS)
def test_no_line_less_makes_it_well_or_wrong(name: str) -> None:
    """Every line of the finding's evidence in turn.

    What doctor's own look would not have shown anyway (a container that somebody started, a client's log) is named
    as not tried; all else keeps the host from a clean bill.
    """
    wanted, capture = HOSTS[name]
    whole = look(capture)
    finding = next(item for item in whole.findings if item.mechanism.id == wanted)
    related = {wanted, *ids(whole)}
    related |= {other for item in related for other in catalogue().reach[item]}

    for where in dict.fromkeys(item.where for item in finding.evidence):
        less = without(capture, where)
        assert less != capture, where
        left = look(less)
        wrong = [item for item in ids(left)[:1] if item not in related and mechanisms()[item].kind != "symptom"]

        assert wrong == [], where
        if ids(left)[:1] != [wanted]:
            assert left.state != "clean" or _not_tried(less, where, capture), where
            assert left.findings or left.not_seen, where


def _not_tried(less: Capture, where: str, capture: Capture) -> bool:
    """Whether the line came from something that a person ran, and the place it belongs to is named as not tried."""
    own = look(capture)
    named = where in capture.commands or where in LINES_CALLED
    return named and any(not look_.asked for look_ in look(less).not_seen) and bool(own.findings)
