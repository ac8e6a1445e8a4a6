"""mongosh, for what compose, the entrypoint and the tests say to it."""

import json
import pathlib
import re
import sys

from pymongo import MongoClient

url = "mongodb://127.0.0.1"
if "--tls" in sys.argv:
    url = f"mongodb://localhost/?tls=true&tlsCAFile={sys.argv[sys.argv.index('--tlsCAFile') + 1]}"
if "--nodb" in sys.argv:
    login = pathlib.Path(sys.argv[-2]).read_text()
    url = json.loads(login.partition("connect(")[2].rpartition(")")[0])
client = MongoClient(url, serverSelectionTimeoutMS=2000)
if "--eval" in sys.argv:
    assert sys.argv[-1] == "quit(db.hello().isWritablePrimary ? 0 : 1)", sys.argv
    sys.exit(0 if client.admin.command("hello")["isWritablePrimary"] else 1)
script = pathlib.Path(sys.argv[-1]).read_text()
for user in re.findall(r'raven\.dropUser\("(\w+)"\)', script):
    client["raven"].command("dropUser", user)
for database, what, value in re.findall(
    r'(raven|(?<=getSiblingDB\(")\w+)(?:"\))?\.create(User|Role)\((\{.*\})\)',
    script,
):
    fields = json.loads(value)
    name = fields.pop(what.lower())
    if not client[database].command(f"{what.lower()}sInfo", name)[f"{what.lower()}s"]:
        client[database].command(f"create{what}", name, **fields)
