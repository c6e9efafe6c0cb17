"""Makes DICOM objects for the tests: any pixels, any elements, any transfer syntax."""

from __future__ import annotations

import io

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

PATIENT = "DOE^SECRET^JOHN"


def dicom(
    pixels, photometric="MONOCHROME2", syntax=ExplicitVRLittleEndian, frames=None, preamble=True, codestreams=None, **elements
) -> bytes:
    """DICOM bytes of pixels [H, W], [H, W, 3] or, with ``frames``, [N, H, W(, 3)]; keyword arguments set or (None) delete elements."""
    ds = Dataset()
    ds.SOPClassUID, ds.SOPInstanceUID = SecondaryCaptureImageStorage, generate_uid(entropy_srcs=["fusedx"])
    ds.PatientName, ds.PatientID = PATIENT, "ID-SECRET"
    shape = pixels.shape[1:] if frames else pixels.shape
    ds.Rows, ds.Columns = shape[:2]
    ds.SamplesPerPixel = shape[2] if len(shape) == 3 else 1
    if ds.SamplesPerPixel > 1:
        ds.PlanarConfiguration = 0
    ds.PhotometricInterpretation = photometric
    ds.BitsAllocated = ds.BitsStored = 8 * pixels.dtype.itemsize
    ds.HighBit, ds.PixelRepresentation = ds.BitsStored - 1, int(pixels.dtype.kind == "i")
    if frames:
        ds.NumberOfFrames = frames
    if codestreams is not None:
        ds.PixelData = encapsulate(codestreams)
        ds["PixelData"].VR = "OB"
    elif pixels.dtype.kind == "f":
        ds.FloatPixelData = pixels.astype("<f4").tobytes()
    else:
        data = pixels.astype(pixels.dtype.newbyteorder("<" if syntax.is_little_endian else ">")).tobytes()
        ds.PixelData = data + b"\0" * (len(data) % 2)
        ds["PixelData"].VR = "OB" if pixels.dtype.itemsize == 1 else "OW"
    for keyword, value in elements.items():
        if value is None:
            delattr(ds, keyword)
        else:
            setattr(ds, keyword, value)
    buffer = io.BytesIO()
    if not preamble:
        ds.save_as(buffer, implicit_vr=syntax.is_implicit_VR, little_endian=syntax.is_little_endian, enforce_file_format=False)
        return buffer.getvalue()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = syntax
    ds.file_meta.MediaStorageSOPClassUID, ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPClassUID, ds.SOPInstanceUID
    ds.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def table(first: int, bits: int, data) -> Dataset:
    """One item of a modality or VOI LUT sequence."""
    item = Dataset()
    item.LUTDescriptor = [len(data), first, bits]
    item["LUTDescriptor"].VR = "SS" if first < 0 else "US"
    item.LUTData = np.asarray(data, "<u2").tobytes()
    item["LUTData"].VR = "OW"
    return item
