"""The documents of python-raven, and what its services share that use MongoDB.

``documents`` turns messages into documents and documents into messages, and ``database`` is the
driver's client and what each of its errors means.
"""

import sys
from importlib.util import find_spec

if find_spec("OpenSSL") is None:
    # pymongo would import cryptography, some 8 MB, and only then look for PyOpenSSL.
    sys.modules.setdefault("pymongo.pyopenssl_context", None)  # type: ignore[arg-type]
