"""Files that are put into place: the unit's pattern, the broker's settings, the udev rules."""

from pathlib import Path
from typing import Final

FILES: Final = Path(__file__).parent
