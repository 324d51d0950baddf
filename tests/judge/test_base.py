"""The ledger, and what it says of a judge that fails."""

from dataclasses import asdict

from omnihuman.judge.base import Ledger, Verdict


def test_coverage_counts_what_is_missing() -> None:
    ledger = Ledger()
    assert ledger.coverage == 0
    ledger.count([Verdict("a", model="m"), None, Verdict("b", model="n"), Verdict("c", model="m")])
    ledger.miss("status 500")
    ledger.miss("status 500", 2)
    assert (ledger.asked, ledger.judged, ledger.coverage) == (4, 3, 0.75)
    assert ledger.served == {"m": 2, "n": 1} and ledger.missing == {"status 500": 3}
    assert asdict(ledger)["served"] == {"m": 2, "n": 1}  # as metrics.json has it
