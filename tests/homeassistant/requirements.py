"""Say what the integrations of the test require, by Home Assistant's own manifests.

Run by Home Assistant's Python; the lines are for pip.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import homeassistant  # type: ignore[import-not-found]

HOME = Path(homeassistant.__file__).parent
todo = ["frontend", "mqtt", "recorder", "history", "energy", "config", "logbook"]
# It asks hassio for a broker, and the pages need what describes services, set up or not.
todo += ["hassio", "ai_task", "assist_satellite", "camera", "media_player", "tts"]
lines = [f"-c {HOME / 'package_constraints.txt'}"]
seen: set[str] = set()
while todo:
    name = todo.pop()
    if name not in seen:
        seen.add(name)
        manifest = json.loads((HOME / "components" / name / "manifest.json").read_text())
        todo += manifest.get("dependencies", [])
        lines += manifest.get("requirements", [])
sys.stdout.write("\n".join(lines) + "\n")
