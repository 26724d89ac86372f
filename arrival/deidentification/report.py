"""The report of de-identification, one document a study: what was changed by which rule, and what was
refused.

Counts, rules and attributes; no values, no original UIDs. It may be read by whoever may read the study.
"""

from __future__ import annotations

import threading
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field

from arrival.deidentification.outcome import Deidentified, Quarantined
from arrival.deidentification.profile import DEFAULT, Profile
from arrival.deidentification.table import table_version

NO_STUDY = "no-study"
"""The study of what was quarantined because it names none."""


@dataclass(kw_only=True)
class _Study:
    instances: int = 0
    days_shifted: bool = False
    changes: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    """By rule, tag and keyword."""
    quarantined: int = 0
    reasons: Counter[str] = field(default_factory=Counter)


class StudyReports:
    """Collects outcomes, by several threads at once; memory grows with the studies and not with the
    instances."""

    def __init__(self, *, profile: Profile = DEFAULT) -> None:
        self._profile = profile
        self._lock = threading.Lock()
        self._studies: defaultdict[str, _Study] = defaultdict(_Study)

    def add(self, outcome: Deidentified | Quarantined) -> None:
        """Count one instance."""
        with self._lock:
            if isinstance(outcome, Quarantined):
                study = self._studies[outcome.study_instance_uid or NO_STUDY]
                study.quarantined += 1
                study.reasons.update(outcome.reasons)
                return
            study = self._studies[outcome.identity.study_instance_uid]
            study.instances += 1
            study.days_shifted = study.days_shifted or outcome.identity.days_of_shift != 0
            study.changes.update((change.rule, change.tag, change.keyword) for change in outcome.changes)

    def documents(self) -> Mapping[str, dict[str, object]]:
        """One JSON document a study, by its NEW Study Instance UID."""
        with self._lock:
            return {uid: self._document(uid, study) for uid, study in sorted(self._studies.items())}

    def _document(self, uid: str, study: _Study) -> dict[str, object]:
        by_rule: Counter[str] = Counter()
        for (rule, _, _), count in study.changes.items():
            by_rule[rule] += count
        return {
            "studyInstanceUid": uid,
            "table": table_version(),
            "options": self._profile.to_json(),
            "codes": [
                {"value": value, "scheme": "DCM", "meaning": text} for value, text in self._profile.codes
            ],
            "instances": study.instances,
            "datesShifted": study.days_shifted,
            "changesByRule": dict(sorted(by_rule.items())),
            "changes": [
                {"rule": rule, "tag": tag, "keyword": keyword, "count": count}
                for (rule, tag, keyword), count in sorted(study.changes.items())
            ],
            "quarantined": study.quarantined,
            "quarantineReasons": dict(sorted(study.reasons.items())),
        }
