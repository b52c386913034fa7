"""Questions to try the page with: the sample handbook's, with the passages a retriever finds."""

import json
from functools import cache
from importlib.resources import files
from typing import Any

__all__ = ["samples"]

# What the index of "ragpack demo" finds first for each question, best first.
_FOUND = {
    "q24": (
        "incident-06 expenses-02 expenses-01 pay-02 procure-05 expenses-03 incident-11 incident-10"
    ),
    "q01": (
        "travel-05 travel-01 expenses-04 facility-04 expenses-06 travel-06 travel-04 facility-05"
    ),
    "q21": (
        "incident-01 release-02 release-01 field-04 incident-10 release-08 support-07 incident-08"
    ),
    "q08": "leave-04 leave-01 leave-05 leave-09 leave-02 onboard-05 leave-06 oncall-01",
    "q14": "safety-04 field-01 field-02 incident-03 pay-04 plant-06 labs-06 leave-02",
    "q28": "facility-03 about-02 it-01 facility-02 procure-04 labs-01 facility-07 safety-05",
    "q23": "incident-05 safety-05 support-05 incident-12 field-03 quality-04 incident-08 plant-04",
    "q12": (
        "security-02 security-06 security-01 security-05 "
        "security-09 safety-07 onboard-03 security-04"
    ),
    "q17": (
        "support-01 oncall-04 procure-05 procure-03 support-07 onboard-02 incident-10 support-03"
    ),
    "q13": "security-05 plant-02 plant-05 support-02 plant-03 onboard-01 security-09 oncall-07",
    "q05": (
        "expenses-02 expenses-01 about-06 glossary-02 support-01 support-06 incident-06 quality-05"
    ),
    "q09": "leave-03 safety-09 safety-03 travel-09 incident-01 glossary-05 onboard-07 glossary-04",
}


@cache
def samples() -> list[dict[str, Any]]:
    """Each with ``id``, ``query`` and ``passages`` (``id``, ``title``, ``text``), best first."""
    handbook = {record["id"]: record for record in _records("handbook.jsonl")}
    asked = {record["id"]: record["question"] for record in _records("handbook_questions.jsonl")}
    return [
        {"id": ident, "query": asked[ident], "passages": [handbook[one] for one in found.split()]}
        for ident, found in _FOUND.items()
    ]


def _records(name: str) -> list[dict[str, Any]]:
    text = (files("ragpack") / "data" / name).read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]
