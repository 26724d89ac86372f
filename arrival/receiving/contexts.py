"""Which SOP classes and transfer syntaxes a device may send in (PS3.8 section 9.3.2, PS3.4 annex B)."""

from __future__ import annotations

from collections.abc import Iterable

from pynetdicom import ALL_TRANSFER_SYNTAXES, AllStoragePresentationContexts, build_context
from pynetdicom.pdu_primitives import SOPClassCommonExtendedNegotiation
from pynetdicom.presentation import PresentationContext
from pynetdicom.service_class import ServiceClass
from pynetdicom.sop_class import Verification, uid_to_service_class

_KNOWN = frozenset(map(str, ALL_TRANSFER_SYNTAXES))
_STORAGE = frozenset(str(context.abstract_syntax) for context in AllStoragePresentationContexts)
_STORAGE_SERVICE = "1.2.840.10008.4.2"
_OF_THE_STANDARD = "1.2.840.10008."
_STORAGE_OF_THE_STANDARD = "1.2.840.10008.5.1.4.1.1."
"""Retired storage SOP classes have their UIDs here, too (PS3.6 annex A)."""


def takes(sop_class_uid: str) -> bool:
    """Whether instances of this SOP class are taken: all of the standard's for storage, and private ones.

    A private UID does not say of what service it is. One that is none of storage is found out at the first
    request: only C-STORE is answered.
    """
    return sop_class_uid in _STORAGE or _is_unknown_storage(sop_class_uid)


def _is_unknown_storage(sop_class_uid: str) -> bool:
    """Of storage, by all that can be known, and not among pynetdicom's: private or retired."""
    return uid_to_service_class(sop_class_uid) is ServiceClass and (
        not sop_class_uid.startswith(_OF_THE_STANDARD) or sop_class_uid.startswith(_STORAGE_OF_THE_STANDARD)
    )


def supported(proposed: Iterable[PresentationContext]) -> list[PresentationContext]:
    """What pynetdicom is to accept of what a device proposes.

    Each context of `proposed` is narrowed to the first of its transfer syntaxes that is known: pynetdicom
    would go by its own order, and a device that proposes JPEG before Implicit VR would have to decompress.
    """
    syntaxes: dict[str, list[str]] = {str(Verification): [str(one) for one in ALL_TRANSFER_SYNTAXES]}
    for context in proposed:
        uid = str(context.abstract_syntax)
        first = next((one for one in context.transfer_syntax if one in _KNOWN), None)
        if first is not None and takes(uid):
            context.transfer_syntax = [first]
            syntaxes.setdefault(uid, []).append(str(first))
    return [build_context(uid, list(dict.fromkeys(first))) for uid, first in syntaxes.items()]


def storage_services(
    contexts: Iterable[PresentationContext],
) -> dict[str, SOPClassCommonExtendedNegotiation]:
    """What pynetdicom needs to know of SOP classes that are not among its own: that they are of storage.

    As if the device had said so itself (SOP class common extended negotiation, PS3.7 section D.3.3.6).
    """
    return {
        uid: _of_storage(uid)
        for context in contexts
        if _is_unknown_storage(uid := str(context.abstract_syntax))
    }


def _of_storage(sop_class_uid: str) -> SOPClassCommonExtendedNegotiation:
    item = SOPClassCommonExtendedNegotiation()
    item.sop_class_uid = sop_class_uid
    item.service_class_uid = _STORAGE_SERVICE
    return item
