"""Encrypted Office documents: opened by their password."""

from dataclasses import replace
from io import BytesIO

from ingest_svc.extract import Source
from ingest_svc.parsing.detection import ENCRYPTED_OFFICE
from meshkit.errors import FailedPrecondition, InvalidArgument

# What Excel encrypts with where its user gives no password: such files open without one.
_NO_PASSWORD = "VelvetSweatshop"  # noqa: S105 - published in [MS-OFFCRYPTO]


def decrypted(source: Source) -> Source:
    """The document inside of an encrypted one; raises PASSWORD_REQUIRED, UNREADABLE_DOCUMENT."""
    # Imported at first use, as parsers are: few documents need it.
    from msoffcrypto import OfficeFile
    from msoffcrypto.exceptions import DecryptionError, InvalidKeyError

    opened = BytesIO()
    try:
        file = OfficeFile(BytesIO(source.data))
        file.load_key(password=source.password or _NO_PASSWORD, verify_password=True)
        file.decrypt(opened)
    except (InvalidKeyError, DecryptionError) as error:
        words = "the document is encrypted, and came without the password that opens it"
        raise FailedPrecondition("PASSWORD_REQUIRED", words) from error
    except MemoryError:
        raise
    except Exception as error:
        # msoffcrypto answers broken files with whatever its lower layers raise.
        metadata = {"media_type": ENCRYPTED_OFFICE}
        raise InvalidArgument("UNREADABLE_DOCUMENT", "the document is broken", metadata=metadata) from error
    return replace(source, data=opened.getvalue())
