"""WADO-RS: GetDICOMInstance, its metadata, frames and bulk data (PS3.18 10.4)."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from starlette.responses import Response

from local.healthimaging import image_sets
from local.healthimaging import transfer_syntaxes as ts
from local.healthimaging.codecs import CodecError, decode_frame, decoded_photometric, describe
from local.healthimaging.context import Context
from local.healthimaging.dicom_json import DicomJson, dicom_json
from local.healthimaging.dicomweb.exchange import (
    Exchange,
    FoundSeries,
    find_instance,
    find_series,
    json_response,
)
from local.healthimaging.dicomweb.media import MediaType, Part, build_multipart
from local.healthimaging.documents import InstanceEntry, effective_attributes
from local.healthimaging.elements import Attributes
from local.healthimaging.errors import invalid, not_acceptable, not_found
from local.healthimaging.part10 import restored_dataset, write_part10
from local.healthimaging.pixels import unpack_bits
from local.healthimaging.transfer_syntaxes import EXPLICIT_LITTLE_ENDIAN, content_type

_ANY = ("*/*", "")


class Wado:
    """The retrieve transactions."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def series_metadata(self, exchange: Exchange) -> Response:
        """DICOM JSON of all instances of a series."""
        exchange.require_json()
        found = find_series(self._context.database.reader(), exchange)
        series_uid = exchange.named["series"]
        return json_response(
            [
                self._metadata(found, exchange, series_uid, sop_instance_uid)
                for sop_instance_uid in found.document["series"][series_uid]["instances"]
            ]
        )

    def instance_metadata(self, exchange: Exchange) -> Response:
        """DICOM JSON of one instance, in a list as the standard wants it."""
        exchange.require_json()
        found = find_series(self._context.database.reader(), exchange)
        find_instance(found, exchange)
        series_uid, instance_uid = exchange.named["series"], exchange.named["instance"]
        return json_response([self._metadata(found, exchange, series_uid, instance_uid)])

    @staticmethod
    def _metadata(found: FoundSeries, exchange: Exchange, series_uid: str, instance_uid: str) -> DicomJson:
        study = f"{exchange.base_url}/studies/{exchange.named['study']}"
        url = f"{study}/series/{series_uid}/instances/{instance_uid}"
        attributes = effective_attributes(found.document, series_uid, instance_uid)
        return dicom_json(attributes, bulk_uri=f"{url}/bulkdata")

    def instance(self, exchange: Exchange) -> Response:
        """A whole instance as PS3.10 file: explicit VR little endian, or as stored with
        `transfer-syntax=*`."""
        found = find_series(self._context.database.reader(), exchange)
        entry = find_instance(found, exchange)
        wanted = _choose(exchange.accept, ("application/dicom",), "application/dicom")
        stored = entry["stored_transfer_syntax"] or EXPLICIT_LITTLE_ENDIAN
        syntax = _target_syntax(wanted, stored)
        attributes = effective_attributes(
            found.document, exchange.named["series"], exchange.named["instance"]
        )
        data = self._file(found, entry, attributes, syntax)
        answer_type = f"application/dicom; transfer-syntax={syntax}"
        if wanted.multipart:
            body, full_type = build_multipart(
                [Part(content_type=answer_type, data=data)], root_type="application/dicom"
            )
            return Response(body, headers={"Content-Type": full_type})
        return Response(data, headers={"Content-Type": answer_type})

    def _file(self, found: FoundSeries, entry: InstanceEntry, attributes: Attributes, syntax: str) -> bytes:
        dataset = restored_dataset(attributes, get_bulk=self._bulk_reader(found))
        frames = self._stored_frames(found, entry, range(len(entry["frames"])))
        encapsulated = bool(frames) and ts.is_encapsulated(syntax, frames[0])
        if frames and not entry["decodable"]:
            if syntax != entry["stored_transfer_syntax"]:
                raise not_acceptable("The pixel data could not be transcoded; ask for transfer-syntax=*.")
            dataset.add_new(0x7FE00010, "OB" if encapsulated else "OW", frames[0])
        elif frames and syntax == EXPLICIT_LITTLE_ENDIAN:
            _set_native_pixels(dataset, entry, frames)
        elif frames:
            dataset.add_new(0x7FE00010, "OB", encapsulate(frames))
        if encapsulated:
            dataset["PixelData"].is_undefined_length = True
        return write_part10(dataset, syntax)

    def frames(self, exchange: Exchange) -> Response:
        """Frames by number from 1: explicit VR little endian, or as stored with `transfer-syntax=*`."""
        found = find_series(self._context.database.reader(), exchange)
        entry = find_instance(found, exchange)
        numbers = _frame_numbers(exchange.named["frames"])
        if not entry["frames"]:
            raise not_found(f"Pixel data of SOP instance {exchange.named['instance']}")
        if any(number < 1 or number > len(entry["frames"]) for number in numbers):
            raise not_found(f"Frame {max(numbers)} of SOP instance {exchange.named['instance']}")
        stored = entry["stored_transfer_syntax"]
        own_type = content_type(stored)
        wanted = _choose(exchange.accept, ("application/octet-stream", own_type), "application/octet-stream")
        if (
            wanted.name == own_type
            and wanted.transfer_syntax is None
            and own_type != "application/octet-stream"
        ):
            syntax = stored
        else:
            syntax = _target_syntax(wanted, stored)
        frames = self._stored_frames(found, entry, [number - 1 for number in numbers])
        if syntax == EXPLICIT_LITTLE_ENDIAN and stored != EXPLICIT_LITTLE_ENDIAN:
            attributes = effective_attributes(
                found.document, exchange.named["series"], exchange.named["instance"]
            )
            dataset = restored_dataset(attributes, get_bulk=self._bulk_reader(found))
            frames = [_decoded(dataset, entry, frame) for frame in frames]
            name = "application/octet-stream"
        else:
            name = wanted.name if wanted.name == own_type else "application/octet-stream"
        part_type = f"{name}; transfer-syntax={syntax}"
        if len(frames) == 1 and not wanted.multipart and wanted.name not in _ANY:
            return Response(frames[0], headers={"Content-Type": part_type})
        body, full_type = build_multipart(
            [Part(content_type=part_type, data=frame) for frame in frames], root_type=name
        )
        return Response(body, headers={"Content-Type": f"{full_type}; transfer-syntax={syntax}"})

    def bulkdata(self, exchange: Exchange) -> Response:
        """A value that was split off the metadata."""
        found = find_series(self._context.database.reader(), exchange)
        find_instance(found, exchange)
        data = self._bulk_reader(found)(exchange.named["bulk"])
        wanted = _choose(exchange.accept, ("application/octet-stream",), "application/octet-stream")
        if wanted.multipart:
            body, full_type = build_multipart(
                [Part(content_type="application/octet-stream", data=data)],
                root_type="application/octet-stream",
            )
            return Response(body, headers={"Content-Type": full_type})
        return Response(data, headers={"Content-Type": "application/octet-stream"})

    def _bulk_reader(self, found: FoundSeries) -> Callable[[str], bytes]:
        def read(bulk_id: str) -> bytes:
            connection = self._context.database.reader()
            return self._context.content.get(image_sets.find_bulk(connection, found.image_set.id, bulk_id))

        return read

    def _stored_frames(self, found: FoundSeries, entry: InstanceEntry, indices: Iterable[int]) -> list[bytes]:
        connection = self._context.database.reader()
        located = [
            image_sets.find_frame(connection, found.image_set.id, entry["frames"][index]["id"])
            for index in indices
        ]
        return [self._context.content.get(location.digest) for location in located]


