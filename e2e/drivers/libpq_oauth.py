"""libpq 18 with a token that its application has: prints what it was asked and what came of it, as JSON.

Arguments: the library, the connection string, a statement. The token is in SALLYPORT_TOKEN.
"""

import ctypes
import json
import os
import sys

library, conninfo, statement = sys.argv[1:4]
pq = ctypes.CDLL(library)
asked = []
# Kept here: libpq reads it after the hook has returned.
token = os.environb[b"SALLYPORT_TOKEN"]
bearer_token = 1


class BearerRequest(ctypes.Structure):
    """PGoauthBearerRequest of libpq-fe.h."""

    _fields_ = [
        ("openid_configuration", ctypes.c_char_p),
        ("scope", ctypes.c_char_p),
        ("asynchronous", ctypes.c_void_p),
        ("cleanup", ctypes.c_void_p),
        ("token", ctypes.c_char_p),
        ("user", ctypes.c_void_p),
    ]


@ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_void_p, ctypes.POINTER(BearerRequest))
def hook(kind, _connection, request):
    if kind != bearer_token:
        return 0
    given = request.contents
    asked.append([text.decode() if text else None for text in (given.openid_configuration, given.scope)])
    given.token = token
    return 1


def text_of(name, *arguments):
    function = pq[name]
    function.restype = ctypes.c_char_p
    return (function(*arguments) or b"").decode()


pq.PQconnectdb.restype = pq.PQexec.restype = ctypes.c_void_p
pq.PQsetAuthDataHook(hook)
connection = ctypes.c_void_p(pq.PQconnectdb(conninfo.encode()))
outcome = {"asked": asked, "error": text_of("PQerrorMessage", connection)}
if pq.PQstatus(connection) == 0:
    result = ctypes.c_void_p(pq.PQexec(connection, statement.encode()))
    outcome["value"] = text_of("PQgetvalue", result, 0, 0)
pq.PQfinish(connection)
print(json.dumps(outcome))
