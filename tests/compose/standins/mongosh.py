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
for database, what, value in re.findall(
    r'db\.getSiblingDB\("(\w+)"\)\.create(User|Role)\((\{.*\})\)',
    pathlib.Path(sys.argv[-1]).read_text(),
):
    fields = json.loads(value)
    client[database].command(f"create{what}", fields.pop(what.lower()), **fields)