def _choose(accept: list[MediaType], names: tuple[str, ...], default: str) -> MediaType:
    """The best acceptable media type. Raises NotAcceptableException."""
    for media_type in accept:
        if media_type.name in names:
            return media_type
        if media_type.name in _ANY or media_type.name == f"{default.split('/')[0]}/*":
            return MediaType(
                name=default if media_type.name not in _ANY else media_type.name,
                multipart=media_type.multipart,
                parameters=media_type.parameters,
            )
    raise not_acceptable(f"Acceptable media types are {', '.join(sorted(set(names)))}.")


def _target_syntax(wanted: MediaType, stored: str) -> str:
    """The transfer syntax to answer in: what was asked for, explicit VR little endian by default.

    Only the stored one and explicit VR little endian can be had, and of video only the stored one.
    """
    asked = wanted.transfer_syntax or EXPLICIT_LITTLE_ENDIAN
    if asked in ("*", stored):
        return stored
    if asked != EXPLICIT_LITTLE_ENDIAN or stored in ts.VIDEO:
        raise not_acceptable(f"Transfer syntax {asked} is not available; the stored one is {stored}.")
    return asked


def _frame_numbers(text: str) -> list[int]:
    parts = text.replace("%2C", ",").replace("%2c", ",").split(",")
    if not all(part.isdigit() for part in parts) or len(set(parts)) != len(parts):
        raise invalid("The frame list is one or more different numbers with commas between them.")
    return [int(part) for part in parts]


def _decoded(dataset: Dataset, entry: InstanceEntry, frame: bytes) -> bytes:
    """One stored frame as native little-endian bytes. Raises NotAcceptableException."""
    if not entry["decodable"]:
        raise not_acceptable("The pixel data could not be transcoded; ask for transfer-syntax=*.")
    try:
        array = decode_frame(frame, entry["stored_transfer_syntax"], describe(dataset))
    except CodecError as error:
        raise not_acceptable(f"The frame cannot be decoded; ask for transfer-syntax=*. {error}") from error
    return bytes(array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes())


def _set_native_pixels(dataset: Dataset, entry: InstanceEntry, frames: list[bytes]) -> None:
    stored = entry["stored_transfer_syntax"]
    if stored == EXPLICIT_LITTLE_ENDIAN:
        # Stored frames of single-bit data each begin at a byte; in the data set they follow without a gap.
        pixels = describe(dataset).rows * describe(dataset).columns
        if pixels % 8 == 0:
            data = b"".join(frames)
        else:
            bits = np.concatenate([unpack_bits(frame, pixels) for frame in frames])
            data = np.packbits(bits, bitorder="little").tobytes()
    else:
        data = b"".join(_decoded(dataset, entry, frame) for frame in frames)
        dataset.PhotometricInterpretation = decoded_photometric(describe(dataset), stored)
        if dataset.SamplesPerPixel > 1:
            dataset.PlanarConfiguration = 0
    vr = "OW" if dataset.BitsAllocated > 8 else "OB"
    dataset.add_new(0x7FE00010, vr, data + b"\0" * (len(data) % 2))
