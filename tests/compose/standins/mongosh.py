"""mongosh, for the two things that compose and the entrypoint say to it."""

import json
import pathlib
import re
import sys

from pymongo import MongoClient

client = MongoClient("127.0.0.1", 27017, serverSelectionTimeoutMS=2000)
if "--eval" in sys.argv:
    assert sys.argv[-1] == "quit(db.hello().isWritablePrimary ? 0 : 1)", sys.argv
    sys.exit(0 if client.admin.command("hello")["isWritablePrimary"] else 1)
for database, user in re.findall(
    r'db\.getSiblingDB\("(\w+)"\)\.createUser\((\{.*\})\)', pathlib.Path(sys.argv[-1]).read_text()
):
    fields = json.loads(user)
    client[database].command("createUser", fields.pop("user"), **fields)
