"""The ledger of a judge with failures."""

from dataclasses import asdict

from omnihuman.judge.base import Ledger, Verdict


def test_coverage_counts_missing_items() -> None:
    ledger = Ledger()
    assert ledger.coverage == 0
    ledger.add([Verdict("a", model="m"), None, Verdict("b", model="n"), Verdict("c", model="m")])
    ledger.add_missing("status 500")
    ledger.add_missing("status 500")
    assert (ledger.num_items, ledger.num_judged, ledger.coverage) == (4, 3, 0.75)
    assert ledger.models == {"m": 2, "n": 1} and ledger.missing == {"status 500": 2}
    assert asdict(ledger)["models"] == {"m": 2, "n": 1}  # as in judge.json
